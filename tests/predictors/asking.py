"""Sizes, specs and inputs of predictors, shared by their tests."""

import torch

from jepa_lightning.encoders import SinCosPositions, TokenSpec
from jepa_lightning.predictors import PredictorSpec
from jepa_lightning.tokens import Latents, Query

B, K, M, T, D, W = 3, 7, 4, 5, 12, 16
S, C = 2, 6  # tokens and width of a condition
TOKEN = TokenSpec(shape=(3, 4, 4), grid=(6, 6), positions=SinCosPositions)
SPEC = PredictorSpec(dim=D, out=D, token=TOKEN)
TOLD = PredictorSpec(dim=D, out=D, token=TOKEN, condition=C)


def asked(context, context_positions, target_positions, context_valid=None, target_valid=None):
    """What a predictor is called with."""
    seen = Latents(values=context, positions=context_positions, valid=context_valid)
    return seen, Query(positions=target_positions, valid=target_valid)


def disturbed(predictor):
    """The predictor in float64 and eval mode, away from its small initial values, so that everything has an effect."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return predictor.double().eval()


def plain_norm(x, weight=None, bias=None, eps=1e-6):
    """LayerNorm of (n, W), row by row."""
    x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, correction=0) + eps)
    return x if weight is None else x * weight + bias


def plain_attention(x, attn):
    """Attention over (n, W), head by head."""
    q, k, v = (x @ attn.qkv.weight.T + attn.qkv.bias).chunk(3, dim=-1)
    size = x.shape[1] // attn.num_heads
    heads = []
    for h in range(attn.num_heads):
        part = slice(h * size, (h + 1) * size)
        scores = torch.exp(q[:, part] @ k[:, part].T / size**0.5)
        heads.append(scores / scores.sum(-1, keepdim=True) @ v[:, part])
    return torch.cat(heads, -1) @ attn.proj.weight.T + attn.proj.bias


def plain_mlp(x, mlp):
    """The MLP of a layer over (n, W)."""
    x = x @ mlp.fc1.weight.T + mlp.fc1.bias
    return x * (1 + torch.erf(x / 2**0.5)) / 2 @ mlp.fc2.weight.T + mlp.fc2.bias
