"""`jepa-plan`: `jepa_lightning.plan` from a shell."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_lightning.cli.options import command


def plan(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-plan`. Mistakes of the user end in a few lines and exit code 2."""
    from jepa_lightning.planning.plan import plan as run_plan
    from jepa_lightning.planning.plan import plan_file, table

    with command("jepa-plan", run_plan, args) as settings:
        print(table(run_plan(**settings)))
        print(f"\nwritten to {settings['out'] or plan_file(settings['checkpoint'])}")
