"""Making a timm model fit a grid of patches or tubelets: which models can, their creation, and their weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed, resample_patch_embed
from timm.models import adapt_input_conv, eva, load_state_dict, naflexvit, vision_transformer
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from jepa_lightning.encoders.inflate import hold_tubelets, inflate
from jepa_lightning.names.nearest import nearest_names
from jepa_lightning.weights.formats.official import is_official, timm_names
from jepa_lightning.weights.formats.sources import read_weights

_FAMILIES = (VisionTransformer, VisionTransformerDistilled, Eva, NaFlexVit)
_MODULES = tuple(f"timm.models.{module}" for module in ("vision_transformer", "deit", "eva", "naflexvit"))

_WHY_NOT = {  # part of the name of a model's module in timm -> what is in the way
    "swin": "it attends in windows of the full grid",
    "beit": "its relative position bias is a table over the full grid",
    "relpos": "its relative position bias is a table over the full grid",
    "vision_transformer_sam": "it attends in windows of the full grid",
    "vision_transformer_hybrid": "a convolutional stem mixes neighbouring patches before the blocks",
    "hiera": "it pools neighbouring tokens of the full grid",
    "mvit": "it pools neighbouring tokens of the full grid",
}
_INSTEAD = {  # models that can, with their millions of parameters
    "vit_tiny_patch16_224": 5.5,
    "vit_small_patch16_224": 21.7,
    "vit_base_patch16_224": 85.8,
    "vit_large_patch16_224": 303.3,
    "vit_huge_patch14_224": 630.8,
}
_RESERVED = {  # option -> what decides it
    **dict.fromkeys(("img_size", "patch_size", "in_chans", "dynamic_img_size", "dynamic_img_pad"), "the tokens decide"),
    **dict.fromkeys(("num_classes", "features_only", "out_indices"), "the encoder has no head"),
    "patch_drop_rate": "the masker decides which tokens are seen",
    "drop_path_rate": "use the argument drop_path",
    "checkpoint_path": "use the argument weights",
}
_HEAD = ("head.", "head_dist.", "fc_norm.", "attn_pool.", "pre_logits.", "lm_head.", "mask_token")


def create_trunk(
    name: str,
    *,
    shape: tuple[int, ...],
    grid: tuple[int, ...],
    pretrained: bool,
    weights: str | None,
    drop_path: float,
    options: dict[str, Any],
) -> Any:
    """A timm model without its head, for patches (C, height, width) on a grid (rows, columns) or tubelets, with time.

    The arguments are those of `TimmEncoder`, which see; so are the errors. A model for tubelets of shape (C, t, height,
    width) on a grid (T, rows, columns) is an image model that is inflated once it has its weights.
    """
    frames, depth = (grid[0], shape[1]) if len(grid) == 3 else (1, 1)
    shape, grid = (shape[0], *shape[-2:]), grid[-2:]
    _check_arguments(name, pretrained=pretrained, weights=weights, drop_path=drop_path, options=options)
    module = timm.model_entrypoint(_architecture(name)).__module__
    if module.startswith("timm.models.") and module not in _MODULES:
        raise ValueError(_refusal(name, module))

    sizes = {"patch_size": shape[1:], "in_chans": shape[0], "img_size": (grid[0] * shape[1], grid[1] * shape[2])}
    if module in _MODULES and module != "timm.models.naflexvit":
        sizes["dynamic_img_size"] = False  # on in DINOv3, where it means that the rotary angles are not cached
    options = {"num_classes": 0, "drop_path_rate": drop_path, **options}
    # NaFlexVit embeds by a linear map, which timm's loader can fit to no other patch size or number of channels.
    naflex = module == "timm.models.naflexvit" or bool(options.get("use_naflex"))
    model: Any = _create(name, pretrained=pretrained and not naflex, **sizes, **options)

    embed: Any = getattr(model, "embeds", None) or getattr(model, "patch_embed", None)
    if type(model) not in _FAMILIES or not (isinstance(model, NaFlexVit) or type(embed) is PatchEmbed):
        raise ValueError(_refusal(name, module))
    if tuple(embed.patch_size) != shape[1:]:
        raise ValueError(f"timm made {name} for patches of {embed.patch_size}, not of {shape[1:]}: use another model")
    _drop_head(model)
    if pretrained and naflex:
        source = _create(name, pretrained=True, **options)
        _drop_head(source)
        _fill(model, _refit(model, source.state_dict()), f"the pretrained weights of {name}")
    state = None if weights is None else _read(weights)
    inflated = state is not None and hold_tubelets(state, model, depth=depth)
    if state is not None and not inflated:
        fill_trunk(model, state, f"the weights in {weights}")
    inflate(model, frames=frames, depth=depth)
    if state is not None and inflated:
        _fill(model, {key.removeprefix("model."): value for key, value in state.items()}, f"the weights in {weights}")
    return model


def _architecture(name: str) -> str:
    return name.split(".", 1)[0]


def _check_arguments(
    name: str, *, pretrained: bool, weights: str | None, drop_path: float, options: dict[str, Any]
) -> None:
    if not timm.is_model(_architecture(name)):
        near = nearest_names(_architecture(name), timm.list_models(), count=3)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists them"
        raise ValueError(f"timm {timm.__version__} has no model {name!r}: {hint}")
    if pretrained and weights is not None:
        raise ValueError("pretrained and weights are both given: choose timm's weights or your file's, not both")
    if weights is not None and not Path(weights).is_file():
        raise ValueError(f"weights: no file {weights!r}; give a .safetensors file or a torch checkpoint")
    if not 0 <= drop_path < 1:
        raise ValueError(f"drop_path must be at least 0 and less than 1, got {drop_path}")
    for option in options:
        if option in _RESERVED:
            raise ValueError(f"options may not hold {option}: {_RESERVED[option]}")


def _refusal(name: str, module: str) -> str:
    """Why a model cannot run on a subset of patches, and which one of about its size can."""
    why = next((why for part, why in _WHY_NOT.items() if part in module.rsplit(".", 1)[-1]), None)
    why = why or "its layers are not a plain sequence of blocks over separately embedded patches"
    instead = "vit_small_patch16_224"
    try:
        with torch.device("meta"):  # no memory, no initialisation
            millions = sum(p.numel() for p in timm.create_model(name, num_classes=0).parameters()) / 1e6
    except Exception:  # some models compute with their weights while they are built
        return f"{name} cannot run on a subset of the patches: {why}. One that can is {instead}"
    instead = min(_INSTEAD, key=lambda other: abs(math.log(_INSTEAD[other] / millions)))
    return (
        f"{name} cannot run on a subset of the patches: {why}. One that can, and is near its {millions:.0f} M "
        f"parameters, is {instead} ({_INSTEAD[instead]:.0f} M)"
    )


def _create(name: str, *, pretrained: bool, **arguments: Any) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except TypeError as error:  # what a keyword that the model does not have ends in
        raise ValueError(f"timm cannot create {name} with these options: {_brief(error)}") from None
    except Exception as error:  # every layer below (hub, requests, torch) has its own kinds
        if not pretrained:
            raise ValueError(f"timm cannot create {name}: {_brief(error)}") from None
        raise ValueError(
            f"the pretrained weights of {name} could not be loaded ({_brief(error)}). Without network, download "
            f"them elsewhere and give `weights: FILE` (safetensors or a torch checkpoint) in place of `pretrained`"
        ) from None


def _brief(error: Exception) -> str:
    """Kind and first sentence of an error: torch and the hub write paragraphs."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text.split('. ')[0][:160]}"


