"""Weights of any source into a ViT, a TransformerPredictor or another module: resampled, checked, complete."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from jepa_lightning.run.checkpoints import mismatch
from jepa_lightning.weights.formats.official import timm_names
from jepa_lightning.weights.formats.sources import read_weights
from jepa_lightning.weights.formats.tables import grid_of, recognise, resample
from jepa_lightning.weights.formats.weights import Facts, State, Weights

_TABLE = "positions.table"
_CLOSE = 5e-3  # of positions in half precision to computed ones


def load_encoder(encoder: Any, spec: Any, source: str) -> None:
    """Fill an encoder with the weights of a source, and say in one line what was taken; see `fill_encoder`."""
    weights = read_weights(source)
    fill_encoder(encoder, spec, weights)
    rank_zero_info(replace(weights, predictor=None).line())


def load_predictor(predictor: Any, token: Any, source: str) -> None:
    """As `load_encoder`, of a predictor.

    Raises:
        ValueError: the source has none, or it does not fit.
    """
    weights = read_weights(source)
    fill_predictor(predictor, token, weights)
    rank_zero_info(weights.line())


def fill_encoder(encoder: Any, spec: Any, weights: Weights) -> None:
    """Fill an encoder with weights: every parameter, or none.

    Patches and stored positions are resampled to the encoder's sizes.

    Args:
        encoder: a ViT, or a TimmEncoder for weights of images; any class for its own weights from a run.
        spec: the tokens' spec: shape and grid.
        weights: as read. What was done is added to its notes.

    Raises:
        ValueError: something is missing, unexpected, of another size or of another form.
    """
    what = f"the encoder in {weights.source}"
    if not weights.ours and hasattr(encoder, "fill"):
        encoder.fill(timm_names(weights.encoder), what)
        return
    if not weights.ours and not (hasattr(encoder, "transformer") and encoder.flat):
        raise ValueError(
            f"expected a ViT or TimmEncoder on patches for released weights ({weights.source}), got "
            f"{type(encoder).__name__}: set modality.encoder"
        )
    state = dict(weights.encoder)
    if hasattr(encoder, "transformer"):
        _check_facts(encoder, spec.grid, weights, weights.facts, what)
        state = _as_ours(encoder, spec, state, weights)
    _load(encoder, state, what)


def fill_predictor(predictor: Any, token: Any, weights: Weights) -> None:
    """As `fill_encoder`, of a TransformerPredictor, or of any class for its own weights from a run."""
    what = f"the predictor in {weights.source}"
    if weights.predictor is None:
        raise ValueError(f"expected a predictor in {weights.source}, which has none (left out: {weights.left_out})")
    state = dict(weights.predictor)
    if hasattr(predictor, "transformer"):
        _check_facts(predictor, token.grid, weights, weights.predictor_facts, what)
        if not weights.ours:
            state = {_inside(key): value for key, value in state.items()}
            if len(state["mask_token"]) == 1:
                state["mask_token"] = state["mask_token"][0]
            elif predictor.mask_token.ndim == 1:
                raise ValueError(f"{what} has {len(state['mask_token'])} mask tokens: set mask_tokens to that number")
        state = _positions(predictor, token.grid, state, weights, what)
    elif not weights.ours:
        raise ValueError(f"expected a TransformerPredictor for {what}, got {type(predictor).__name__}")
    _load(predictor, state, what)


def _inside(key: str) -> str:
    """A released name in our modules: layers and norm are those of the trunk."""
    return f"transformer.{key}" if key.startswith(("layers.", "norm.")) else key


def _as_ours(encoder: Any, spec: Any, state: State, weights: Weights) -> State:
    """An encoder's weights under the names and in the sizes of a ViT."""
    what = f"the encoder in {weights.source}"
    if not weights.ours:
        patch = state.pop("patch.weight")
        state = {_inside(key): value for key, value in state.items()}
        state["embed.weight"], state["embed.bias"] = _patches(patch, spec.shape, weights, what), state.pop("patch.bias")
    elif getattr(encoder, "flat", False) and "embed.weight" in state:
        state["embed.weight"] = _patches(_unflattened(state["embed.weight"], spec.shape), spec.shape, weights, what)
    return _positions(encoder, spec.grid, state, weights, what)


