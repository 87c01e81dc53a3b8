"""What graphs need beyond the core: PyG, METIS and SciPy, or one line that says how to get them."""

from __future__ import annotations

from jepa_lightning.config.extras import extra

with extra(
    "graph",
    who="graphs need",
    packages=("pymetis", "scipy", "scipy.sparse", "torch_geometric"),
    broken=lambda reason: f"graphs need PyG and pymetis, which do not load ({reason})",
):
    import pymetis
    import scipy.sparse as sparse
    import torch_geometric

__all__ = ["pymetis", "sparse", "torch_geometric"]
