"""Whether levels help to reach goals two doors away: flat plans, scored in each level, and plans from the top down.

    python -m benchmarks.levels --threads 1
    python -m benchmarks.levels --depths 2 --episodes 50 --threads 1

Trains recipes/world_four_rooms (one level) and recipes/hjepa_four_rooms with two levels (a step of the second is 4 of
the first), three (of the third 8) and four (2, 4 and 8, so that the top level's step is as long as that of three, and
fits the recipe's windows), and lets an agent reach goals in the opposite room with each (`jepa-plan`'s
protocol): by a flat plan of 40 steps compared in each level, and by `TopDown` over as many steps. Below stand a random
agent, one that heads straight for the goal, and the flat planner with the true dynamics. Choose settings with another
`--tasks`.

What lies in `--out` is not trained again, nor planned again.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import at_least, machine, options, table, write_json
from benchmarks.training import train_missing
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.planning import CEM, GoalDistance, Planner, TopDown
from jepa_lightning.planning.plan import plan

STRIDES: dict[int, list[int]] = {1: [], 2: [4], 3: [4, 2], 4: [2, 2, 2]}
"""Of the levels above the first, by the number of levels."""

STEPS = 40
"""Of the environment that a plan sees."""

FLOORS = ("random", "towards", "oracle")


def words(depth: int) -> list[str]:
    """Words that give the recipe so many levels."""
    return ["--model.pretext.depth", str(depth), "--model.pretext.stride", json.dumps(STRIDES[depth])]


def train(out: Path, depth: int, seed: int, more: list[str]) -> Path:
    """Train with so many levels, unless that is there."""
    recipe = "recipes/world_four_rooms.yaml" if depth == 1 else "recipes/hjepa_four_rooms.yaml"
    return train_missing(
        recipe, out / str(seed) / str(depth), seed=seed, words=[*(words(depth) if depth > 1 else []), *more]
    )


def horizons(depth: int) -> list[int]:
    """Steps of each level of `TopDown`, lowest first: two of the level above, and at the top `STEPS` in all."""
    strides = STRIDES[depth]
    return [*(2 * stride for stride in strides), STEPS // math.prod(strides)]


def planners(depth: int, samples: int) -> dict[str, tuple[Planner, GoalDistance, int]]:
    """Planner, cost and actions done of a plan by the name of the row."""
    flat = CEM(samples=samples, std=2.0, horizon=STEPS, hold=8)
    found: dict[str, tuple[Planner, GoalDistance, int]] = {
        f"flat, compared in level {level}": (flat, GoalDistance(mean_weight=0.0, level=level), 8)
        for level in range(1, depth + 1)
    }
    if depth > 1:
        first, above = CEM(samples=samples, std=2.0, hold=4), [CEM(samples=samples) for _ in STRIDES[depth]]
        top_down = TopDown(horizons=horizons(depth), search=first, above=above)  # type: ignore[arg-type]
        found["from the top down"] = (top_down, GoalDistance(mean_weight=0.0), 4)
    return found


def score(folder: Path, name: str, found: tuple[Planner, GoalDistance, int], given: Any) -> dict[str, Any]:
    """Let an agent act with a run, unless that was done."""
    planner, cost, execute = found
    shown = "".join(letter if letter.isalnum() else "_" for letter in name)
    file = folder / f"plan_{shown}_{given.samples}_{given.episodes}_{given.tasks}.json"
    if not file.is_file():
        settings: dict[str, Any] = {"episodes": given.episodes, "budget": given.budget, "seed": given.tasks}
        controls = folder.name == "1"
        plan(folder, planner=planner, cost=cost, execute=execute, controls=controls, out=str(file), **settings)
    return dict(json.loads(file.read_text()))


def row(levels: str, name: str, found: dict[str, Any], first: dict[str, Any] | None) -> list[str]:
    """A row of the table."""
    low, high = found["interval"]
    believed = ["-", "-"] if first is None else [f"{100 * first[key]:.0f}%" for key in ("believed", "achieved")]
    steps, cost = (found.get(key) for key in ("steps", "ms_a_plan"))
    shown = ["-" if value is None else f"{value:.1f}" for value in (steps, cost)]
    return [levels, name, f"{100 * found['success']:.0f}% [{100 * low:.0f}, {100 * high:.0f}]", *shown, *believed]


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Train, plan and print the table."""
    parser = options(__doc__, "levels")
    parser.add_argument("--depths", type=int, nargs="+", choices=list(STRIDES), default=list(STRIDES))
    parser.add_argument("--seed", type=int, default=0, help="of training")
    parser.add_argument("--tasks", type=int, default=2, help="seed of the tasks")
    parser.add_argument("--episodes", type=int, default=100, help="tasks")
    parser.add_argument("--budget", type=int, default=150, help="steps of an episode")
    parser.add_argument("--samples", type=int, default=64, help="candidates of each search")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/levels"))
    given, more = parser.parse_known_args(args)
    at_least(parser, given, episodes=1, budget=1, samples=8, threads=1)
    torch.set_num_threads(given.threads)
    load_plugins()
    reports: dict[int, dict[str, Any]] = {}
    for depth in given.depths:
        folder = train(given.out, depth, given.seed, more)
        reports[depth] = {
            name: score(folder, name, found, given) for name, found in planners(depth, given.samples).items()
        }
    rows = [
        row(str(depth), name, report["rows"]["world"], report["first_plans"])
        for depth, found in reports.items()
        for name, report in found.items()
    ]
    known: dict[str, Any] = next((found for report in reports.get(1, {}).values() if (found := report["rows"])), {})
    rows += [row("-", name, known[name], None) for name in FLOORS if name in known]
    write_json(given.json, {**vars(given), **machine()}, {"rows": reports})
    columns = ["levels", "plan", "success", "steps", "ms a plan", "first plans: believed", "achieved"]
    print(table(columns, rows))
    return {"rows": reports}


if __name__ == "__main__":
    main()
