"""The official files of I-JEPA, V-JEPA, V-JEPA 2 and V-JEPA 2.1, and timm's, which has the same names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jepa_lightning.weights.formats.weights import FAMILIES, RELEASED_GRID, Facts, Family, State, Weights

TARGETS, CONTEXT, PREDICTOR = ("target_encoder", "ema_encoder"), "encoder", "predictor"
HEADS = {  # of the released models, by width; files do not say
    "I-JEPA": {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16},
    "V-JEPA": {1024: 16, 1280: 16},
    "V-JEPA 2": {768: 12, 1024: 16, 1280: 16, 1408: 22, 1664: 26},
}
HEADS["V-JEPA 2.1"] = HEADS["V-JEPA 2"]
_EPS = 1e-6
_WRAPPED = re.compile(r"^(?:module\.|backbone\.|_orig_mod\.)+")
_HEAD = ("head.", "head_drop.")
_LAYER = r"(\d+\.(?:norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(?:weight|bias))$"


def is_official(content: Any) -> bool:
    """Whether a file's content is one of several networks by name, as the official code saves them."""
    names = (*TARGETS, CONTEXT)
    return isinstance(content, Mapping) and any(isinstance(content.get(name), Mapping) for name in names)


def is_flat(state: Any) -> bool:
    """Whether a state dict has the official names, as timm's."""
    return isinstance(state, Mapping) and any(str(key).endswith("patch_embed.proj.weight") for key in state)


def read_official(
    content: Mapping[str, Any], source: str, *, which: str | None = None, family: Family | None = None
) -> Weights:
    """Take an encoder, and the predictor if there is one, from the content of an official file.

    Args:
        content: of the file.
        source: its name.
        which: "target" or "context"; None: the target where there is one.
        family: where the file does not tell; None: as it looks.

    Raises:
        ValueError: the encoder is not there, or holds something that is unknown.
    """
    present = [name for name in (*TARGETS, CONTEXT) if isinstance(content.get(name), Mapping)]
    targets = [name for name in present if name in TARGETS]
    wanted = {"target": targets, "context": [CONTEXT] if CONTEXT in present else [], None: present}[which]
    if not wanted:
        raise ValueError(f"expected the {which} encoder in {source}, found {', '.join(present)}: leave the choice out")
    taken = wanted[0]
    predictor = content.get(PREDICTOR)
    found = read_flat(content[taken], source, family=family, predictor=predictor or None)
    found.taken = taken
    found.left_out += [str(name) for name in content if name not in (taken, PREDICTOR)]
    return found


def read_flat(
    state: Mapping[str, Tensor],
    source: str,
    *,
    family: Family | None = None,
    predictor: Mapping[str, Tensor] | None = None,
) -> Weights:
    """As `read_official`, from the encoder's state dict and the predictor's."""
    state, ask = _unwrapped(state), _unwrapped(predictor or {})
    left_out = [key for key in state if key.startswith(_HEAD)]
    state = {key: value for key, value in state.items() if not key.startswith(_HEAD)}
    known, unsure = _family(state, ask, source, family)
    if known == "V-JEPA 2.1":
        state, more = _of_2_1(state)
        left_out += more
    encoder = _encoder(state, source)
    if known == "V-JEPA 2" and not unsure and encoder.pop("positions", None) is not None:
        left_out.append("pos_embed (not used with rotary attention)")
    if any(key.startswith("action_encoder") for key in ask):
        left_out.append("the action-conditioned predictor")
        ask = {}
    elif ask and known == "V-JEPA 2.1":
        left_out.append("the predictor of V-JEPA 2.1")
        ask = {}
    asked = _predictor(ask, source) if ask else None
    if asked is not None and known == "V-JEPA 2" and not unsure and asked.pop("positions", None) is not None:
        left_out.append("predictor_pos_embed (likewise)")
    facts = _facts(known, len(encoder["norm.weight"]))
    heads = 12 if known == "V-JEPA 2" else facts.heads
    return Weights(
        source=source,
        family=known,
        encoder=encoder,
        taken="encoder",
        predictor=asked,
        facts=facts,
        predictor_facts=Facts(heads=heads, norm_eps=_EPS, rotary=facts.rotary),
        left_out=left_out,
        unsure=unsure,
    )


def _facts(family: str, width: int) -> Facts:
    rotary = {"V-JEPA 2": "released", "V-JEPA 2.1": "interleaved"}.get(family, "none")
    grid = RELEASED_GRID if family == "V-JEPA 2.1" else None
    return Facts(heads=HEADS.get(family, {}).get(width), norm_eps=_EPS, rotary=rotary, rotary_grid=grid)


