"""What each part of world.yaml is for, each planner, and how fast it trains and plans.

    python -m benchmarks.world --seeds 0 1 2 --threads 1
    python -m benchmarks.world --seeds 0 --only "world.yaml" --threads 1

For each seed: trains the shipped world.yaml, and the same with one thing changed (a term taken out, fewer or more
steps in a row); lets an agent reach 100 goals with each (`jepa-plan`'s protocol, tasks of seed 100 + the run's), and
with each planner on the shipped one. A row is the success of all seeds' episodes together with Wilson's interval, that
of each seed, what the state tells of the dot's place (R2, least of x and y), and the shares of first plans that are
believed to arrive, and arrive. Then the speed of the shipped one: training steps on batches that are ready, and plans
of the default planner for 1, 16 and 256 episodes at once.

What lies in `--out` is not trained again, nor planned again.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import at_least, machine, options, table, write_json
from benchmarks.training import train_missing
from jepa_lightning import load_world
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.evaluation.probes.protocols import wilson
from jepa_lightning.loading import load_jepa
from jepa_lightning.planning import CEM, MPPI, Agent, Gradient, Planner, RandomShooting
from jepa_lightning.planning.plan import plan

_REGULARIZERS: dict[str, dict[str, Any]] = {
    "VICReg": {"variance": 1.0, "covariance": 0.1},
    "TrajectoryVICReg": {"over": "time", "variance": 0.5, "covariance": 0.0},
    "InverseDynamics": {"weight": 4.0},
}  # those of world.yaml, which the tests compare


def regularizers(**changed: dict[str, Any] | None) -> list[str]:
    """Words that set world.yaml's regularizers with some changed, or None: left out."""
    kept = {name: {**given, **(changed.get(name) or {})} for name, given in _REGULARIZERS.items()}
    listed = [
        {"class_path": name, "init_args": given} for name, given in kept.items() if changed.get(name, {}) is not None
    ]
    return ["--model.regularizers", json.dumps(listed)]


VARIANTS: dict[str, list[str]] = {
    "world.yaml": [],
    "without variance over samples": regularizers(VICReg={"variance": 0.0}),
    "without covariance": regularizers(VICReg={"covariance": 0.0}),
    "without variance over time": regularizers(TrajectoryVICReg=None),
    "without inverse dynamics": regularizers(InverseDynamics=None),
    "1 step in a row, of 6": ["--model.pretext.steps", "1"],
    "4 steps in a row": ["--model.pretext.steps", "4"],
    "8 steps in a row": ["--model.pretext.steps", "8"],
}
"""What is changed, by name."""

PLANNERS: dict[str, Planner] = {
    "RandomShooting": RandomShooting(),
    "MPPI": MPPI(),
    "Gradient": Gradient(),
}
"""Planners beside the default one, CEM, each with its defaults."""

BATCHES = (1, 16, 256)
_STEPS = 20


def run_folder(out: Path, seed: int, name: str) -> Path:
    """Where a variant's run lies."""
    return out / str(seed) / "".join(letter if letter.isalnum() else "_" for letter in name)


def train(out: Path, seed: int, name: str, words: list[str]) -> Path:
    """Train a variant, unless it is there."""
    return train_missing("world.yaml", run_folder(out, seed, name), seed=seed, words=[*VARIANTS[name], *words])


def score(folder: Path, seed: int, planner: Planner, episodes: int) -> dict[str, Any]:
    """Let an agent act with a run, unless that was done."""
    file = folder / f"plan_{type(planner).__name__}_{episodes}.json"
    if not file.is_file():
        plan(folder, planner=planner, episodes=episodes, seed=100 + seed, controls=False, out=str(file))
    return dict(json.loads(file.read_text()))


def row(name: str, reports: list[dict[str, Any]]) -> list[str]:
    """A row of the table: all seeds together, and each."""
    found = [report["rows"]["world"] for report in reports]
    total = sum(each["episodes"] for each in found)
    reached = sum(round(each["success"] * each["episodes"]) for each in found)
    low, high = wilson(reached, total)
    seeds = ", ".join(f"{100 * each['success']:.0f}" for each in found)
    r2 = ", ".join(f"{min(report['readout_r2'][axis] for axis in 'xy'):.2f}" for report in reports)
    first = [[100 * report["first_plans"][key] for report in reports] for key in ("believed", "achieved")]
    return [
        name,
        f"{100 * reached / total:.1f}% [{100 * low:.1f}, {100 * high:.1f}]",
        seeds,
        r2,
        *(f"{statistics.mean(values):.0f}%" for values in first),
        f"{statistics.mean(each['ms_a_plan'] for each in found):.0f}",
    ]


def speed(folder: Path) -> dict[str, float]:
    """Measure windows a second of the training step, and plans a second by how many episodes plan at once."""
    jepa, world = load_jepa(folder), load_world(folder)
    data = world.data()
    jepa.train()
    batch = next(iter(data.train_dataloader()))
    optimizer = torch.optim.AdamW(jepa.parameters(), lr=1e-5)
    times = []
    for _ in range(_STEPS + 3):
        begin = time.perf_counter()
        optimizer.zero_grad()
        torch.stack(list(jepa.losses(jepa.step(batch, torch.Generator())).values())).sum().backward()
        optimizer.step()
        times.append(time.perf_counter() - begin)
    windows = len(batch["actions"])
    found = {"windows a second, training step": windows / statistics.median(times[3:])}
    rooms = data.environment
    for count in BATCHES:
        tasks = rooms.tasks(count, torch.Generator().manual_seed(0))
        agent = Agent(world, rooms.space, CEM())
        goal, start = rooms.observe(tasks.goal), rooms.observe(tasks.start)
        times = []
        for _ in range(4):
            agent.reset(goal)
            begin = time.perf_counter()
            agent.act(start)
            times.append(time.perf_counter() - begin)
        found[f"plans a second, {count} at once"] = count / statistics.median(times[1:])
    return found


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Train, plan and print the tables."""
    parser = options(__doc__, "world")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="variants")
    parser.add_argument("--episodes", type=int, default=100, help="goals of each seed")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/world"))
    given, words = parser.parse_known_args(args)
    at_least(parser, given, episodes=1, threads=1)
    torch.set_num_threads(given.threads)
    load_plugins()
    shipped = next(iter(VARIANTS))
    folders = {(seed, name): train(given.out, seed, name, words) for seed in given.seeds for name in given.only}
    reports = {
        name: [score(folders[seed, name], seed, CEM(), given.episodes) for seed in given.seeds] for name in given.only
    }
    results: dict[str, Any] = {"rows": reports}
    if shipped in given.only:
        for name, planner in PLANNERS.items():
            reports[name] = [score(folders[seed, shipped], seed, planner, given.episodes) for seed in given.seeds]
        results["speed"] = speed(folders[given.seeds[0], shipped])
    write_json(given.json, {**vars(given), **machine()}, results)
    columns = ["", "success", "each seed, %", "R2 of the place", "first plans: believed", "achieved", "ms a plan"]
    print(table(columns, [row(name, found) for name, found in reports.items()]))
    if "speed" in results:
        print(table(["", "a second"], [[name, f"{value:.1f}"] for name, value in results["speed"].items()]))
    return results


if __name__ == "__main__":
    main()
