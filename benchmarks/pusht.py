"""What a world model's states tell of Push-T, and how far its open-loop rollouts are from the truth.

    jepa-fit --config recipes/world_pusht
    python -m benchmarks.pusht runs/world_pusht --threads 1

For each run: walks that moved the block are begun in imagination and told their actions, and places and the block's
angle are read from the imagined states. Two readouts are fitted on true states of other walks, for looking only: a
ridge regression, and an MLP of two hidden layers of 256. Columns: the share of the variance of each number that a
readout explains on true states (R2); the mean distance of the disc and of the block, of a table of 512, and the mean
angle of the block in degrees, on true states, and after 1 and all imagined steps of the model. Below each the same of
what takes a walk's start for its end.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.open_loop import Readout, arguments, encode, readouts
from benchmarks.report import machine, table, write_json
from jepa_lightning import load_world
from jepa_lightning.environments import PushT
from jepa_lightning.planning import World

READ = ("x", "y", "block_x", "block_y", "block_cos", "block_sin")


def apart(push: PushT, found: Tensor, true: Tensor) -> dict[str, float]:
    """Mean distances of the disc and of the block, and the block's mean angle in degrees, of states (N, P)."""
    disc, block = ((found - true)[:, of].norm(dim=1) for of in (slice(0, 2), slice(4, 6)))
    turned = torch.rad2deg(push.turned(found, true))
    return {"disc": float(disc.mean()), "block": float(block.mean()), "degrees": float(turned.mean())}


@torch.no_grad()
def errors(world: World, push: PushT, states: Tensor, actions: Tensor, readout: Readout) -> dict[str, Any]:
    """Figures of one readout.

    Args:
        world: imagines.
        push: draws observations.
        states: (N, T, P) of walks.
        actions: (N, T - 1, A) between them, T - 1 a multiple of the world's frame skip.
        readout: from states of the world (n, D) to (n, P).
    """
    skip, ends = world.frame_skip, states[:, -1]
    found, columns = readout(encode(world, push, ends)), [push.state_names.index(name) for name in READ]
    r2 = 1 - (found - ends).square().mean(0) / ends.var(0, correction=0)
    past = world.past(world.encode(push.observe(states[:, 0])))
    imagined = world.imagine(past, actions.unsqueeze(1))[:, 0].mean(2)  # (N, (T - 1) / skip, D)
    return {
        "R2": {name: float(r2[column]) for name, column in zip(READ, columns, strict=True)},
        "true states": apart(push, found, ends),
        "1 step": apart(push, readout(imagined[:, 0]), states[:, skip]),
        f"{imagined.shape[1]} steps": apart(push, readout(imagined[:, -1]), ends),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure runs and print a table of each."""
    parser, args = arguments(argv, __doc__, "pusht", "Push-T", fit=1000, steps=5)
    found: dict[str, Any] = {}
    for run in args.runs:
        world = load_world(run)
        push = world.data().environment
        if not isinstance(push, PushT):
            parser.error(f"expected runs on Push-T, got one on {push.name}: {run}")
        generator = torch.Generator().manual_seed(args.seed)
        length = args.steps * world.frame_skip + 1
        drawn = push.wander(8 * args.walks, length, generator)
        kept = torch.nonzero(push.moved(drawn.states[:, 0], drawn.states[:, -1])).squeeze(1)[: args.walks]
        states, actions = drawn.states[kept], drawn.actions[kept]
        fitted = readouts(world, push, push.wander(args.fit, length, generator).states, args.updates)
        rows = {name: errors(world, push, states, actions, one) for name, one in fitted.items()}
        stay = {
            "1 step": apart(push, states[:, 0], states[:, world.frame_skip]),
            f"{args.steps} steps": apart(push, states[:, 0], states[:, -1]),
        }
        found[str(run)] = {**rows, "start": stay, "walks": len(kept)}
        print(f"{run}: {len(kept)} walks that moved the block")
        lines = [[name, *(f"{value:.3f}" for value in row["R2"].values())] for name, row in rows.items()]
        print(table(["R2", *READ], lines))
        lines = [
            [name, when, *(f"{value:.1f}" for value in row[when].values())]
            for name, row in {**rows, "start": stay}.items()
            for when in row
            if when != "R2"
        ]
        print(table(["read by", "after", "disc", "block", "degrees"], lines))
    write_json(args.json, {**vars(args), "runs": [str(run) for run in args.runs], **machine()}, found)
    return found


if __name__ == "__main__":
    main()
