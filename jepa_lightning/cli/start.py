"""What `jepa-fit` starts with: it listens to signals before the seconds in which torch and Lightning are imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jepa_lightning.run.signals import asks_for_resume, exits_before_training


def fit(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-fit`: import the command, and run it."""
    words = sys.argv[1:] if args is None else args
    with exits_before_training("jepa-fit", requeue=asks_for_resume(words)):
        from jepa_lightning.cli.fit import fit as run
    run(args)
