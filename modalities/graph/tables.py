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
from jepa_lightning.data.files.csv_rows import Row, filled_cell, read_rows
from jepa_lightning.data.files.table import read_column
from jepa_lightning.names.nearest import did_you_mean
from jepa_lightning.names.printable import printable
from jepa_lightning.names.shown import Shown

if TYPE_CHECKING:
    from torch_geometric.data import Data

_NODE, _LABEL = ("id", "node"), ("label", "class")
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
        Data(x=[3, 1], num_nodes=3, y=[3], edge_index=[2, 4])
    """

    name = "node"

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
        at = _column(file, header, _NODE)
        names = [filled_cell(file, row, header, at) for row in rows]
        number = {name: place for place, name in enumerate(names)}
        if len(number) < len(names):
            twice = next(name for place, name in enumerate(names) if number[name] != place)
            raise DataError(f"expected each node once in {file}, got {printable(twice)} twice: remove a line")
        lower = [name.lower() for name in header]
        known = label or next((header[lower.index(name)] for name in _LABEL if name in lower), None)
        others = [name for name in header if name not in (header[at], known) and name.lower() != "split"]
        table = read_column({"": file}, kind="node", names=_NODE, labels=[] if known is None else [known])
        data = Data(
            x=_numbers(file, header, rows, others if features is None else features),
            num_nodes=len(names),
        )
        if known is not None:
            some = next(iter(table.values())).labels[known]
            labels = np.zeros(len(names), dtype=some.dtype)
            for column in table.values():
                labels[[number[cell] for cell in column.cells]] = column.labels[known]
            data.y = torch.from_numpy(labels)
            self.classes = table["train"].classes
        if len(table) > 1:
            for split, column in table.items():
                mask = torch.zeros(len(names), dtype=torch.bool)
                mask[[number[cell] for cell in column.cells]] = True
                data[f"{split}_mask"] = mask
        data.edge_index, data.edge_attr = _edges(Path(edges).expanduser(), number, file, directed=directed)
        self._data = data

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Data:
        """Return the network."""
        if index != 0:
            raise IndexError(f"there is one network, of number 0, got {index}")
        return self._data


def _column(file: Path, header: list[str], names: Sequence[str]) -> int:
    for wanted in names:
        for at, name in enumerate(header):
            if name.lower() == wanted:
                return at
    raise DataError(
        f"expected in {file} a first line of column names with {' or '.join(names)}, got {', '.join(header[:10])}: "
        "name the columns"
    )


def _numbers(file: Path, header: list[str], rows: list[Row], names: Sequence[str]) -> Tensor | None:
    """Read columns of numbers: (rows, columns) float32; None of no columns."""
    for name in names:
        if name not in header:
            raise DataError(
                f"expected the column {name!r} in {file}{did_you_mean(name, header)}, got {', '.join(header[:10])}: "
                "check features"
            )
    if not names:
        return None
    places = [header.index(name) for name in names]
    found = np.empty((len(rows), len(places)), dtype=np.float32)
    for number, (_, cells) in enumerate(rows):
        try:
            found[number] = [cells[at] for at in places]
        except ValueError:
            found[number] = np.nan
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if len(bad):
        line, cells = rows[bad[0]]
        name, cell = next((name, cells[at]) for name, at in zip(names, places, strict=True) if not _finite(cells[at]))
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
    ends = [_column(file, header, names) for names in _ENDS]
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
    features = _numbers(file, header, rows, [name for at, name in enumerate(header) if at not in ends])
    if not directed:
        back = found[::-1][:, found[0] != found[1]]
        both = np.concatenate([found, back], axis=1)
        _, first = np.unique(both, axis=1, return_index=True)
        first.sort()
        if features is not None:
            features = torch.cat([features, features[torch.from_numpy(found[0] != found[1])]])[torch.from_numpy(first)]
        found = both[:, first]
    return torch.from_numpy(np.ascontiguousarray(found)), features
