"""A network from two tables: its nodes, and the edges between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from jepa_lightning.data import DataError
from jepa_lightning.data.files.csv_labels import read_labels
from jepa_lightning.data.files.csv_rows import Row, filled_cell, read_rows
from jepa_lightning.data.files.table import LABEL_COLUMNS, first_column, named_column, splits_of
from jepa_lightning.names.printable import printable
from jepa_lightning.names.shown import Shown

if TYPE_CHECKING:
    from torch_geometric.data import Data

_NODE = ("id", "node")
_ENDS = (("source", "from"), ("target", "to"))


class CsvNetwork(Shown, Dataset["Data"]):
    """One network from two CSV files (or files of JSON lines), for `GraphData` with `radius`.

    The table of nodes has a column `id` (or node), whose cells name the nodes, perhaps `label` (or class; an empty cell
    is no label) and `split` (train, val, test: masks); all other columns are the nodes' features, and hold numbers. The
    table of edges has the columns `source` and `target` (or from and to), which hold ids; all others are the edges'
    features.

    Args:
        nodes: the table of nodes.
        edges: the table of edges.
        label: the label's column, where it is called otherwise.
        features: the features' columns, in this order; None: all others. `[]` for none.
        directed: whether edges go in one direction only; otherwise each is taken in both, once.

    Raises:
        DataError: what is wrong with a table, with the line and the column.

    Examples:
        >>> from pathlib import Path
        >>> from modalities.graph import CsvNetwork
        >>> path = Path("nodes.csv"), Path("edges.csv")
        >>> _ = path[0].write_text("id,age,label\\nann,31,a\\nbob,25,b\\neve,40,a\\n")
        >>> _ = path[1].write_text("source,target\\nann,bob\\nbob,eve\\n")
        >>> CsvNetwork(nodes="nodes.csv", edges="edges.csv")[0]
        Data(num_nodes=3, y=[3], x=[3, 1], edge_index=[2, 4])
    """

    name = "node"
    classes: list[str] | None = None

    def __init__(
        self,
        nodes: str,
        edges: str,
        label: str | None = None,
        features: list[str] | None = None,
        directed: bool = False,
    ) -> None:
        from torch_geometric.data import Data

        file = Path(nodes).expanduser()
        header, rows = read_rows(file, _NODE)
        at = first_column(file, header, _NODE)
        names = [filled_cell(file, row, header, at) for row in rows]
        number = {name: place for place, name in enumerate(names)}
        if len(number) < len(names):
            twice = next(name for place, name in enumerate(names) if number[name] != place)
            raise DataError(f"expected each node once in {file}, got {printable(twice)} twice: remove a line")
        data = Data(num_nodes=len(names))
        others = [place for place, name in enumerate(header) if place != at and name.lower() != "split"]
        labelled = [place for wanted in LABEL_COLUMNS for place in others if header[place].lower() == wanted][:1]
        if label is not None:
            labelled = [named_column(file, header, label, what="label column", setting="label")]
        if labelled and rows:
            labels, self.classes = read_labels(file, header, rows, labelled[0])
            data.y = torch.from_numpy(labels)
        places = [place for place in others if place not in labelled]
        if features is not None:
            places = [named_column(file, header, name, what="column", setting="features") for name in features]
        data.x = _numbers(file, header, rows, places)
        splits = np.array(splits_of(file, header, rows))
        if (splits != "train").any():
            for split in sorted(set(splits)):
                data[f"{split}_mask"] = torch.from_numpy(splits == split)
        data.edge_index, data.edge_attr = _edges(Path(edges).expanduser(), number, file, directed=directed)
        self._data = data

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Data:
        """Return the network."""
        if index != 0:
            raise IndexError(f"there is one network, of number 0, got {index}")
        return self._data


def _numbers(file: Path, header: list[str], rows: list[Row], places: Sequence[int]) -> Tensor | None:
    """Read columns of numbers: (rows, columns) float32; None of no columns."""
    if not places:
        return None
    found = np.empty((len(rows), len(places)), dtype=np.float32)
    for number, (_, cells) in enumerate(rows):
        try:
            found[number] = [cells[at] for at in places]
        except ValueError:
            found[number] = np.nan
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if len(bad):
        line, cells = rows[bad[0]]
        name, cell = next((header[at], cells[at]) for at in places if not _finite(cells[at]))
        raise DataError(
            f"expected a finite number in line {line}, column {name}, of {file}, got {printable(cell)!r}: give one, or "
            "name the columns of numbers (of nodes: features)"
        )
    return torch.from_numpy(found)


def _finite(cell: str) -> bool:
    try:
        return bool(np.isfinite(np.float32(cell)))
    except ValueError:
        return False


def _edges(file: Path, number: dict[str, int], nodes: Path, *, directed: bool) -> tuple[Tensor, Tensor | None]:
    """Read the edges (2, E), and their features (E, G) if they have any."""
    header, rows = read_rows(file, _ENDS[0])
    ends = [first_column(file, header, names) for names in _ENDS]
    found = np.empty((2, len(rows)), dtype=np.int64)
    for side, at in enumerate(ends):
        for place, row in enumerate(rows):
            name = filled_cell(file, row, header, at)
            if name not in number:
                raise DataError(
                    f"expected ids of {nodes} in {file}, got {printable(name)} in line {row[0]}, column {header[at]}: "
                    "add the node, or remove the line"
                )
            found[side, place] = number[name]
    features = _numbers(file, header, rows, [at for at in range(len(header)) if at not in ends])
    if directed:
        return torch.from_numpy(found), features
    both = np.concatenate([found, found[::-1]], axis=1)
    _, first = np.unique(both[0] * len(number) + both[1], return_index=True)  # of those listed before those turned
    first.sort()
    return torch.from_numpy(both[:, first]), None if features is None else features[torch.from_numpy(first % len(rows))]
