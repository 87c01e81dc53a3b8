"""Whether a predictor learns that a wall stops a dot: with perfect perception, and a planner that looks for holes.

    python -m benchmarks.contact --threads 1

The state is the true one of Two Rooms (x, y, the wall's x, the door's y), so that nothing but the dynamics is learned:
`ResidualPredictor` as it was, with sines, with a gate, and with both, each trained on the same windows of 4,000 walks
(every second one leans on walls), 4 steps in a row, by `--updates` batches of 128. Then the planner of
recipes/world_two_rooms reaches goals in the other room, at most 100 steps. Columns: the error of one step, its 99th
percentile, and that after 8 held steps, in the world's units; how many first plans are believed to arrive, and arrive
when they are done blindly; the goals that are reached, planning anew every 8 steps, with Wilson's interval. The last
row is the true dynamics.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import at_least, machine, options, table, write_json
from jepa_lightning.encoders import SinCosPositions, TokenSpec
from jepa_lightning.environments import Tasks, TwoRooms
from jepa_lightning.planning import CEM, GoalDistance
from jepa_lightning.planning.episodes import run_episodes, unsolved
from jepa_lightning.planning.planners.base import Energy
from jepa_lightning.planning.policies import Oracle, simulate
from jepa_lightning.predictors import Past, PredictorSpec, ResidualPredictor, rollout
from jepa_lightning.predictors.rollout import frame_spec

VARIANTS: dict[str, dict[str, Any]] = {
    "MLP": {},
    "gate": {"gate": True},
    "sines": {"sines": 128},
    "sines and gate": {"sines": 128, "gate": True},
}
STEPS, BATCH = 4, 128
_CENTRE, _SCALE, _FASTEST = 32.0, torch.tensor([17.0, 17.0, 3.5, 10.4]), 1.5


def seen(states: Tensor) -> Tensor:
    """States (..., 4) with a spread of about one."""
    return (states - _CENTRE) / _SCALE


def imagine(predictor: ResidualPredictor, states: Tensor, actions: Tensor) -> Tensor:
    """States (N, H, 4) that follow (N, 4) under (N, H, 2), in the world's units; the layout stays."""
    found = rollout(predictor, Past(states=seen(states)[:, None, None]), actions / _FASTEST)[:, :, 0]
    moved = found[..., :2] * _SCALE[:2] + _CENTRE
    return torch.cat([moved, states[:, None, 2:].expand(-1, actions.shape[1], -1)], dim=-1)


class Learned(Oracle):
    """A planner with learned dynamics of the true state.

    Args:
        predictor: of the next state.
        planner: finds plans.
    """

    def __init__(self, predictor: ResidualPredictor, planner: CEM) -> None:
        super().__init__(planner, cost=GoalDistance(mean_weight=0.0), execute=8)
        self.predictor = predictor

    def energy(self, states: Tensor) -> Energy:
        """The energy of actions (B, C, H, A) in states (B, P)."""

        def energy(actions: Tensor) -> Tensor:
            start = states.repeat_interleave(actions.shape[1], 0)
            way = imagine(self.predictor, start, actions.flatten(0, 1)).unflatten(0, actions.shape[:2])
            return self.cost.over_time(self.environment.distance(way, self.goals[:, None, None].expand_as(way)))

        return energy


