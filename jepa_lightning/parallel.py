"""The one place that checkpoints activations, compiles and shards: what is done to a JEPA before it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch.distributed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa_lightning.encoders.base import Encoder
from jepa_lightning.precision import is_norm
from jepa_lightning.predictors import Predictor
from jepa_lightning.teacher import Teacher


def parallelize(
    encoder: Encoder,
    predictor: Predictor,
    teacher: Teacher,
    *,
    others: Iterable[nn.Module] = (),
    checkpoint_activations: bool = False,
    compile: bool = False,
    mesh: Any = None,
    norms_apart: bool = False,
) -> None:
    """Change the parts of a JEPA in place: checkpoint activations, then compile, then shard.

    The order matters: what is recomputed is inside what is compiled, and both are inside what is gathered. Compiled and
    sharded are single blocks; the rest of each part (embedding, positions, last norm, mask token) is sharded as one.
    The teacher is the copy that it was made as, sharded like the student, so that each rank moves its own shards.

    Args:
        encoder: the context encoder.
        predictor: the predictor.
        teacher: the teacher; it keeps no activations.
        others: modules with trained parameters beside these (an objective, regularisers); sharded whole.
        checkpoint_activations: recompute each block in the backward pass instead of keeping its activations.
        compile: `torch.compile` each block.
        mesh: one-dimensional device mesh to shard over (FSDP2); None for no sharding.
        norms_apart: shard norms by themselves, since FSDP2 takes trained parameters of one type together only.
    """
    for blocks in (encoder.blocks, predictor.blocks):
        prepare_blocks(blocks, checkpoint_activations=checkpoint_activations, compile=compile)
    prepare_blocks(teacher.encoder.blocks, compile=compile)
    if mesh is None:
        return
    _same_everywhere([encoder, predictor, teacher, *others], mesh)
    for root, blocks in ((encoder, encoder.blocks), (predictor, predictor.blocks), *((other, ()) for other in others)):
        _shard(root, blocks, mesh=mesh, norms_apart=norms_apart)
    _shard(teacher.encoder, teacher.encoder.blocks, mesh=mesh)


def prepare_blocks(blocks: Iterable[nn.Module], *, checkpoint_activations: bool = False, compile: bool = False) -> None:
    """Change residual blocks in place: first activation checkpointing, then compilation of each block.

    Args:
        blocks: the blocks of an encoder or a predictor.
        checkpoint_activations: recompute each block in the backward pass instead of keeping its activations.
        compile: `torch.compile` each block. Token counts that change recompile it: use a masker of fixed size.
    """
    for block in blocks:
        if checkpoint_activations:
            block.forward = partial(_recomputed, block.forward)
        if compile:
            block.compile()


def _recomputed(forward: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """A function of ours, since what is a partial of `checkpoint` itself is left uncompiled without a word."""
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _shard(root: nn.Module, blocks: Iterable[nn.Module], *, mesh: Any, norms_apart: bool = False) -> None:
    """Shard blocks, then what is left of `root`. Nothing stays gathered after a forward, the root's own neither."""
    from torch.distributed.fsdp import fully_shard  # costs 0.1 s to import

    norms = [part for part in root.modules() if is_norm(part)] if norms_apart else []
    for part in (*norms, *blocks, root):
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
