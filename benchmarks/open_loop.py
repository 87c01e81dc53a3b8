"""How far a world model's open-loop rollouts in Two Rooms are from the truth, in the world's units.

    jepa-fit --config recipes/world_two_rooms
    python -m benchmarks.open_loop runs/world_two_rooms --threads 1

For each run: 200 new walks (whose direction drifts, as those of the data set this world was made for) are begun in
imagination and told their actions, and the place of the dot is read from the imagined states. Two readouts are fitted
on true states of 3,000 other walks, for looking only: a ridge regression, and an MLP of two hidden layers of 256. Rows:
the share of the variance of x, y, the wall's x and the door's y that each readout explains on true states of the 200
walks (R2); the root mean square error of the place, of one coordinate, on true states, and after 1 and 16 imagined
steps from a walk's start; the same of walks that meet a wall on the way; and of what knows no model at all: the sum of
the actions without walls, and the start itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.report import at_least, machine, options, table, write_json
from jepa_lightning import load_world
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.environments import Environment, TwoRooms
from jepa_lightning.evaluation.probes.classification import standardise
from jepa_lightning.evaluation.probes.regression import choose_penalty, fit_ridge
from jepa_lightning.planning import World
from jepa_lightning.planning.belief import encode_states

Readout = Callable[[Tensor], Tensor]


def encode(world: World, environment: Environment, states: Tensor) -> Tensor:
    """What the world makes of states (N, P): (N, D), the mean over tokens."""
    return encode_states(world, environment, states).mean(1)


def linear(seen: Tensor, known: Tensor) -> Readout:
    """A ridge regression from (N, D) to (N, P)."""
    scaled, _ = standardise(seen, seen)
    centre, spread = known.mean(0), known.std(0)
    values = (known - centre) / spread
    weight, bias = fit_ridge(scaled, values, penalty=choose_penalty(scaled, values))
    return lambda asked: F.linear(standardise(seen, asked)[1], weight, bias) * spread + centre


def mlp(seen: Tensor, known: Tensor, *, steps: int, seed: int = 0) -> Readout:
    """An MLP from (N, D) to (N, P): Adam, a learning rate that falls from 0.001 to 0, batches of 256."""
    torch.manual_seed(seed)
    scaled, _ = standardise(seen, seen)
    centre, spread = known.mean(0), known.std(0)
    sizes = [seen.shape[1], 256, 256]
    layers = [nn.Sequential(nn.Linear(a, b), nn.SiLU()) for a, b in pairwise(sizes)]
    net = nn.Sequential(*layers, nn.Linear(256, known.shape[1]))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        rows = torch.randint(len(seen), (256,))
        optimizer.zero_grad()
        F.mse_loss(net(scaled[rows]), (known[rows] - centre) / spread).backward()
        optimizer.step()
        schedule.step()
    return lambda asked: net(standardise(seen, asked)[1]) * spread + centre


def readouts(world: World, environment: Environment, walks: Tensor, updates: int) -> dict[str, Readout]:
    """Both, fitted on four or five states of each of the walks (N, T, P), evenly spaced; `updates` of the MLP."""
    known = walks[:, :: max((walks.shape[1] - 1) // 4, 1)].flatten(0, 1)
    seen = encode(world, environment, known)
    return {"linear": linear(seen, known), "MLP": mlp(seen, known, steps=updates)}


def arguments(
    argv: list[str] | None, doc: str | None, name: str, place: str, *, fit: int, steps: int
) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read the command line of a benchmark of runs in one environment, and set the threads."""
    parser = options(doc, name)
    parser.add_argument("runs", nargs="+", type=Path, help=f"folders of runs on {place}")
    parser.add_argument("--walks", type=int, default=200, help="walks that are imagined")
    parser.add_argument("--fit", type=int, default=fit, help="walks that readouts are fitted on")
    parser.add_argument("--steps", type=int, default=steps, help="imagined steps of the model")
    parser.add_argument("--updates", type=int, default=4000, help="of the MLP")
    parser.add_argument("--seed", type=int, default=100, help="of the walks")
    args = parser.parse_args(argv)
    at_least(parser, args, walks=1, fit=10, steps=1, updates=1, threads=1)
    torch.set_num_threads(args.threads)
    load_plugins()
    return parser, args


def rms(error: Tensor) -> float:
    """The root of the mean square over all numbers."""
    return float(error.square().mean().sqrt())


@torch.no_grad()
def errors(world: World, rooms: TwoRooms, states: Tensor, actions: Tensor, readout: Readout) -> dict[str, Any]:
    """Figures of one readout.

    Args:
        world: imagines.
        rooms: draws observations.
        states: (N, T, 4) of walks.
        actions: (N, T - 1, 2) between them.
        readout: from states of the world (n, D) to (n, 4).
    """
    flat, steps = states.flatten(0, 1), actions.shape[1]
    found = readout(encode(world, rooms, flat)) - flat
    r2 = 1 - found.square().mean(0) / flat.var(0, correction=0)
    past = world.past(world.encode(rooms.observe(states[:, 0])))
    imagined = world.imagine(past, actions.unsqueeze(1))[:, 0].mean(2)  # (N, steps, D)
    apart = readout(imagined.flatten(0, 1)).unflatten(0, imagined.shape[:2])[..., :2] - states[:, 1:, :2]
    met = (states[:, 1:, :2] - states[:, :-1, :2] - actions).norm(dim=-1).amax(1) > 1e-2
    return {
        **{f"R2 {name}": float(value) for name, value in zip(rooms.state_names, r2, strict=True)},
        "on true states": rms(found[:, :2]),
        "after 1 step": rms(apart[:, 0]),
        f"after {steps} steps": rms(apart[:, -1]),
        f"after {steps} steps, wall met": rms(apart[met, -1]),
    }


def floors(states: Tensor, actions: Tensor) -> dict[str, float]:
    """Errors at the end of walks of what imagines without a model."""
    start, end = states[:, 0, :2], states[:, -1, :2]
    return {"sum of actions": rms(start + actions.sum(1) - end), "start": rms(start - end)}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure runs and print a table."""
    parser, args = arguments(argv, __doc__, "open_loop", "Two Rooms", fit=3000, steps=16)
    found: dict[str, Any] = {}
    for run in args.runs:
        world = load_world(run)
        trained_in = world.data().environment
        if not isinstance(trained_in, TwoRooms):
            parser.error(f"expected runs on Two Rooms, got one on {trained_in.name}: {run}")
        rooms = TwoRooms(image_size=trained_in.image_size)
        generator = torch.Generator().manual_seed(args.seed)
        walks, others = (rooms.wander(n, args.steps + 1, generator) for n in (args.walks, args.fit))
        fitted = readouts(world, rooms, others.states, args.updates)
        rows = {name: errors(world, rooms, walks.states, walks.actions, one) for name, one in fitted.items()}
        below = floors(walks.states, walks.actions)
        found[str(run)] = {**rows, "floors": below}
        print(f"{run}: the sum of actions is off by {below['sum of actions']:.2f}, the start by {below['start']:.2f}")
        lines = [[name, *(f"{value:.3f}" for value in row.values())] for name, row in rows.items()]
        print(table(["readout", *rows["linear"]], lines))
    write_json(args.json, {**vars(args), "runs": [str(run) for run in args.runs], **machine()}, found)
    return found


if __name__ == "__main__":
    main()
