"""What text needs beyond the core: the package tokenizers, or one line that says how to get it."""

from __future__ import annotations

from jepa_lightning.config.extras import extra

with extra(
    "text",
    who="text needs",
    packages=("tokenizers",),
    broken=lambda reason: f"text needs tokenizers, which does not load ({reason})",
):
    import tokenizers

__all__ = ["tokenizers"]
