"""`jepa-embed`: `jepa_lightning.embed` from a shell."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_lightning.cli.options import command
from jepa_lightning.evaluation.embed import embed as write
from jepa_lightning.names.printable import printable


def embed(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-embed`. Mistakes of the user end in a few lines and exit code 2."""
    with command("jepa-embed", write, args) as settings:
        shapes = write(**settings)
        rows, width = shapes["features"]
        labels = [name.removeprefix("labels.") for name in shapes if name.startswith("labels.")]
        print(f"{settings['out']}: {rows} samples, {width} features, labels: {printable(', '.join(labels)) or 'none'}")
