"""`jepa-import`: `jepa_lightning.import_weights` from a shell."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_lightning.cli.options import command
from jepa_lightning.names.printable import printable
from jepa_lightning.weights.importing import import_weights as write


def import_weights(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-import`. Mistakes of the user end in a few lines and exit code 2."""
    with command("jepa-import", write, args) as settings:
        print(printable(write(**settings)))
        print(f"run: {settings['out']}")
