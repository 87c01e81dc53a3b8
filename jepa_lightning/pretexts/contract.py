"""Checks of what the parts of a JEPA hand each other, on a run's first batch: a part of one's own may be wrong.

They read numbers from the device, which no later step does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder, TokenSpec
from jepa_lightning.predictors.base import PredictorSpec
from jepa_lightning.tokens import Latents, Masks, Query, Ragged, Tokens


class ContractError(ValueError):
    """A part of a JEPA gave something else than its base class says; the message says which and what."""


def check_first_batch(
    *, tokenizer: nn.Module, encoder: Encoder, predictor: nn.Module, spec: TokenSpec, asked: PredictorSpec | None
) -> None:
    """Let the parts of a JEPA be checked when each is called next, and never again.

    Args:
        tokenizer: checked by `check_tokens`.
        encoder: its output must be (B, K, D), D its `dim`.
        predictor: its output must be (B, M, T, out), or (B, M, K + T, out) where its spec asks for the context, too.
        spec: the modality's.
        asked: the predictor's; None without one.
    """
    _once(tokenizer, lambda part, args, kept, out: check_tokens(out, spec, part))
    _once(encoder, lambda part, args, kept, out: _check_encoded(out, args, kept, part))
    if asked is not None:
        _once(predictor, lambda part, args, kept, out: _check_predicted(out, args, asked, part))


def _once(part: nn.Module, check: Any) -> None:
    def run(part: nn.Module, args: tuple[Any, ...], kept: dict[str, Any], out: Any) -> None:
        handle.remove()
        check(part, args, kept, out)

    handle = part.register_forward_hook(run, with_kwargs=True)


def check_tokens(tokens: Any, spec: TokenSpec, tokenizer: object) -> None:
    """Check that a tokenizer's output has the shapes that `Tokens` describes and its modality's spec announces.

    Raises:
        ContractError: it has not.
    """
    who = f"{type(tokenizer).__name__} (tokenizer)"
    if not isinstance(tokens, Tokens):
        raise ContractError(f"{who}: expected Tokens, got {type(tokens).__name__}")
    values, positions = tokens.values, tokens.positions
    if positions.ndim != 3 or not positions.is_floating_point():
        raise ContractError(
            f"{who}: expected float positions (B or 1, N, P), got {_form(positions)}; where all samples share them, "
            "add a first axis of size 1"
        )
    if len(values.shape) < 2 or positions.shape[0] not in (1, values.shape[0]) or positions.shape[1] != values.shape[1]:
        raise ContractError(
            f"{who}: expected values (B, N, ...) and positions (B or 1, N, P) of the same tokens, got values "
            f"{tuple(values.shape)} and positions {tuple(positions.shape)}"
        )
    batch, count = values.shape[:2]
    shapes = [tuple(spec.shape), *spec.other_shapes]
    if not isinstance(values, Ragged) and tuple(values.shape[2:]) not in shapes:
        raise ContractError(
            f"{who}: expected values (B, N, {', '.join(map(str, spec.shape))}), as the modality's spec.shape says, got "
            f"{tuple(values.shape)}"
        )
    if tokens.grid is not None and torch.Size(tokens.grid).numel() != count:
        raise ContractError(f"{who}: expected a grid of {count} tokens, got {tokens.grid}")
    if tokens.valid is not None:
        _check_valid(who, "valid", tokens.valid, (batch, count))


def check_masks(masks: Any, tokens: Tokens, masker: object) -> None:
    """Check that a masker's output has the shapes, ranges and distinct tokens that `Masks` describes.

    Raises:
        ContractError: it has not.
    """
    who = f"{type(masker).__name__} (masker)"
    if not isinstance(masks, Sequence) or not masks or not all(isinstance(mask, Masks) for mask in masks):
        raise ContractError(f"{who}: expected a list of Masks, got {_kind(masks)}")
    for mask in masks:
        for name, index, axes in (("context", mask.context, "(B, K)"), ("targets", mask.targets, "(B, M, T)")):
            if index.dtype != torch.int64 or index.ndim != axes.count(",") + 1 or len(index) != tokens.batch_size:
                raise ContractError(
                    f"{who}: expected {name} {axes} int64 with B = {tokens.batch_size}, got {_form(index)}"
                )
        for name, valid, index in (
            ("context_valid", mask.context_valid, mask.context),
            ("targets_valid", mask.targets_valid, mask.targets),
        ):
            if valid is not None:
                _check_valid(who, name, valid, tuple(index.shape))
        context, targets = (
            _seen(who, "context", mask.context, mask.context_valid, tokens),
            _seen(who, "targets", mask.targets, mask.targets_valid, tokens),
        )
        if bool((context > 1).any()):
            raise ContractError(f"{who}: expected the context's tokens of a sample to be distinct, got one twice")
        both = int(((context > 0) & (targets > 0)).sum())
        if both:
            raise ContractError(
                f"{who}: expected no token in both context and targets, got {both} in a batch: the predictor would be "
                "shown what it is to predict"
            )


def _seen(who: str, name: str, index: Tensor, valid: Tensor | None, tokens: Tokens) -> Tensor:
    """How often each token of a batch is in an index: (B, N)."""
    index = index.flatten(1)
    real = torch.ones_like(index, dtype=torch.bool) if valid is None else valid.flatten(1)
    if index.numel() and not bool(((index >= 0) & (index < tokens.count)).all()):
        raise ContractError(
            f"{who}: expected {name} from 0 to {tokens.count - 1}, since there are {tokens.count} tokens, got "
            f"{int(index.min())} to {int(index.max())}"
        )
    counts = torch.zeros(len(index), tokens.count, dtype=torch.int64, device=index.device)
    return counts.scatter_add_(1, index, real.long())


def _check_encoded(out: Any, args: tuple[Any, ...], kept: dict[str, Any], encoder: Encoder) -> None:
    named = dict(zip(("tokens", "keep", "keep_valid"), args, strict=False)) | kept
    tokens, keep = named["tokens"], named.get("keep")
    rows = tokens.count if keep is None else keep.shape[1]
    expected = (tokens.batch_size, rows, *([len(named["layers"])] if named.get("layers") else []), encoder.dim)
    if not isinstance(out, Tensor) or tuple(out.shape) != expected:
        raise ContractError(
            f"{type(encoder).__name__} (encoder): expected {expected}, (B, tokens, dim), got "
            f"{_form(out)}: encode the tokens at `keep` alone, and set `dim` to the width of the output"
        )


def _check_predicted(out: Any, args: tuple[Any, ...], asked: PredictorSpec, predictor: nn.Module) -> None:
    context, query = args[:2] if len(args) > 1 else (None, None)
    if not isinstance(query, Query) or not isinstance(context, Latents):
        return
    batch, blocks, tokens = query.positions.shape[:3]
    kept = context.values.shape[1] if asked.predict_context else 0
    expected = (batch, blocks, kept + tokens, asked.out)
    if not isinstance(out, Tensor) or tuple(out.shape) != expected:
        axes = "(B, M, K + T, out) of its spec, whose predict_context is set" if kept else "(B, M, T, out) of its spec"
        raise ContractError(f"{type(predictor).__name__} (predictor): expected {expected}, {axes}, got {_form(out)}")


def _check_valid(who: str, name: str, valid: Tensor, shape: tuple[int, ...]) -> None:
    if valid.dtype != torch.bool or tuple(valid.shape) != shape:
        raise ContractError(f"{who}: expected {name} {shape} of bool, got {_form(valid)}")


def _form(value: Any) -> str:
    return (
        f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}" if isinstance(value, Tensor) else _kind(value)
    )


def _kind(value: Any) -> str:
    inside = f" of {type(value[0]).__name__}" if isinstance(value, (list, tuple)) and value else ""
    return f"{type(value).__name__}{inside}"