def _unflattened(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """(D, C t h w) of square patches with the channels and frames of `shape`, as a kernel; else as it is."""
    inner = math.prod(shape[:-2])
    side = math.isqrt(weight.shape[1] // inner)
    if weight.shape[1] == math.prod(shape) or len(shape) < 3:
        return weight.reshape(len(weight), *shape) if weight.shape[1] == math.prod(shape) else weight
    return weight.reshape(len(weight), *shape[:-2], side, side) if inner * side**2 == weight.shape[1] else weight


def _patches(kernel: Tensor, shape: Sequence[int], weights: Weights, what: str) -> Tensor:
    """A patch embedding's kernel (D, C, [t,] h, w), flat and of the size of `shape`."""
    found, wanted = tuple(kernel.shape[1:]), tuple(shape)
    if found == wanted or len(found) == 1:
        return kernel.flatten(1)
    if len(found) != len(wanted) or found[:-2] != wanted[:-2]:
        raise ValueError(
            f"{what} embeds tokens of shape {found}, the modality cuts {wanted}: only height and width of a patch are "
            "resampled; set channels and tubelet to the weights'"
        )
    from timm.layers import resample_patch_embed

    weights.notes.append(f"patches resampled from {found[-2]} x {found[-1]} to {wanted[-2]} x {wanted[-1]}")
    images = kernel.reshape(len(kernel), -1, *found[-2:])
    return resample_patch_embed(images, list(wanted[-2:])).flatten(1)


def _positions(module: Any, grid: Sequence[int] | None, state: State, weights: Weights, what: str) -> State:
    """Stored positions of the weights as the module needs them: its table, or none where it computes the same."""
    name = _TABLE if weights.ours else "positions"
    table = state.pop(name, None)
    stored = module.positions is not None and hasattr(module.positions, "table")
    if table is None:
        if stored:
            raise ValueError(f"{what} stores no positions: leave out positions: stored")
        return state
    if module.positions is None:
        if weights.unsure:
            weights.left_out.append("pos_embed (not used with rotary attention)")
            return state
        raise ValueError(f"{what} has stored positions and no rotary attention: set positions: stored, and no rotary")
    if grid is None:
        raise ValueError(f"{what} has positions of a grid, the modality has none")
    old = grid_of(table, len(grid), weights.grid or grid)
    if old is None:
        raise ValueError(f"{what} has positions of {len(table)} tokens, which is no grid of square images")
    form = recognise(table, old)
    weights.notes.append(f"positions of {' x '.join(map(str, old))} tokens ({form or 'learned'})")
    if tuple(old) != tuple(grid):
        table = resample(table, old, grid)
        weights.notes.append(f"resampled to {' x '.join(map(str, grid))}")
    if stored:
        return {**state, _TABLE: table}
    if not _computes(module.positions, grid, table):
        raise ValueError(
            f"{what} has positions ({form or 'learned'}) that are not those the model computes: set positions: stored"
        )
    return state


def _computes(positions: nn.Module, grid: Sequence[int], table: Tensor) -> bool:
    """Whether a parameter-free embedding of positions gives the rows of a table."""
    if any(True for _ in positions.parameters()):
        return False
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float32) for size in grid), indexing="ij")
    computed = positions(torch.stack([axis.flatten() for axis in axes], dim=-1))
    return computed.shape == table.shape and bool((computed - table).abs().max() < _CLOSE)


def _check_facts(module: Any, grid: Sequence[int] | None, weights: Weights, facts: Facts, what: str) -> None:
    """See that a ViT or predictor computes with the weights as they were trained."""
    trunk = module.transformer
    rotary = facts.rotary
    if weights.unsure:  # V-JEPA or V-JEPA 2: the model decides
        rotary = "released" if trunk.rotary else "none"
        kind = "V-JEPA 2" if trunk.rotary else "V-JEPA"
        weights.notes.append(f"taken as {kind}'s, as the model is; the file does not say")
    own: dict[str, Any] = {
        "rotary": trunk.rotary or "none",
        "heads": trunk.layers[0].attn.num_heads,
        "norm_eps": trunk.layers[0].norm1.eps,
    }
    for name, wanted in {"rotary": rotary, "heads": facts.heads, "norm_eps": facts.norm_eps}.items():
        if wanted is None:
            weights.notes.append(f"{name} {own[name]} as set, the source does not say")
        elif own[name] != wanted:
            raise ValueError(f"{what} was trained with {name}: {wanted}, the model has {own[name]}: set {name}")
    if rotary == "none" or facts.rotary is None:
        return
    meant, found = (tuple(x or (grid or ())[-2:]) for x in (facts.rotary_grid, module.rotary_grid))
    if meant != found:
        said = "null" if facts.rotary_grid is None else list(facts.rotary_grid)
        raise ValueError(f"{what} was trained with rotary_grid: {said}, the model has {found}: set rotary_grid")


def _load(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load every tensor of a module, or none."""
    found = mismatch(module.state_dict(), state)
    if found:
        raise ValueError(f"{what} does not fit the {type(module).__name__}: {found}; set its sizes to the weights'")
    module.load_state_dict(state)
