"""Networks of papers that cite each other (Planetoid), their raw pickles read without running what they hold."""

from __future__ import annotations

import warnings
from pathlib import Path

from torch_geometric.datasets import Planetoid

from modalities.graph.plain_pickles import load_plain


class PlainPlanetoid(Planetoid):
    """PyG's Planetoid (Yang et al. 2016, arXiv:1603.08861), which takes arrays and plain values alone from its pickles.

    Raises:
        ValueError: a pickle names anything else, which was not run.
    """

    def process(self) -> None:
        """Look through the pickles, then do as PyG does."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the names that SciPy had
            for name in self.raw_file_names:
                if not name.endswith(".index"):
                    load_plain(Path(self.raw_dir) / name, arrays=True)
            super().process()
