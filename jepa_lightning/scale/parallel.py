"""The one place that checkpoints activations, compiles and shards: what is done to a JEPA before it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa_lightning.precision import is_norm
from jepa_lightning.scale.graphs import Recorded, refuse_recording


def parallelize(
    jepa: Any,
    *,
    checkpoint_activations: bool = False,
    compile: bool = False,
    cuda_graphs: bool = False,
    mesh: Any = None,
    norms_apart: bool = False,
) -> None:
    """Change the parts of a JEPA in place: checkpoint activations, then compile, then record or shard.

    The order matters: what is recomputed is inside what is compiled, and both are inside what is gathered. Compiled and
    sharded are single layers; the rest of each part (embedding, positions, last norm, mask token) is sharded as one.
    A target with an encoder of its own is sharded like the context encoder, so that each rank moves its own shards; it
    keeps no activations. Pretext, objective and regularizers are sharded whole.

    Args:
        jepa: a JEPA, with `encoder`, `predictor`, `target`, `pretext`, `objective` and `regularizers`.
        checkpoint_activations: recompute each layer in the backward pass instead of keeping its activations.
        compile: `torch.compile` each layer.
        cuda_graphs: record the prediction as CUDA graphs; see `Recorded`.
        mesh: device mesh to shard over (FSDP2); None for no sharding.
        norms_apart: shard norms by themselves, since FSDP2 takes trained parameters of one type together only.

    Raises:
        ValueError: the mesh splits single layers, a trained parameter is left unsharded, or what cannot be recorded
            is to be.
    """
    if cuda_graphs:
        refuse_recording(jepa.pretext, checkpoint_activations=checkpoint_activations, sharded=mesh is not None)
        jepa.pretext.predict = Recorded(jepa.pretext.predict)
    encoder, predictor, target = jepa.encoder, jepa.predictor, jepa.target
    for layers in (encoder.layers, predictor.layers):
        prepare_layers(layers, checkpoint_activations=checkpoint_activations, compile=compile)
    if target.owns_encoder:
        prepare_layers(target.encoder.layers, compile=compile)
    if mesh is None:
        return
    if mesh["data_parallel"].size() != mesh.size():
        raise ValueError("a JEPA has no tensor parallelism: use --trainer.strategy fsdp2")
    mesh = mesh["data_parallel"]
    others = [jepa.objective, jepa.pretext, *jepa.regularizers]
    _same_everywhere([encoder, predictor, target, *others], mesh)
    for root, layers in ((encoder, encoder.layers), (predictor, predictor.layers), *((other, ()) for other in others)):
        _shard(root, layers, mesh=mesh, norms_apart=norms_apart)
    if target.owns_encoder:
        _shard(target.encoder, target.encoder.layers, mesh=mesh)
    for counterpart in target.counterparts:
        _shard(counterpart, (), mesh=mesh)
    whole = [name for name, p in jepa.named_parameters() if p.requires_grad and not hasattr(p, "placements")]
    if whole:
        raise ValueError(
            "fsdp2 shards the encoder, the predictor, the pretext, the objective and the regularizers, but there is "
            f"also {whole[0]}: use --trainer.strategy ddp"
        )


def prepare_layers(layers: Iterable[nn.Module], *, checkpoint_activations: bool = False, compile: bool = False) -> None:
    """Change layers in place: first activation checkpointing, then compilation of each layer.

    Args:
        layers: the layers of an encoder or a predictor.
        checkpoint_activations: recompute each layer in the backward pass instead of keeping its activations.
        compile: `torch.compile` each layer. Token counts that change recompile it: use a masker of fixed size.
    """
    options = _inductor_options() if compile else None
    for layer in layers:
        if checkpoint_activations:
            layer.forward = partial(_recomputed, layer.forward)
        if compile:
            layer.compile(options=options)


def _inductor_options() -> dict[str, Any] | None:
    """Without an analysis whose assertion fails in torch 2.11 on the backward pass of our layers (seen on an H100)."""
    options: dict[str, Any] = {"triton.coalesce_tiling_analysis": False}
    try:
        torch.compile(_inductor_options, options=options)  # which only wraps the function
    except RuntimeError:  # a torch that has no such option
        return None
    return options


def _recomputed(forward: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """A function of ours, since what is a partial of `checkpoint` itself is left uncompiled without a word."""
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _shard(root: nn.Module, layers: Iterable[nn.Module], *, mesh: Any, norms_apart: bool = False) -> None:
    """Shard layers, then what is left of `root`. Nothing stays gathered after a forward, the root's own neither."""
    from torch.distributed.fsdp import fully_shard  # costs 0.1 s to import

    norms = [part for part in root.modules() if is_norm(part)] if norms_apart else []
    for part in (*norms, *layers, root):
        if any(True for _ in part.parameters()):
            fully_shard(part, mesh=mesh, reshard_after_forward=True)


@torch.no_grad()
def _same_everywhere(modules: Iterable[nn.Module], mesh: Any) -> None:
    """Give every rank the first one's weights, as DDP does: without a seed each rank has drawn its own."""
    kind = mesh.device_type
    device = torch.device(kind) if kind == "cpu" else torch.device(kind, torch.get_device_module(kind).current_device())
    group = mesh.get_group()
    first = torch.distributed.get_global_rank(group, 0)
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            shared = tensor.detach().to(device).contiguous()
            torch.distributed.broadcast(shared, src=first, group=group)
            tensor.copy_(shared)