def train(rooms: TwoRooms, settings: dict[str, Any], *, walks: int, updates: int) -> ResidualPredictor:
    """Fit a predictor on windows of walks: AdamW, a cosine from 0.001 to 0."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    token = frame_spec(TokenSpec(shape=(1,), grid=None, positions=SinCosPositions), pooled=True)
    predictor = ResidualPredictor(PredictorSpec(dim=4, out=4, token=token, condition=2), depth=3, **settings)
    found = rooms.wander(walks, 32, generator)
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=1e-3, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        which = torch.randint(walks, (BATCH,), generator=generator)
        when = torch.randint(32 - STEPS, (BATCH,), generator=generator)
        ahead = when.unsqueeze(1) + torch.arange(STEPS)
        way = seen(found.states[which.unsqueeze(1), ahead + 1])
        past = Past(states=seen(found.states[which, when])[:, None, None])
        guess = rollout(predictor, past, found.actions[which.unsqueeze(1), ahead] / _FASTEST)[:, :, 0]
        optimizer.zero_grad()
        (guess - way).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(predictor.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return predictor.eval().requires_grad_(False)


@torch.no_grad()
def score(rooms: TwoRooms, tasks: Tasks, policy: Oracle, *, budget: int) -> dict[str, Any]:
    """First plans, believed and achieved, and what becomes of episodes."""
    policy.reset(rooms, tasks)
    policy.act(tasks.start)
    plan = policy.loop.first
    assert plan is not None
    true = simulate(rooms, tasks.start, plan.actions)
    believed = true if not isinstance(policy, Learned) else imagine(policy.predictor, tasks.start, plan.actions)

    def arrive(way: Tensor) -> float:
        return float(rooms.reached(way, tasks.goal.unsqueeze(1).expand_as(way)).any(1).float().mean())

    summary = run_episodes(rooms, tasks, policy, budget=budget).summary()
    kept = {name: summary[name] for name in ("success", "interval", "steps")}
    return {"believed": arrive(believed), "achieved": arrive(true), **kept}


@torch.no_grad()
def apart(rooms: TwoRooms, predictor: ResidualPredictor, count: int) -> dict[str, float]:
    """Errors of the place after one step of walks, and after 8 steps of a held action."""
    generator = torch.Generator().manual_seed(1)
    walks = rooms.wander(count, 2, generator)
    one = (imagine(predictor, walks.states[:, 0], walks.actions) - walks.states[:, 1:])[:, 0, :2].norm(dim=-1)
    held = walks.actions.repeat(1, 8, 1)
    true = simulate(rooms, walks.states[:, 0], held)
    eight = (imagine(predictor, walks.states[:, 0], held) - true)[:, -1, :2].norm(dim=-1)
    return {"1 step": float(one.mean()), "99%": float(one.quantile(0.99)), "8 steps": float(eight.mean())}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train and score each variant, and print the table."""
    parser = options(__doc__, "contact")
    parser.add_argument("--updates", type=int, default=5000, help="of each predictor")
    parser.add_argument("--walks", type=int, default=4000, help="to train on")
    parser.add_argument("--episodes", type=int, default=100, help="tasks")
    parser.add_argument("--budget", type=int, default=100, help="steps of an episode")
    parser.add_argument("--seed", type=int, default=2, help="of the tasks")
    args = parser.parse_args(argv)
    at_least(parser, args, updates=1, walks=2, episodes=1, budget=1, threads=1)
    torch.set_num_threads(args.threads)
    rooms = TwoRooms(rooms="other", walk="both")
    tasks, _ = unsolved(rooms, rooms.tasks(args.episodes, torch.Generator().manual_seed(args.seed)))
    planner = CEM(samples=128, std=2.0, horizon=40, hold=8)
    rows: dict[str, Any] = {}
    for name, settings in VARIANTS.items():
        began = time.process_time()
        predictor = train(rooms, settings, walks=args.walks, updates=args.updates)
        spent = time.process_time() - began
        rows[name] = {"seconds": spent, **apart(rooms, predictor, 5000)}
        rows[name] |= score(rooms, tasks, Learned(predictor, planner), budget=args.budget)
        print(name, rows[name], flush=True)
    true = Oracle(planner, cost=GoalDistance(mean_weight=0.0), execute=8)
    rows["true dynamics"] = {"seconds": 0.0, "1 step": 0.0, "99%": 0.0, "8 steps": 0.0}
    rows["true dynamics"] |= score(rooms, tasks, true, budget=args.budget)
    lines = []
    for name, row in rows.items():
        low, high = (f"{100 * bound:.0f}" for bound in row["interval"])
        distances = [f"{row[key]:.3f}" for key in ("1 step", "99%", "8 steps")]
        shares = [f"{100 * row[key]:.0f}%" for key in ("believed", "achieved")]
        lines.append(
            [name, f"{row['seconds']:.0f}", *distances, *shares, f"{100 * row['success']:.0f}% [{low}, {high}]"]
        )
    print(table(["", "seconds", "1 step", "99%", "8 steps", "believed", "achieved", "reached"], lines))
    write_json(args.json, {**vars(args), **machine()}, rows)
    return rows


if __name__ == "__main__":
    main()
