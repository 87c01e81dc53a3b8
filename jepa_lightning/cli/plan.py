"""`jepa-plan`: what an agent achieves with a world model, beside controls."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import jsonargparse

from jepa_lightning.cli.errors import fail, short_errors
from jepa_lightning.config.bounded_yaml import MODE
from jepa_lightning.config.messages import shorten
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.planning.plan import plan as run_plan
from jepa_lightning.planning.plan import plan_file, table


class _Parser(jsonargparse.ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong in a line, and exit with code 2."""
        if not self.exit_on_error:  # it tries alternatives in this way
            super().error(message, ex)
        fail(shorten(message, self), program="jepa-plan")


def plan(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-plan`. Mistakes of the user end in a few lines and exit code 2."""
    with short_errors("jepa-plan"):
        load_plugins()
        settings = parse(sys.argv[1:] if args is None else list(args))
        print(table(run_plan(**settings)))
        print(f"\nwritten to {settings['out'] or plan_file(settings['checkpoint'])}")


def parse(args: list[str]) -> dict[str, Any]:
    """Parse the words of a command line to the parameters of `plan`."""
    parser = _Parser(prog="jepa-plan", parser_mode=MODE, description=(run_plan.__doc__ or "").splitlines()[0])
    parser.add_function_arguments(run_plan, as_positional=False, skip={"checkpoint"}, fail_untyped=False)
    parser.add_argument("--checkpoint", type=str, required=True, help="folder of a run, or a checkpoint")
    return vars(parser.instantiate_classes(parser.parse_args(args)))
