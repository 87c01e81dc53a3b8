"""What graphs need beyond the core: PyG, METIS and SciPy, or one line that says how to get them."""

from __future__ import annotations

_INSTALL = 'pip install "jepa-lightning[graph]"'

try:
    import pymetis
    import scipy.sparse as sparse
    import torch_geometric
except (ImportError, OSError, RuntimeError) as error:  # the latter two where PyG was built for another torch
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing in ("pymetis", "scipy", "scipy.sparse", "torch_geometric"):
        package = missing.split(".")[0].replace("_", "-")
        raise ImportError(f"graphs need {package}, which is not installed: {_INSTALL}") from None
    reason = str(error).strip().split("\n")[0]
    raise ImportError(f"graphs need PyG and pymetis, which do not load ({reason}): {_INSTALL}") from error

__all__ = ["pymetis", "sparse", "torch_geometric"]
