"""`jepa-finetune`: `jepa_lightning.finetune` from a shell."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_lightning.cli.options import command
from jepa_lightning.finetuning.finetune import finetune as run_finetune


def finetune(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-finetune`. Mistakes of the user end in a few lines and exit code 2."""
    with command("jepa-finetune", run_finetune, args) as settings:
        report = run_finetune(**settings)
        from jepa_lightning.finetuning.folder import is_first

        if is_first():
            print(report.table())
