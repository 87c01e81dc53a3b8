"""ZINC as PyG lays it out, its raw pickles read without running what they hold."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data
from torch_geometric.datasets import ZINC

_PLAIN = {  # what a tensor, and a number of NumPy, is made of
    **dict.fromkeys((("torch._utils", "_rebuild_tensor"), ("torch._utils", "_rebuild_tensor_v2"))),
    **dict.fromkeys((("collections", "OrderedDict"), ("numpy", "dtype"), ("_codecs", "encode"))),
    **dict.fromkeys((("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"))),
}


class PlainZINC(ZINC):
    """PyG's ZINC, which takes tensors and plain values alone from its pickles.

    Raises:
        ValueError: a pickle names anything else, which was not run.
    """

    def process(self) -> None:
        """From the pickles to the graphs that PyG makes of them."""
        for split in ("train", "val", "test"):
            raw = Path(self.raw_dir)
            molecules = load_plain(raw / f"{split}.pickle")
            chosen = list(range(len(molecules)))
            if self.subset:
                chosen = [int(number) for number in (raw / f"{split}.index").read_text().strip().split(",")]
            graphs = []
            for index in chosen:
                bonds = molecules[index]["bond_type"]
                edges = bonds.nonzero(as_tuple=False).t().contiguous()
                graphs.append(
                    Data(
                        x=molecules[index]["atom_type"].to(torch.long).view(-1, 1),
                        edge_index=edges,
                        edge_attr=bonds[edges[0], edges[1]].to(torch.long),
                        y=molecules[index]["logP_SA_cycle_normalized"].to(torch.float),
                    )
                )
            self.save(graphs, str(Path(self.processed_dir) / f"{split}.pt"))


def load_plain(path: Path) -> Any:
    """What a pickle of plain values and tensors holds.

    Raises:
        ValueError: it names anything else, which was not run.
    """
    with path.open("rb") as file:
        try:
            return _Plain(file).load()
        except pickle.UnpicklingError as error:
            reason = " ".join(str(error).split())[:150]
            raise ValueError(
                f"expected tensors and plain values in {path.name}, got more ({reason}): such a file can run code, so "
                "it was not read"
            ) from None


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):  # which would unpickle anything once more
            return _storage
        if (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


def _storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)
