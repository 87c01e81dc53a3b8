"""What `benchmarks.gpu` checks before it times anything: each device path beside a reference on the CPU or in float64.

Each check returns the largest difference, what it may be at most, and whether it is right.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.maskers import MASKERS
from benchmarks.models import build
from jepa_lightning.encoders import Transformer
from jepa_lightning.encoders.norm import LayerNorm
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.optimization import fused_by_default, set_fused
from jepa_lightning.targets import EMA
from jepa_lightning.tokens import Tokens

Found = dict[str, Any]


def said(difference: float, limit: float) -> Found:
    """A check's row."""
    return {"difference": difference, "limit": limit, "right": math.isfinite(difference) and difference <= limit}


def masks(device: torch.device) -> Found:
    """Masks for tokens on the device are those for tokens on the CPU."""
    wrong = 0
    for masker in MASKERS.values():
        drawn = []
        for where in (torch.device("cpu"), device):
            values = torch.zeros(8, 196, 1, device=where)
            tokens = Tokens(values=values, positions=grid_positions((14, 14), where), grid=(14, 14))
            drawn.append(masker(tokens, torch.Generator().manual_seed(0)))
        for mine, other in zip(*drawn, strict=True):
            for name in ("context", "targets", "context_valid", "targets_valid"):
                one, two = getattr(mine, name), getattr(other, name)
                wrong += one is not None and not torch.equal(one, two.cpu())
    return said(float(wrong), 0.0)


def layer_norm(device: torch.device) -> Found:
    """LayerNorm under autocast beside the formula in float64: relative to the largest value, forward and backward."""
    torch.manual_seed(0)
    norm = LayerNorm(384, eps=1e-6).to(device)
    with torch.no_grad():
        norm.weight.add_(0.3 * torch.randn(384, device=device))
    x = (torch.randn(512, 384, device=device) + 20).bfloat16().requires_grad_()
    g = torch.randn(512, 384, device=device).bfloat16()
    with torch.autocast(device.type, torch.bfloat16):
        found = norm(x)
    found.backward(g)
    exact = nn.LayerNorm(384, eps=1e-6).double().to(device)
    exact.load_state_dict(norm.state_dict())
    y = x.detach().double().requires_grad_()
    expected = exact(y)
    expected.backward(g.double())
    pairs = [(found, expected), (x.grad, y.grad)]
    pairs += [(mine.grad, other.grad) for mine, other in zip(norm.parameters(), exact.parameters(), strict=True)]
    return said(max(float((a.detach().double() - b.detach()).norm() / b.detach().norm()) for a, b in pairs), 0.03)


def fused_adamw(device: torch.device) -> Found:
    """Ten steps of the default AdamW beside AdamW in float64 on the CPU."""
    torch.manual_seed(0)
    weights = [torch.randn(300, 200), torch.randn(200)]
    mine = [nn.Parameter(w.to(device)) for w in weights]
    exact = [nn.Parameter(w.double()) for w in weights]
    optimizer = torch.optim.AdamW(mine, weight_decay=0.1)
    chosen = fused_by_default(optimizer)
    set_fused(optimizer, chosen)
    reference = torch.optim.AdamW(exact, weight_decay=0.1)
    for _ in range(10):
        for a, b in zip(mine, exact, strict=True):
            b.grad = torch.randn(b.shape).double()
            a.grad = b.grad.to(a)
        optimizer.step()
        reference.step()
    difference = max(float((a.cpu() - b).abs().max()) for a, b in zip(mine, exact, strict=True))
    return {**said(difference, 1e-5), "fused": chosen}


def ema(device: torch.device) -> Found:
    """Ten averages beside float64 on the CPU, and the copy in half precision beside autocast's casts."""
    model = build("vit_mini", image_size=32, patch_size=4, predictor_width=32, predictor_depth=1).to(device)
    target: Any = model.target
    assert isinstance(target, EMA)
    exact = [p.detach().cpu().double() for p in target.encoder.parameters()]
    tokens = model.tokenizer({"image": torch.randn(2, 3, 32, 32, device=device)})
    with torch.autocast(device.type, torch.bfloat16):
        target(tokens)
    for _ in range(10):
        with torch.no_grad():
            for p in model.encoder.parameters():
                p.add_(0.01 * torch.randn_like(p))
        target.average(model.encoder, 0.9)
        students = (p.detach().cpu().double() for p in model.encoder.parameters())
        exact = [0.9 * mine + 0.1 * theirs for mine, theirs in zip(exact, students, strict=True)]
    pairs = zip(target.encoder.parameters(), exact, strict=True)
    difference = max(float((mine.cpu() - true).abs().max()) for mine, true in pairs)
    with torch.autocast(device.type, torch.bfloat16):
        found = target(tokens)
        used = target._half is not None
        target.half_copy = False
        plain = target(tokens)
    apart = float((found - plain).abs().max() / plain.abs().max())
    row = {**said(difference, 1e-5), "half_copy": used, "copy_difference": apart}
    return {**row, "right": row["right"] and apart < 0.01}


def last_layer(device: torch.device) -> Found:
    """A Transformer whose last layer computes the targets alone beside the whole one, in float64, with gradients."""
    torch.manual_seed(0)
    trunk = Transformer(width=96, depth=2, heads=3).double().to(device)
    x = torch.randn(4, 90, 96, dtype=torch.float64, device=device)
    g = torch.randn(4, 30, 96, dtype=torch.float64, device=device)
    found = []
    for start in (60, 0):
        trunk.zero_grad()
        y = x.clone().requires_grad_()
        out = trunk(y, start=start)[:, -30:]
        (out * g).sum().backward()
        found.append([out.detach(), y.grad, *[p.grad for p in trunk.parameters()]])
    return said(max(float((a - b).abs().max()) for a, b in zip(*found, strict=True)), 1e-10)


def float32_step(device: torch.device) -> Found:
    """Loss and gradients of one step in float32 on the device and in float64 on the CPU, relative."""
    torch.manual_seed(0)
    model = build("vit_mini", image_size=32, patch_size=4, predictor_width=96, predictor_depth=2)
    images = torch.randn(8, 3, 32, 32)
    losses, gradients = [], []
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        for where, kind in ((device, torch.float32), (torch.device("cpu"), torch.float64)):
            twin = copy.deepcopy(model).to(where, kind)
            twin.total_steps = 10
            outcome = twin.step({"image": images.to(where, kind)}, twin.mask_generator("train", 3, 0))
            loss = sum(twin.losses(outcome).values())
            loss.backward()  # type: ignore[union-attr]
            losses.append(float(loss.detach()))  # type: ignore[union-attr]
            trained = [p for p in twin.parameters() if p.requires_grad]
            gradients.append(torch.cat([p.grad.flatten().cpu().double() for p in trained]))  # type: ignore[union-attr]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    off = float((gradients[0] - gradients[1]).norm() / gradients[1].norm())
    return {**said(max(off, abs(losses[0] / losses[1] - 1)), 1e-4), "loss": losses[0], "loss_float64": losses[1]}


CHECKS: dict[str, Callable[[torch.device], Found]] = {
    "loss and gradients, float32": float32_step,
    "masks": masks,
    "LayerNorm under autocast": layer_norm,
    "AdamW": fused_adamw,
    "EMA and its half-precision copy": ema,
    "last layer on targets": last_layer,
}
