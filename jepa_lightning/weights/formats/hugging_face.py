"""I-JEPA and V-JEPA 2 in transformers' names: read, and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jepa_lightning.weights.formats.weights import Facts, State, Weights, fuse, split

_QKV = {"attn.q": "query", "attn.k": "key", "attn.v": "value"}
_IJEPA_LAYER = {  # ours -> of files on the hub, then as transformers 5 has them in memory
    "attn.q": ("attention.attention.query", "attention.q_proj"),
    "attn.k": ("attention.attention.key", "attention.k_proj"),
    "attn.v": ("attention.attention.value", "attention.v_proj"),
    "attn.proj": ("attention.output.dense", "attention.o_proj"),
    "mlp.fc1": ("intermediate.dense", "mlp.fc1"),
    "mlp.fc2": ("output.dense", "mlp.fc2"),
    "norm1": ("layernorm_before", "layernorm_before"),
    "norm2": ("layernorm_after", "layernorm_after"),
}
_VJEPA_LAYER = {
    **{ours: f"attention.{theirs}" for ours, theirs in _QKV.items()},
    "attn.proj": "attention.proj",
    **{name: name for name in ("mlp.fc1", "mlp.fc2", "norm1", "norm2")},
}
_IJEPA = {
    "embeddings.patch_embeddings.projection": "patch",
    "embeddings.position_embeddings": "positions",
    "layernorm": "norm",
}
_VJEPA = {"embeddings.patch_embeddings.proj": "patch", "layernorm": "norm"}
_ASKED = {
    "embeddings.predictor_embeddings": "embed",
    "embeddings.mask_tokens": "mask_token",
    "layernorm": "norm",
    "proj": "project",
}
_HEADS = ("classifier.", "pooler.", "embeddings.mask_token")


def read_ijepa(config: Mapping[str, Any], state: State, source: str) -> Weights:
    """Read an `IJepaModel`, or one with a classifier, whose head is left out.

    It holds I-JEPA's context encoder: that is what was converted.
    """
    _check(config, source)
    encoder, left_out = _read(
        state, "ijepa.", _IJEPA, {name: ours for ours, both in _IJEPA_LAYER.items() for name in both}
    )
    return Weights(
        source=source,
        family="I-JEPA in transformers' layout",
        encoder=_flat_positions(encoder),
        taken="context encoder (the one that transformers keeps)",
        facts=Facts(heads=config["num_attention_heads"], norm_eps=config.get("layer_norm_eps", 1e-12), rotary="none"),
        grid=_grid(config["image_size"], config["patch_size"]),
        left_out=left_out,
    )


def read_vjepa2(config: Mapping[str, Any], state: State, source: str) -> Weights:
    """Read a `VJEPA2Model` with its predictor, or one with a classifier, whose head is left out."""
    _check(config, source)
    layers = {theirs: ours for ours, theirs in _VJEPA_LAYER.items()}
    state = {re.sub(r"^vjepa2\.", "", key): value for key, value in state.items()}
    asked, _ = _read({k[10:]: v for k, v in state.items() if k.startswith("predictor.")}, "", _ASKED, layers)
    rest = {k: v for k, v in state.items() if not k.startswith("predictor.")}
    encoder, left_out = _read({k.removeprefix("encoder."): v for k, v in rest.items()}, "", _VJEPA, layers)
    if "mask_token" in asked:
        asked["mask_token"] = asked["mask_token"].flatten(0, -2)
    eps = config.get("layer_norm_eps", 1e-6)
    side = config["crop_size"] // config["patch_size"]
    return Weights(
        source=source,
        family="V-JEPA 2 in transformers' layout",
        encoder=encoder,
        taken="encoder (the one on the hub)",
        predictor=asked or None,
        facts=Facts(heads=config["num_attention_heads"], norm_eps=eps, rotary="released"),
        predictor_facts=Facts(heads=config.get("pred_num_attention_heads"), norm_eps=eps, rotary="released"),
        grid=(config["frames_per_clip"] // config["tubelet_size"], side, side),
        left_out=left_out,
    )


def _read(state: State, prefix: str, names: Mapping[str, str], layers: Mapping[str, str]) -> tuple[State, list[str]]:
    """Rename; what is unknown stays as it is, and is refused when it is loaded."""
    out: State = {}
    left_out: list[str] = []
    for key, value in state.items():
        key = key.removeprefix(prefix)
        stem, _, leaf = key.rpartition(".")
        layer = re.match(r"(?:encoder\.layer|layers?)\.(\d+)\.(.+)$", stem)
        if layer and layer[2] in layers:
            out[f"layers.{layer[1]}.{layers[layer[2]]}.{leaf}"] = value
        elif key in names:
            out[names[key]] = value
        elif stem in names:
            out[f"{names[stem]}.{leaf}"] = value
        elif key.startswith(_HEADS):
            left_out.append(key)
        else:
            out[key] = value
    return fuse(out), left_out


def _flat_positions(state: State) -> State:
    if "positions" in state:
        state["positions"] = state["positions"].flatten(0, -2)
    return state


def _check(config: Mapping[str, Any], source: str) -> None:
    if config.get("hidden_act", "gelu") != "gelu" or not config.get("qkv_bias", True):
        raise ValueError(f"expected GELU and biases of queries, keys and values in {source}, got others")


def _grid(image: Any, patch: Any) -> tuple[int, ...]:
    sizes = [(x, x) if isinstance(x, int) else tuple(x) for x in (image, patch)]
    return sizes[0][0] // sizes[1][0], sizes[0][1] // sizes[1][1]


def write_ijepa(encoder: State) -> State:
    """Released names to those of files on the hub."""
    out: State = {}
    own = {ours: both[0] for ours, both in _IJEPA_LAYER.items()}
    for key, value in split(encoder).items():
        out[_written(key, "encoder.layer", {ours: theirs for theirs, ours in _IJEPA.items()}, own)] = value
    out["embeddings.position_embeddings"] = out["embeddings.position_embeddings"][None]
    return out


def write_vjepa2(encoder: State, predictor: State) -> State:
    """Likewise, of V-JEPA 2."""
    out: State = {}
    for part, state, names in (("encoder", encoder, _VJEPA), ("predictor", predictor, _ASKED)):
        for key, value in split(state).items():
            inverse = {ours: theirs for theirs, ours in names.items()}
            out[f"{part}.{_written(key, 'layer', inverse, _VJEPA_LAYER)}"] = value
    tokens = out["predictor.embeddings.mask_tokens"]
    out["predictor.embeddings.mask_tokens"] = tokens.reshape(-1, 1, 1, tokens.shape[-1])
    return out


def _written(key: str, layers: str, names: Mapping[str, str], own: Mapping[str, str]) -> str:
    stem, _, leaf = key.rpartition(".")
    layer = re.match(r"layers\.(\d+)\.(.+)$", stem)
    if layer:
        return f"{layers}.{layer[1]}.{own[layer[2]]}.{leaf}"
    return names[key] if key in names else f"{names[stem]}.{leaf}"
