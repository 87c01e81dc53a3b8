"""An encoder as a model of timm or transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_lightning.config.extras import extra
from jepa_lightning.encoders import TimmEncoder, ViT
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.loading import Frozen
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.run.checkpoints import mismatch
from jepa_lightning.weights.exporting.preprocessing import Pixels
from jepa_lightning.weights.formats.hugging_face import write_ijepa, write_vjepa2
from jepa_lightning.weights.formats.official import timm_names
from jepa_lightning.weights.formats.weights import State


def write_timm(frozen: Frozen, pixels: Pixels, folder: Path) -> Any:
    """Write a folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` loads; a function that runs it."""
    import timm

    encoder: Any = frozen.encoder
    name, arguments, state = _of_timm(frozen) if isinstance(encoder, TimmEncoder) else _as_timm(frozen)
    config = {
        "architecture": name,
        "num_classes": 0,
        "num_features": encoder.dim,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [pixels.channels, *pixels.size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": pixels.mean,
            "std": pixels.std,
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
        },
    }
    wrong = mismatch(timm.create_model(name, num_classes=0, **arguments).state_dict(), state)
    if wrong:  # models that pool before they norm
        raise ValueError(f"timm's {name} has other parts than the encoder made of it: {wrong}; export to onnx or pt2")
    _write(folder, config, state)
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    extra = model.num_prefix_tokens
    return lambda images: model.forward_features(images)[:, extra:]


def _as_timm(frozen: Frozen) -> tuple[str, dict[str, Any], State]:
    encoder, spec = _plain(frozen, "timm's VisionTransformer"), frozen.modality.spec
    trunk = encoder.transformer
    if len(spec.shape) != 3:
        raise ValueError("expected images or spectrograms for timm, got clips: export them to onnx or pt2")
    if trunk.layers[0].norm1.eps != 1e-6:
        raise ValueError(f"expected norm_eps 1e-6, which timm's ViT has, got {trunk.layers[0].norm1.eps}")
    arguments = {
        "img_size": [n * p for n, p in zip(spec.grid or (), spec.shape[1:], strict=True)],
        "patch_size": list(spec.shape[1:]),
        "in_chans": spec.shape[0],
        "embed_dim": encoder.dim,
        "depth": len(trunk.layers),
        "num_heads": trunk.layers[0].attn.num_heads,
        "mlp_ratio": _ratio(trunk),
        "class_token": False,
        "global_pool": "avg",
        "fc_norm": False,
    }
    return "vit_base_patch16_224", arguments, timm_names(released(encoder, spec))


def _of_timm(frozen: Frozen) -> tuple[str, dict[str, Any], State]:
    encoder: Any = frozen.encoder
    if len(encoder.grid) == 3:
        raise ValueError("expected images for timm, got tubelets, which its models do not take: export to onnx or pt2")
    known = ((frozen.config or {}).get("model") or {}).get("modality", {}).get("init_args", {}).get("encoder") or {}
    settings = known.get("init_args") or {}
    if "name" not in settings:
        raise ValueError("expected a run of jepa-fit, which says the timm model's name, got a model built in Python")
    arguments = {
        "img_size": [n * p for n, p in zip(encoder.grid, encoder.shape[1:], strict=True)],
        "patch_size": list(encoder.shape[1:]),
        "in_chans": encoder.shape[0],
        **(settings.get("options") or {}),
    }
    return settings["name"].split(".")[0], arguments, encoder.model.state_dict()


def write_transformers(frozen: Frozen, predictor: Any, pixels: Pixels, folder: Path) -> Any:
    """Write a folder that `AutoModel.from_pretrained` loads, as IJepaModel or VJEPA2Model; a function that runs it."""
    who, broken = "exporting to transformers needs", "transformers does not load ({})".format
    with extra("export", who=who, packages=("transformers",), broken=broken):
        from transformers import AutoModel

    clips = len(frozen.modality.spec.shape) == 4
    config, state = _as_vjepa2(frozen, predictor) if clips else _as_ijepa(frozen)
    _write(folder, config, state)
    name, processor = pixels.processor(clips=clips)
    (folder / name).write_text(json.dumps(processor, indent=2))
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    wrong = {kind: sorted(keys) for kind, keys in info.items() if kind in ("missing_keys", "unexpected_keys") and keys}
    if wrong:
        raise ValueError(f"transformers does not load what was written: {wrong}")
    model.eval()
    if clips:
        return lambda video: model(pixel_values_videos=video.transpose(1, 2), skip_predictor=True).last_hidden_state
    return lambda images: model(pixel_values=images).last_hidden_state


def _as_ijepa(frozen: Frozen) -> tuple[dict[str, Any], State]:
    encoder, spec = _plain(frozen, "transformers' IJepaModel"), frozen.modality.spec
    trunk = encoder.transformer
    patch, grid = spec.shape[1:], spec.grid or ()
    if len(grid) != 2 or frozen.modality.name != "image":
        raise ValueError(
            f"expected images or clips for transformers, got {frozen.modality.name}: export to timm or onnx"
        )
    size = [n * p for n, p in zip(grid, patch, strict=True)]
    config = {
        "model_type": "ijepa",
        "architectures": ["IJepaModel"],
        "hidden_size": encoder.dim,
        "num_hidden_layers": len(trunk.layers),
        "num_attention_heads": trunk.layers[0].attn.num_heads,
        "intermediate_size": trunk.layers[0].mlp.fc1.out_features,
        "layer_norm_eps": trunk.layers[0].norm1.eps,
        "image_size": size[0] if size[0] == size[1] else size,
        "patch_size": patch[0] if patch[0] == patch[1] else list(patch),
        "num_channels": spec.shape[0],
    }
    return config, write_ijepa(released(encoder, spec))


def _as_vjepa2(frozen: Frozen, predictor: Any) -> tuple[dict[str, Any], State]:
    encoder: Any = frozen.encoder
    spec = frozen.modality.spec
    forms = [getattr(getattr(part, "transformer", None), "rotary", None) for part in (encoder, predictor)]
    if not isinstance(encoder, ViT) or forms[0] != "released" or encoder.rotary_grid is not None:
        raise ValueError(
            "expected a ViT with rotary: released, the one form that transformers' VJEPA2Model computes, got "
            f"{forms[0]}: export to onnx or pt2, or train with rotary: released in encoder and predictor"
        )
    if not isinstance(predictor, TransformerPredictor) or forms[1] != "released" or predictor.condition is not None:
        raise ValueError(
            f"expected a TransformerPredictor with rotary: released, which VJEPA2Model holds, too, got "
            f"{type(predictor).__name__} with {forms[1]}"
        )
    trunk: Any = encoder.transformer
    asked: Any = predictor.transformer
    channels, tubelet, *patch = spec.shape
    grid = spec.grid or ()
    if patch[0] != patch[1] or grid[1] != grid[2]:
        raise ValueError(f"expected square frames and patches for VJEPA2Model, got a grid of {grid} and {patch}")
    config = {
        "model_type": "vjepa2",
        "architectures": ["VJEPA2Model"],
        "patch_size": patch[0],
        "crop_size": grid[1] * patch[0],
        "frames_per_clip": grid[0] * tubelet,
        "tubelet_size": tubelet,
        "in_chans": channels,
        "hidden_size": encoder.dim,
        "num_attention_heads": trunk.layers[0].attn.num_heads,
        "num_hidden_layers": len(trunk.layers),
        "mlp_ratio": _ratio(trunk),
        "layer_norm_eps": trunk.layers[0].norm1.eps,
        "pred_hidden_size": predictor.embed.out_features,
        "pred_num_attention_heads": asked.layers[0].attn.num_heads,
        "pred_num_hidden_layers": len(asked.layers),
        "pred_mlp_ratio": _ratio(asked),
        "pred_num_mask_tokens": predictor.mask_token.numel() // predictor.embed.out_features,
    }
    state = {key.removeprefix("transformer."): value for key, value in predictor.state_dict().items()}
    return config, write_vjepa2(released(encoder, spec), state)


def released(encoder: Any, spec: Any) -> State:
    """The weights of a ViT under the names of `Weights`; positions that are computed become a table."""
    state = {key.removeprefix("transformer."): value for key, value in encoder.state_dict().items()}
    state.pop("positions.table", None)
    state["patch.weight"] = state.pop("embed.weight").unflatten(1, spec.shape)
    state["patch.bias"] = state.pop("embed.bias")
    if encoder.positions is not None:
        state["positions"] = encoder.positions(grid_positions(spec.grid))[0]
    return state


def _plain(frozen: Frozen, model: str) -> Any:
    """The encoder, if it is a ViT on a grid with positions at its input.

    Raises:
        ValueError: it is not.
    """
    encoder: Any = frozen.encoder
    if not isinstance(encoder, ViT) or not encoder.flat or frozen.modality.spec.grid is None:
        raise ValueError(f"expected a ViT on a grid of patches for {model}, got {type(encoder).__name__}: try onnx")
    if encoder.positions is None or encoder.positions_at != "input" or any(encoder.positions.parameters()):
        raise ValueError(f"expected fixed positions at the input, which {model} has, got others: export to onnx or pt2")
    if not hasattr(encoder.transformer.norm, "weight"):
        raise ValueError(f"expected a final norm, which {model} has, got final_norm: false")
    return encoder


def _ratio(trunk: Any) -> float:
    hidden, width = trunk.layers[0].mlp.fc1.weight.shape
    return hidden / width


def _write(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    (folder / "config.json").write_text(json.dumps(config, indent=2))
    tensors = {key: value.detach().to(torch.float32).contiguous().clone() for key, value in state.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