def _drop_head(model: Any) -> None:
    """Take off what the encoder never calls: under DDP a parameter without gradient is an error."""
    if isinstance(model.norm, nn.Identity):  # models that pool before they norm
        model.norm = model.fc_norm
    model.fc_norm = model.head = model.head_drop = nn.Identity()
    model.attn_pool = None
    if hasattr(model, "head_dist"):
        model.head_dist = nn.Identity()


def fill_trunk(model: Any, state: dict[str, Tensor], what: str) -> None:
    """Load the weights of an image model, under timm's names, into a trunk, resampled where its sizes differ."""
    _fill(model, _refit(model, state), what)


def _read(weights: str) -> dict[str, Tensor]:
    try:
        state = load_state_dict(weights, device="cpu", weights_only=True)
        return timm_names(read_weights(weights).encoder) if is_official(state) else state
    except Exception as error:  # safetensors, pickle and torch have their own kinds
        raise ValueError(
            f"weights: {weights} could not be read ({_brief(error)}); "
            "give a .safetensors file or a torch checkpoint that holds tensors only"
        ) from None


def _refit(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the model's own names, resampled to its grid, patch size and channels where these differ."""
    own = model.state_dict()
    if all(key.startswith("model.") for key in state):  # saved from a TimmEncoder
        state = {key.removeprefix("model."): value for key, value in state.items()}
        if all(key in own and own[key].shape == value.shape for key, value in state.items()):
            return state  # not through timm's filter: it would take a grid of 7 x 28 patches for one of 14 x 14
    if isinstance(model, NaFlexVit):
        state = naflexvit.checkpoint_filter_fn(state, model)
        for table in ("pos_embed", "pos_embed_y", "pos_embed_x"):
            value = state.get(f"embeds.{table}")
            if value is not None and getattr(model.embeds, table, None) is not None:
                # A table may have any size, as it is resampled to the grid in every forward.
                setattr(model.embeds, table, nn.Parameter(torch.zeros(value.shape)))
        own = model.state_dict()
    elif isinstance(model, Eva):
        state = eva.checkpoint_filter_fn(state, model)
    else:
        state = vision_transformer.checkpoint_filter_fn(state, model, adapt_layer_scale=True)
    if "norm.weight" not in state:  # as in `_drop_head`
        state = {key.replace("fc_norm.", "norm.") if key.startswith("fc_norm.") else key: v for key, v in state.items()}
    key = "embeds.proj.weight" if isinstance(model, NaFlexVit) else "patch_embed.proj.weight"
    if key in state and key in own and state[key].shape != own[key].shape:
        embed = model.embeds if isinstance(model, NaFlexVit) else model.patch_embed
        state[key] = _refit_embedding(state[key], embed)
    return state


def _refit_embedding(weight: Tensor, embed: Any) -> Tensor:
    """The weight of a patch embedding of 3 channels for the model's channels; a linear one also for its patch size."""
    channels, patch = (
        (embed.proj.in_channels if isinstance(embed.proj, nn.Conv2d) else embed.in_chans),
        embed.patch_size,
    )
    if weight.ndim == 4:
        return adapt_input_conv(channels, weight) if weight.shape[1] == 3 else weight
    side = math.isqrt(weight.shape[1] // 3)
    if weight.shape[1] != 3 * side**2:
        return weight
    last = getattr(embed, "channels_last", True)  # how NaFlexVit flattens a patch
    kernel = weight.unflatten(1, (side, side, 3)).permute(0, 3, 1, 2) if last else weight.unflatten(1, (3, side, side))
    kernel = adapt_input_conv(channels, resample_patch_embed(kernel, list(patch)))
    return (kernel.permute(0, 2, 3, 1) if last else kernel).flatten(1)


def _fill(model: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Load every parameter of the trunk from `state` or none: half-loaded checkpoints are silent failures."""
    own = model.state_dict()
    faults = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own and not key.startswith(_HEAD)],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
            for key, value in own.items()
            if key in state and state[key].shape != value.shape
        ],
    }
    if any(faults.values()):
        listed = [
            f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for kind, keys in faults.items()
            if keys
        ]
        raise ValueError(f"{what} do not fit the model: {'; '.join(listed)}. Name the timm model that they belong to")
    model.load_state_dict({key: state[key] for key in own})
