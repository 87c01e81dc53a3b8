"""Masked prediction recorded as CUDA graphs: a step is launched at once, in place of kernel by kernel."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from jepa_lightning.pretexts.base import Networks, Outcome
from jepa_lightning.tokens import Masks, Tokens

DEVICES = {"cuda"}
"""Devices that can record."""

Predict = Callable[[Networks, Tokens, list[Masks]], Outcome]


class Recorded:
    """`Masked.predict` of a training step as two CUDA graphs, of its forward and of its backward pass.

    A small model's step launches over a thousand kernels, and Python takes longer to launch them than the card to run
    them. The first training batch records both passes (three times run for warming up, once recorded; the state of the
    random numbers and of buffers is restored), later ones replay them. The values are the same. Batches of other sizes,
    validation and probes run as without graphs; of sizes that change it warns once.

    Tensors of an outcome and gradients lie where the next step's will lie: nothing may keep them beyond its step, and
    gradients of several batches cannot be added up.

    Args:
        predict: the pretext's method.
    """

    def __init__(self, predict: Predict) -> None:
        self.predict = predict
        self._signature: tuple[Any, ...] | None = None
        self._replay: Callable[..., tuple[Tensor, ...]] | None = None
        self._recording: _Recording | None = None
        self._warned = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorded:
        return Recorded(copy.deepcopy(self.predict, memo))

    def __call__(self, nets: Networks, tokens: Tokens, masks: list[Masks]) -> Outcome:
        """Predict the hidden tokens: replay the graphs, or record them at the first training batch."""
        if tokens.device.type not in DEVICES or not torch.is_grad_enabled() or not nets.encoder.training:
            return self.predict(nets, tokens, masks)
        inputs = list(tensors_of((tokens, masks)))
        signature = _signature(tokens, inputs)
        if self._signature is None:
            self._signature = signature
            self._recording = _Recording(self.predict, nets, tokens, masks)
            self._replay = record(self._recording, inputs)
        if signature != self._signature:
            if not self._warned:
                self._warned = True
                rank_zero_warn(
                    "cuda_graphs: a training batch has other sizes than the recorded one, and runs without graphs: "
                    f"expected {_shapes(self._signature)}, got {_shapes(signature)}. Set fixed_size to true in the "
                    "masker; the last batch of a set may be smaller (data.drop_last)"
                )
            return self.predict(nets, tokens, masks)
        assert self._replay is not None
        assert self._recording is not None
        return self._recording.outcome(self._replay(*inputs), inputs)


def refuse_recording(pretext: Any, *, checkpoint_activations: bool, sharded: bool) -> None:
    """Refuse what cannot be recorded.

    Raises:
        ValueError: the pretext is no masked prediction of one level and modality, or activations are recomputed, or
            weights sharded.
    """
    what = "leave out model.cuda_graphs"
    if not getattr(pretext, "recordable", False):
        raise ValueError(f"cuda_graphs records Masked, Dense and LatentCodes, got {type(pretext).__name__}: {what}")
    if checkpoint_activations or sharded:
        other = "checkpoint_activations, which draws again" if checkpoint_activations else "sharded weights (fsdp2)"
        raise ValueError(f"cuda_graphs cannot record {other}: {what}, or the other")


def refuse_gradients_of_several(accumulated: int, processes: int) -> None:
    """Refuse gradients that are added up over batches or processes: they lie where the next batch's will lie.

    Raises:
        ValueError: they are.
    """
    if accumulated > 1 or processes > 1:
        raise ValueError(
            f"cuda_graphs trains in one process without accumulated gradients, got {processes} process(es) and "
            f"accumulate_grad_batches {accumulated}: leave out model.cuda_graphs"
        )


class _Recording(nn.Module):
    """The prediction as a function of tensors that returns tensors; its modules are those whose weights are read."""

    def __init__(self, predict: Predict, nets: Networks, tokens: Tokens, masks: list[Masks]) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nets.encoder, nets.predictor, nets.target])
        if isinstance(owner := getattr(predict, "__self__", None), nn.Module):
            self.parts.append(owner)
        self.predict, self.nets = predict, nets
        self.like: Any = with_tensors((tokens, masks), lambda t: t.new_empty(0))
        self.made: Any = None

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Predict from the tensors of tokens and masks: all tensors of the outcome that are not inputs."""
        given = iter(inputs)
        tokens, masks = with_tensors(self.like, lambda _: next(given))
        made = self.predict(self.nets, tokens, masks)
        self.places = [next((n for n, i in enumerate(inputs) if t is i), None) for t in tensors_of(made)]
        found = [t for t, place in zip(tensors_of(made), self.places, strict=True) if place is None]
        self.trained = [t.requires_grad for t in found]
        self.made = with_tensors(made, lambda t: t.new_empty(0))  # its form alone
        return tuple(found)

    def outcome(self, outputs: tuple[Tensor, ...], inputs: list[Tensor]) -> Outcome:
        """The outcome of these outputs, without gradient for those that had none when it was recorded."""
        new = iter([t if trained else t.detach() for t, trained in zip(outputs, self.trained, strict=True)])
        places = iter(self.places)

        def fill(_: Tensor) -> Tensor:
            place = next(places)
            return next(new) if place is None else inputs[place]

        return with_tensors(self.made, fill)


def record(module: nn.Module, inputs: list[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """Record a module's forward and backward pass on inputs of these sizes, and leave everything as it was."""
    device = inputs[0].device
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    arguments = tuple(t.detach().clone().requires_grad_(t.requires_grad) for t in inputs)
    kind = device.type
    # A cast that autocast keeps from the recording would be memory of the graph.
    autocast = torch.autocast(
        kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False
    )
    with autocast:
        replay = torch.cuda.make_graphed_callables(module, arguments, allow_unused_input=True)
    with torch.no_grad():
        for buffer, before in kept:
            buffer.copy_(before)
    if state is not None:
        torch.cuda.set_rng_state(state, device)
    return replay  # type: ignore[return-value]


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors in dataclasses, lists, tuples and mappings, in order."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from tensors_of(getattr(value, each.name))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors_of(part)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_of(part)


def with_tensors(value: Any, new: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with other tensors, in the order of `tensors_of`."""
    if isinstance(value, Tensor):
        return new(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: with_tensors(getattr(value, each.name), new) for each in fields(value)})
    if isinstance(value, (list, tuple)):
        return type(value)([with_tensors(part, new) for part in value])
    if isinstance(value, Mapping):
        return {name: with_tensors(part, new) for name, part in value.items()}
    return value


def _signature(tokens: Tokens, inputs: list[Tensor]) -> tuple[Any, ...]:
    kind = tokens.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return tokens.grid, precision, *[(tuple(t.shape), t.dtype, t.requires_grad) for t in inputs]


def _shapes(signature: tuple[Any, ...]) -> str:
    return ", ".join(str(shape) for shape, *_ in signature[2:])
