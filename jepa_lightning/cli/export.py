"""`jepa-export`: `jepa_lightning.export` from a shell."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_lightning.cli.options import command
from jepa_lightning.weights.exporting.export import export as write


def export(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-export`. Mistakes of the user end in a few lines and exit code 2."""
    with command("jepa-export", write, args) as settings:
        difference = write(**settings)
        print(f"{settings['out']}: {settings['to']}, largest difference {difference:.1e}")