def _unwrapped(state: Mapping[str, Tensor]) -> State:
    """Without the prefixes of DDP, of the wrapper for several masks and of torch.compile."""
    return {_WRAPPED.sub("", key): value for key, value in state.items()}


def _family(state: State, predictor: State, source: str, said: Family | None) -> tuple[str, bool]:
    """The family by its tensors, and whether V-JEPA or V-JEPA 2 cannot be told apart."""
    patch = state.get("patch_embed.proj.weight")
    if patch is None:
        names = ", ".join(list(state)[:3])
        raise ValueError(f"expected an encoder of a JEPA in {source}, got one without patch_embed: it has {names}, ...")
    unsure = False
    if any(key.startswith(("norms_block.", "video_mod_embed")) for key in state):
        looks = "vjepa2.1"
    elif patch.ndim == 4:
        looks = "ijepa"
    elif "pos_embed" not in state:
        looks = "vjepa2"
    else:
        tokens = sum(key.startswith("mask_tokens.") for key in predictor)
        unsure = said is None and tokens not in (2, 10)
        looks = "vjepa" if said == "vjepa" or (said is None and tokens == 2) else "vjepa2"
    if said is not None and said != looks:
        raise ValueError(f"expected weights of {FAMILIES[said]} in {source}, these look like {FAMILIES[looks]}'s")
    return FAMILIES[looks], unsure


def _of_2_1(state: State) -> tuple[State, list[str]]:
    """V-JEPA 2.1's encoder on clips: its last norm, and what is added to all tokens of a clip as part of the bias."""
    last = max(int(key.split(".")[1]) for key in state if key.startswith("norms_block."))
    out: State = {}
    left_out: list[str] = []
    for key, value in state.items():
        if key.startswith(f"norms_block.{last}."):
            out["norm." + key.rpartition(".")[2]] = value
        elif key.startswith(("norms_block.", "patch_embed_img.", "img_mod_embed")):
            left_out.append(key)
        elif key != "video_mod_embed":
            out[key] = value
    if "video_mod_embed" in state:
        out["patch_embed.proj.bias"] = out["patch_embed.proj.bias"] + state["video_mod_embed"].flatten()
    return out, left_out


def _encoder(state: State, source: str) -> State:
    names = {
        r"patch_embed\.proj\.(weight|bias)$": r"patch.\1",
        r"pos_embed$": "positions",
        rf"blocks\.{_LAYER}": r"layers.\1",
        r"norm\.(weight|bias)$": r"norm.\1",
    }
    return _renamed(state, names, f"the encoder in {source}")


def _predictor(state: State, source: str) -> State:
    names = {
        r"predictor_embed\.(weight|bias)$": r"embed.\1",
        r"predictor_pos_embed$": "positions",
        rf"predictor_blocks\.{_LAYER}": r"layers.\1",
        r"predictor_norm\.(weight|bias)$": r"norm.\1",
        r"predictor_proj\.(weight|bias)$": r"project.\1",
        r"(mask_tokens?(?:\.\d+)?)$": r"\1",
    }
    return joined_tokens(_renamed(state, names, f"the predictor in {source}"))


def joined_tokens(state: State) -> State:
    """One `mask_token` (n, W) of `mask_token` or `mask_tokens.0`, `mask_tokens.1`, ..."""
    tokens = sorted((k for k in state if k.startswith("mask_token")), key=lambda k: (len(k), k))
    values = [state.pop(key).reshape(1, -1) for key in tokens]
    return {**state, "mask_token": torch.cat(values)} if values else state


def _renamed(state: State, names: Mapping[str, str], what: str) -> State:
    out: State = {}
    unknown = []
    for key, value in state.items():
        for pattern, name in names.items():
            if re.match(pattern, key):
                out[re.sub(pattern, name, key)] = value[0] if name == "positions" else value
                break
        else:
            unknown.append(key)
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise ValueError(
            f"expected plain Transformer layers without class token in {what}, got {', '.join(unknown[:3])}{more}, "
            "which our ViT cannot hold; a model of timm loads as TimmEncoder with weights"
        )
    return out


def timm_names(encoder: State) -> State:
    """Released weights under timm's names, which are the official ones."""
    out = {}
    for key, value in encoder.items():
        name = re.sub(r"^patch\.", "patch_embed.proj.", re.sub(r"^layers\.", "blocks.", key))
        out["pos_embed" if key == "positions" else name] = value[None] if key == "positions" else value
    return out
