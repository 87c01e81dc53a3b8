"""`--trainer.strategy fsdp2`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, StrategyRegistry
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from jepa_lightning.run.checkpoint_io import publish, remove
from jepa_lightning.run.sharded import by_index, empty, is_sharded, read_sharded
from jepa_lightning.run.writing import unfinished

FSDP1 = "FSDP1 cannot shard an EMA target: use --trainer.strategy fsdp2"


class FSDP2Strategy(ModelParallelStrategy):
    """Fully sharded data parallelism (FSDP2): parameters, gradients, optimiser and target in shards over all ranks.

    On one machine or several, on GPUs (NCCL) or CPUs (gloo). Gives what `ddp` gives, with less memory.

    Args:
        sharded_checkpoints: each rank writes its shards into a folder `last.ckpt`; False (`fsdp2_one_file`): the first
            rank gathers all and writes one file, as other strategies do. Either is read under any strategy and any
            number of ranks.
        process_group_backend: of torch.distributed; None chooses it by the device.
        timeout: of a collective.
    """

    def __init__(
        self,
        *,
        sharded_checkpoints: bool = True,
        process_group_backend: str | None = None,
        timeout: timedelta | None = default_pg_timeout,
    ) -> None:
        super().__init__(
            data_parallel_size="auto",
            tensor_parallel_size=1,
            save_distributed_checkpoint=sharded_checkpoints,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self.sharded_checkpoints = sharded_checkpoints

    def setup_environment(self) -> None:
        """All ranks are data-parallel; Lightning's own "auto" would count machines only.

        Raises:
            ValueError: the precision is 16-mixed, whose gradient scaler Lightning does not shard.
        """
        if getattr(self.precision_plugin, "precision", None) == "16-mixed":
            raise ValueError("fsdp2 has no 16-mixed: use --trainer.precision bf16-mixed, or --trainer.strategy ddp")
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimiser's state: in shards and by name, or gathered on the first rank and by number, as elsewhere."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        if self.sharded_checkpoints:
            return super().optimizer_state(optimizer)
        plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        named = get_optimizer_state_dict(self._sharded, plain, options=options)
        return by_index(named) if self.is_global_zero else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint beside an older one of that name, which is replaced when the new one is whole."""
        path = Path(self.broadcast(filepath))
        beside = unfinished(path)
        if self.is_global_zero:
            remove(beside)
        self.barrier()
        super().save_checkpoint(checkpoint, beside, storage_options)
        self.barrier()
        if self.is_global_zero:
            publish(beside, path)
        self.barrier()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint of any strategy, each rank its shards; nothing that it holds is run."""
        path = Path(self.broadcast(checkpoint_path))
        model = self._sharded
        own, parameters = model.state_dict(), dict(model.named_parameters())

        def room(place: tuple[Any, ...], size: torch.Size, dtype: torch.dtype) -> Tensor:
            twin = own.get(place[1]) if place[0] == "state_dict" else parameters.get(place[2])
            return (
                empty(place, size, dtype) if twin is None or twin.shape != size else torch.empty_like(twin, dtype=dtype)
            )

        if is_sharded(path):
            content = read_sharded(path, room=room)
        else:
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        state = {name: _like(value, own.get(name)) for name, value in content.pop("state_dict").items()}
        model.load_state_dict(state, strict=self.lightning_module.strict_loading)  # type: ignore[union-attr]
        stored = content.pop("optimizer_states", [])
        if len(stored) < len(self.optimizers):
            raise ValueError(f"expected an optimiser's state in {path}, found none: its weights load, but none resumes")
        for optimizer, known in zip(self.optimizers, stored, strict=False):
            twins = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                number: {key: _like(value, twins[number]) for key, value in values.items()}
                for number, values in known["state"].items()
            }
            optimizer.load_state_dict({**known, "state": state})
        return content

    @property
    def _sharded(self) -> torch.nn.Module:
        if self.model is None:
            raise RuntimeError("the strategy has no model yet")
        return self.model


def _like(value: Any, twin: Tensor | None) -> Any:
    """`value` sharded as `twin` is, where it is a whole tensor of its shape."""
    if isinstance(value, DTensor) or not isinstance(twin, DTensor) or not isinstance(value, Tensor):
        return value
    if value.shape != twin.shape:
        return value
    return distribute_tensor(value.to(twin.device), twin.device_mesh, twin.placements)


def refuse_fsdp1(strategy: Any) -> None:
    """Refuse FSDP1, by its name or as an object.

    Raises:
        ValueError: it is FSDP1.
    """
    name = strategy.lower().rsplit(".", 1)[-1] if isinstance(strategy, str) else ""  # of a class path, the class
    if (name.startswith("fsdp") and not name.startswith("fsdp2")) or isinstance(strategy, FSDPStrategy):
        raise ValueError(FSDP1)


def register() -> None:
    """Make `fsdp2` known to Lightning's Trainer, and `fsdp2_one_file`, whose checkpoints are single files."""
    what = "Fully sharded data parallelism of the second kind, over all ranks"
    for name, sharded in (("fsdp2", True), ("fsdp2_one_file", False)):
        if name not in StrategyRegistry:
            StrategyRegistry.register(name, FSDP2Strategy, description=what, sharded_checkpoints=sharded)


register()
