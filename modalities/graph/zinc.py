"""ZINC as PyG lays it out, its raw pickles read without running what they hold."""

from __future__ import annotations

from pathlib import Path

import torch
from torch_geometric.data import Data
from torch_geometric.datasets import ZINC

from modalities.graph.plain_pickles import load_plain


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
