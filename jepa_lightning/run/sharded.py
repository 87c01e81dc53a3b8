"""Checkpoints in shards: a folder that several processes write, read without running anything that it holds."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException, DefaultLoadPlanner, FileSystemReader, load
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem

SHARDS = ".metadata"  # the table of contents
REST = "meta.pt"  # what Lightning names the file with everything but tensors

_METADATA = "torch.distributed.checkpoint.metadata"
_ALLOWED = {
    *((_METADATA, name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")),
    *((_METADATA, name) for name in ("TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata")),
    (_METADATA, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    *(
        (str(dtype).split(".")[0], str(dtype).split(".")[1])
        for dtype in vars(torch).values()
        if type(dtype) is torch.dtype
    ),
    *((module, name) for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")),
    ("collections", "OrderedDict"),
}


Room = Callable[[tuple[Any, ...], torch.Size, torch.dtype], Tensor]


def empty(place: tuple[Any, ...], size: torch.Size, dtype: torch.dtype) -> Tensor:
    """A whole tensor on the CPU."""
    return torch.empty(size, dtype=dtype)


def is_sharded(path: str | Path) -> bool:
    """Whether `path` is a checkpoint in shards, as FSDP2 writes them."""
    path = Path(path)
    return (path / SHARDS).is_file() and (path / REST).is_file()


def read_sharded(path: Path, *, only: Collection[str] | None = None, room: Room = empty) -> dict[str, Any]:
    """The content of a checkpoint in shards as one process would have written it.

    Args:
        path: the folder.
        only: names of what of the tensors is to be read (`state_dict`, `optimizer_0`); None for all.
        room: makes the tensor that one is read into from its place in the checkpoint, its size and type: on the CPU by
            default; of a sharded one, only this rank's shard is read.

    Returns:
        What Lightning stores in one file, `optimizer_states` too where they are read.

    Raises:
        OSError: a file is missing.
        pickle.UnpicklingError: a file holds more than tensors and plain values.
    """
    content = read_rest(path)
    metadata = _Reader(path).read_metadata()
    places = {flat: tuple((metadata.planner_data or {}).get(flat, (flat,))) for flat in metadata.state_dict_metadata}
    found: dict[str, Any] = {
        flat: room(places[flat], kind.size, kind.properties.dtype) if isinstance(kind, TensorStorageMetadata) else None
        for flat, kind in metadata.state_dict_metadata.items()
        if only is None or places[flat][0] in only
    }
    planner = _Planner(flatten_state_dict=False, flatten_sharded_tensors=False)  # so that `found` itself is filled
    try:
        with warnings.catch_warnings():  # that it is one process which reads, which is meant
            warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
            load(found, storage_reader=_Reader(path), planner=planner, no_dist=True)
    except CheckpointException as error:  # a BaseException, which wraps what went wrong
        raise next(iter(error.failures.values()))[0] from None
    tree: dict[str, Any] = {}
    for flat, value in found.items():
        _put(tree, places[flat], value)
    tree = _with_lists(tree)
    content["state_dict"] = tree.pop("state_dict", {})
    optimizers = [by_index(tree[f"optimizer_{i}"]) for i in range(len(tree)) if f"optimizer_{i}" in tree]
    return {**content, "optimizer_states": optimizers} if optimizers else content


def read_rest(path: Path) -> dict[str, Any]:
    """What a checkpoint in shards holds beside tensors."""
    return torch.load(path / REST, map_location="cpu", weights_only=True)


def read_sizes(path: Path) -> dict[str, Any]:
    """As `read_sharded` with `state_dict` alone, but its tensors have sizes and no values; nothing of them is read."""
    content, metadata = read_rest(path), _Reader(path).read_metadata()
    content["state_dict"] = {
        str(place[1]): torch.empty(kind.size, dtype=kind.properties.dtype, device="meta")
        for flat, kind in metadata.state_dict_metadata.items()
        if isinstance(kind, TensorStorageMetadata)
        and (place := (metadata.planner_data or {}).get(flat, (flat,)))[0] == "state_dict"
    }
    return {"optimizer_states": [], **content}


def by_index(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """An optimiser's state as `Optimizer.state_dict` gives it, by numbers, from one by the names of parameters."""
    numbers = {name: i for i, name in enumerate(n for group in optimizer["param_groups"] for n in group["params"])}
    return {
        "state": {numbers[name]: value for name, value in optimizer.get("state", {}).items()},
        "param_groups": [{**g, "params": [numbers[name] for name in g["params"]]} for g in optimizer["param_groups"]],
    }


def _put(tree: dict[str, Any], place: Sequence[Any], value: Any) -> None:
    for key in place[:-1]:
        tree = tree.setdefault(key, {})
    tree[place[-1]] = value


def _with_lists(tree: Any) -> Any:
    """Lists are taken apart like dicts, with numbers for keys: put them together."""
    if not isinstance(tree, dict):
        return tree
    whole = {key: _with_lists(value) for key, value in tree.items()}
    return [whole[i] for i in range(len(whole))] if whole and set(whole) == set(range(len(whole))) else whole


class _Unpickler(pickle.Unpickler):
    """Knows the classes of a table of contents, and nothing that could do anything."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is not allowed")
        return super().find_class(module, name)


class _Reader(FileSystemReader):
    """Torch's reader, which unpickles the table of contents whatever it names, with one that does not."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        metadata = _Unpickler(io.BytesIO((Path(self.path) / SHARDS).read_bytes())).load()
        if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_data, dict):
            raise pickle.UnpicklingError(f"expected a table of contents, got a {type(metadata).__name__}")
        files = {info.relative_path for info in metadata.storage_data.values()}
        if any(Path(file).name != file for file in files):
            raise pickle.UnpicklingError("the table of contents names files elsewhere")
        metadata.storage_meta = getattr(metadata, "storage_meta", None) or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Planner(DefaultLoadPlanner):
    """Torch's planner, which unpickles plain values whatever they are, with one that does not."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        plain = torch.load(value, map_location="cpu", weights_only=True)
        safe = io.BytesIO()
        torch.save(plain, safe)
        safe.seek(0)
        super().load_bytes(read_item, safe)
