"""`jepa-view`: `jepa_lightning.view` from a shell."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_lightning.cli.options import command
from jepa_lightning.pictures.view import view as draw


def view(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-view`. Mistakes of the user end in a few lines and exit code 2."""
    with command("jepa-view", draw, args) as settings:
        draw(**settings)
