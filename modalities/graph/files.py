"""Graph data sets: PyG's TUDataset and ZINC, read from files in place or downloaded by PyG; and anyone's dataset."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from jepa_lightning.config.trust import weights_only
from jepa_lightning.data import DataError
from jepa_lightning.data.files.file_list import regular_file
from jepa_lightning.data.sources.given import WrappedDataset
from modalities.graph.reading import labels_of, to_graph
from modalities.graph.requirements import torch_geometric
from modalities.graph.transforms import Cutting, LazyGraph

__all__ = ["NETWORKS", "GivenGraphs", "open_graphs", "torch_geometric"]

NETWORKS = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}
"""Data sets of one network, by what a name is in lower case: as PyG names the folder."""


class GivenGraphs(WrappedDataset):
    """A dataset's graphs as dicts: `graph` (a `LazyGraph`, kept in memory), `labels` and, where it brings one, `id`.

    Args:
        dataset: gives PyG's `Data`, whose `y` is the label; (Data, label); or a dict with `graph` and perhaps `labels`.
            `RawGraph`s may stand in place of `Data`.
        cutting: how the graphs are cut.
        name: names the samples, "MUTAG[12]"; empty: the dataset does, or the split.
        targets: class of each graph, where they are known.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        cutting: Cutting,
        name: str = "",
        targets: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(dataset)
        self.cutting = cutting
        if targets is not None:
            self.targets = targets
        self._samples: dict[int, dict[str, Any]] = {}
        if name:
            self._name = name
            self.sample_id = self._sample_id

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample `index`.

        Raises:
            DataError: it has other features than wanted, or is no graph.
            ValueError: a broken graph.
        """
        if index not in self._samples or getattr(self.dataset, "streamed", False):  # index 0 is another one each time
            item = self.dataset[index]
            sample: dict[str, Any] = {}
            if isinstance(item, dict) and "graph" in item:
                sample, item = dict(item), item["graph"]
            elif isinstance(item, tuple | list) and len(item) == 2:
                item, label = item
                single = hasattr(label, "shape") and np.prod(label.shape) == 1  # PyG's (1,)
                sample["label"] = label.reshape(()) if single else label
            graph = to_graph(item, features=self.cutting.features, edge_features=self.cutting.edge_features)
            if "labels" not in sample and "label" not in sample:
                sample["labels"] = labels_of(item)
            sample["graph"] = LazyGraph(graph, cutting=self.cutting, index=index)
            self._samples[index] = sample
        return dict(self._samples[index])

    def _sample_id(self, index: int) -> str:
        return f"{self._name}[{index}]"


def open_graphs(
    root: str, name: str | None, *, node_attributes: bool = False, edge_attributes: bool = False
) -> dict[str, Dataset[Any]]:
    """Open the graphs in `root/name` by split, as PyG's datasets.

    Files are data: of what PyG keeps in `processed`, and of the pickles of ZINC and Planetoid, tensors, arrays and
    plain values are taken, and a file that holds more is refused.

    Args:
        root: folder that has (or gets) the folder `name`, with `raw` in it.
        name: of the TUDataset (`root/MUTAG/raw/MUTAG_A.txt`, ...); or ZINC (its 12,000 graphs, with splits of its own)
            or ZINC_full, as PyG's `ZINC` lays them out; or Cora, CiteSeer or PubMed (one network), as `Planetoid` does.
        node_attributes: also take the continuous attributes of nodes, before their types.
        edge_attributes: likewise for edges.

    Raises:
        DataError: no name, no files (and they could not be downloaded), or broken ones; attributes that there are none
            of; a folder that PyG cannot write.
    """
    from torch_geometric.datasets import TUDataset  # slow to import

    from modalities.graph.planetoid import PlainPlanetoid
    from modalities.graph.zinc import PlainZINC

    base = Path(root).expanduser()
    if name is None:
        found = ", ".join(sorted(folder.parent.name for folder in base.glob("*/raw"))) or "none there yet"
        raise DataError(
            f"expected the name of a data set in {root}, got none: set data.name, e.g. MUTAG (found: {found})"
        )
    if not name or name in (".", "..") or "/" in name or os.sep in name:
        raise DataError(f"expected the name of a data set, got {name!r}: set data.name, e.g. MUTAG")
    if name.upper().startswith("ZINC"):
        if node_attributes or edge_attributes:
            raise DataError("expected node_attributes and edge_attributes to be false for ZINC: it has types only")
        folder, subset = str(base / name), not name.lower().endswith("full")
        return {
            split: _open(base / name, lambda split=split: PlainZINC(folder, subset=subset, split=split))  # type: ignore[misc]
            for split in ("train", "val", "test")
        }
    if network := NETWORKS.get(name.lower()):
        if node_attributes or edge_attributes:
            raise DataError(f"expected node_attributes and edge_attributes to be false for {name}: features are words")
        return {"train": _open(base / network, lambda: PlainPlanetoid(str(base), network))}
    dataset = _open(
        base / name,
        lambda: TUDataset(str(base), name, use_node_attr=node_attributes, use_edge_attr=edge_attributes),
    )
    _check_attributes(dataset, base / name, {"node": node_attributes, "edge": edge_attributes})
    _add_last(dataset, base / name / "raw" / f"{name}_graph_indicator.txt", "nodes")
    _add_last(dataset, base / name / "raw" / f"{name}_graph_labels.txt", "labels")
    return {"train": dataset}


def _check_attributes(dataset: Any, folder: Path, asked: Mapping[str, bool]) -> None:
    """Raise a DataError where attributes of nodes or edges are asked for that a TUDataset has not."""
    there = {"node": dataset.num_node_attributes, "edge": dataset.num_edge_attributes}
    for what in asked:
        if asked[what] and not there[what]:
            file = folder / "raw" / "_".join((folder.name, what, "attributes.txt"))
            raise DataError(
                f"expected continuous attributes in {file}, since data.{what}_attributes is true, got none: set it to "
                f"false, or bring the file, and remove what PyG keeps in {folder / 'processed'}"
            )


def _add_last(dataset: Any, file: Path, what: str) -> None:
    """Give back the last graphs of a TUDataset, which PyG counts by their edges and drops where they have none."""
    slices = getattr(dataset, "slices", None)
    if not slices or not file.is_file():
        return
    count = max(len(slice_) for slice_ in slices.values()) - 1
    for key, slice_ in slices.items():
        if len(slice_) <= count and key.startswith("edge"):
            slices[key] = torch.cat([slice_, slice_[-1:].expand(count + 1 - len(slice_))])
    try:
        numbers = [line for line in file.read_text().split("\n") if line.strip()]
        wanted = max(map(int, numbers), default=0) if what == "nodes" else len(numbers)
    except ValueError:  # PyG has read them all the same
        return
    if wanted != len(dataset):
        raise DataError(
            f"expected {wanted} graphs, as {file} has {what} of so many, got {len(dataset)}: the files do not fit each "
            f"other, or what PyG keeps in {file.parent.parent / 'processed'} is older: remove it, or replace the files"
        )


def _check_regular(folder: Path) -> None:
    for file in folder.glob("**/*"):
        try:
            if not file.is_dir():
                regular_file(str(file))
        except OSError as error:
            raise DataError(f"cannot read {file}: {error}: remove it") from None


def _open(folder: Path, dataset: Callable[[], Dataset[Any]]) -> Dataset[Any]:
    raw = folder / "raw"
    _check_regular(folder)
    there = raw.is_dir() and any(raw.iterdir())
    above = [parent for parent in folder.parents if not parent.exists()]
    cached = folder / "processed"
    try:
        with weights_only():
            return dataset()
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|global|class|function) `?([\w.]+\.\w+)`?", str(error))
        raise DataError(
            f"expected tensors and plain values in {cached}, where PyG keeps what it read, got more"
            f"{f' ({named[1]})' if named else ''}: such a file can run code, so it was not read; remove the folder, "
            "and PyG makes it again from the files"
        ) from None
    except Exception as error:  # whatever the download, or PyG's reader of broken text, stumbles over
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if not there:
            for empty in (raw, folder, *above):  # which PyG made for the download
                with suppress(OSError):
                    empty.rmdir()
            raise DataError(
                f"expected the files of {folder.name} in {raw}, got none, and they could not be downloaded ({reason}): "
                "check data.root and data.name, or put the files there"
            ) from error
        writable = os.access(cached if cached.exists() else folder, os.W_OK)
        if isinstance(error, PermissionError | FileExistsError | NotADirectoryError) or not writable:
            raise DataError(
                f"expected to write into {cached}, where PyG keeps what it read ({reason}): make it writable, or copy "
                f"{raw} to a place that is"
            ) from error
        raise DataError(
            f"expected the files of {folder.name} in {raw}, got some that cannot be read ({reason}): replace them, and "
            f"remove {cached} if it is older"
        ) from error


def targets_in_memory(dataset: Dataset[Any]) -> NDArray[np.int64] | None:
    """Find the classes of PyG's datasets that lie in memory; None for others, and where a graph has none."""
    from torch_geometric.data import InMemoryDataset

    if not isinstance(dataset, InMemoryDataset):
        return None
    labels = []
    for index in range(len(dataset)):
        try:
            labels.append(getattr(dataset[index], "y", None))
        except Exception as error:  # PyG cuts one graph out of the tensors of all, which may be too short
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise DataError(
                f"expected {len(dataset)} graphs, but number {index} cannot be cut out of what was read ({reason}): "
                "the files do not fit each other, or what PyG keeps in `processed` is damaged: replace or remove them"
            ) from error
    known = all(isinstance(y, torch.Tensor) and y.numel() == 1 and not y.is_floating_point() for y in labels)
    return np.array([int(y) for y in labels], dtype=np.int64) if known else None  # type: ignore[arg-type]
