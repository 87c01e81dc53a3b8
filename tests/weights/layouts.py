"""Random weights in the official files' layouts, and what they compute, in plain float64 from the papers' formulas."""

import math

import torch
import torch.nn.functional as F

from jepa_lightning.weights.formats.tables import published

W, HEADS, DEPTH, HIDDEN, PATCH, SIDE = 28, 2, 2, 56, 4, 4  # a ViT on SIDE x SIDE patches; 28 is not a multiple of 6


def draw(*shape, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64)


def layers(prefix, width=W, depth=DEPTH, hidden=HIDDEN):
    state = {}
    for i in range(depth):
        shapes = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        shapes |= {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
        for name, shape in shapes.items():
            state[f"{prefix}{i}.{name}.weight"] = draw(*shape, scale=shape[1] ** -0.5)
            state[f"{prefix}{i}.{name}.bias"] = draw(shape[0], scale=0.1)
        for name in ("norm1", "norm2"):
            state |= norm(f"{prefix}{i}.{name}", width)
    return state


def norm(name, width=W):
    return {f"{name}.weight": 1 + draw(width, scale=0.1), f"{name}.bias": draw(width, scale=0.1)}


def linear(name, out, into):
    return {f"{name}.weight": draw(out, into, scale=into**-0.5), f"{name}.bias": draw(out, scale=0.1)}


def patch(tubelet=None, width=W):
    shape = (3, PATCH, PATCH) if tubelet is None else (3, tubelet, PATCH, PATCH)
    kernel = draw(width, *shape, scale=math.prod(shape) ** -0.5)
    return {"patch_embed.proj.weight": kernel, "patch_embed.proj.bias": draw(width, scale=0.1)}


def encoder(family, grid=(2, SIDE, SIDE)):
    """An official encoder's state dict."""
    state = {**patch(None if family == "ijepa" else 2), **layers("blocks.")}
    if family == "ijepa":
        state["pos_embed"] = published(grid[-2:], W)[None]
    if family == "vjepa":
        state["pos_embed"] = published(grid, W)[None]
    if family == "vjepa2.1":
        state |= {"img_mod_embed": draw(1, 1, W), "video_mod_embed": draw(1, 1, W)}
        state |= {f"patch_embed_img.{key[12:]}": value for key, value in patch(1).items()}
        for i in range(4):
            state |= norm(f"norms_block.{i}")
        return state
    return {**state, **norm("norm")}


def predictor(family, width=12, grid=(2, SIDE, SIDE), tokens=2):
    """An official predictor's state dict."""
    state = {**linear("predictor_embed", width, W), **layers("predictor_blocks.", width, 1, 2 * width)}
    state |= {**norm("predictor_norm", width), **linear("predictor_proj", W, width)}
    if family == "ijepa":
        return {**state, "mask_token": draw(1, 1, width), "predictor_pos_embed": published(grid[-2:], width)[None]}
    state |= {f"mask_tokens.{i}": draw(1, 1, width) for i in range(tokens)}
    return {**state, "predictor_pos_embed": published(grid, width)[None]} if family == "vjepa" else state


def wrapped(state, prefix="module."):
    return {prefix + key: value for key, value in state.items()}


def rope(x, positions, form):
    """Turn (H, N, C) by positions (N, P)."""
    share = 2 * (x.shape[-1] // positions.shape[1] // 2)
    x = x.clone()
    for axis in range(positions.shape[1]):
        part = x[..., axis * share : (axis + 1) * share].clone()
        omega = 10_000.0 ** -(torch.arange(share // 2, dtype=torch.float64) * 2 / share)
        angles = positions[:, axis, None] * omega
        angles = angles.repeat_interleave(2, -1) if form == "interleaved" else torch.cat([angles, angles], -1)
        turned = torch.stack([-part[..., 1::2], part[..., 0::2]], -1).flatten(-2)
        x[..., axis * share : (axis + 1) * share] = part * angles.cos() + turned * angles.sin()
    return x


def run_layers(state, prefix, x, heads, positions=None, form=None):
    """(N, W) through all layers."""

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    depth = len({key.split(".")[1] for key in state if key.startswith(prefix)})
    for i in range(depth):
        name = f"{prefix}{i}."
        parts = linear(name + "attn.qkv", norm(name + "norm1", x)).unflatten(1, (3, heads, -1)).permute(1, 2, 0, 3)
        q, k, v = parts
        if form:
            q, k = rope(q, positions, form), rope(k, positions, form)
        seen = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = x + linear(name + "attn.proj", seen.transpose(0, 1).flatten(1))
        x = x + linear(name + "mlp.fc2", F.gelu(linear(name + "mlp.fc1", norm(name + "norm2", x))))
    return x


def places(grid):
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    return torch.stack([axis.flatten() for axis in axes], -1)


def encode(state, pixels, form=None, scale=(1, 1, 1), heads=HEADS):
    """One image (3, H, W) or clip (3, T, H, W) through an official encoder: (N, W)."""
    kernel = state["patch_embed.proj.weight"]
    convolve = F.conv2d if kernel.ndim == 4 else F.conv3d
    patches = convolve(pixels[None], kernel, state["patch_embed.proj.bias"], stride=kernel.shape[2:])[0]
    x = patches.flatten(1).T + state.get("video_mod_embed", torch.zeros(1))[0]
    if form is None:
        x = x + state["pos_embed"][0]
    scaled = places(patches.shape[1:]) * torch.tensor(scale, dtype=torch.float64)[-patches.ndim + 1 :]
    x = run_layers(state, "blocks.", x, heads, scaled, form)
    last = "norms_block.3" if "norms_block.3.weight" in state else "norm"
    return F.layer_norm(x, x.shape[-1:], state[f"{last}.weight"], state[f"{last}.bias"], 1e-6)


def predict(state, context, where, wanted, grid, heads, token=0, form=None):
    """Representations (K, W) at indices `where`, to those at `wanted`: (T, W)."""
    tokens = state["mask_token"] if "mask_token" in state else state[f"mask_tokens.{token}"]
    seen = context @ state["predictor_embed.weight"].T + state["predictor_embed.bias"]
    asked = tokens.flatten().expand(len(wanted), -1)
    if form is None:
        table = state["predictor_pos_embed"][0]
        seen, asked = seen + table[where], asked + table[wanted]
    x = run_layers(
        state, "predictor_blocks.", torch.cat([seen, asked]), heads, places(grid)[torch.cat([where, wanted])], form
    )[len(where) :]
    x = F.layer_norm(x, x.shape[-1:], state["predictor_norm.weight"], state["predictor_norm.bias"], 1e-6)
    return x @ state["predictor_proj.weight"].T + state["predictor_proj.bias"]
