"""Evaluate a world model by what an agent achieves with it. The flags of `jepa-plan` are the parameters of `plan`."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from jepa_lightning._version import __version__
from jepa_lightning.environments import Environment, Tasks
from jepa_lightning.evaluation.report.table import table as aligned
from jepa_lightning.planning.actor import Reactive
from jepa_lightning.planning.actor_training import ActorTraining
from jepa_lightning.planning.agent import Agent, Deliberate
from jepa_lightning.planning.belief import believed_and_achieved, believed_by_level, fit_readouts
from jepa_lightning.planning.cost import Cost, GoalDistance, WeightedSum
from jepa_lightning.planning.episodes import run_episodes, unsolved
from jepa_lightning.planning.film import check_pictures, write_films
from jepa_lightning.planning.learned_cost import fitted_to, learned
from jepa_lightning.planning.levels import TopDown
from jepa_lightning.planning.planners import CEM, Planner
from jepa_lightning.planning.policies import DoNothing, Oracle, Policy, RandomActions, StraightLine, Towards
from jepa_lightning.planning.surprise import detection
from jepa_lightning.planning.walks import encode_walks
from jepa_lightning.planning.world import World, load_world
from jepa_lightning.randomness import derive_seed
from jepa_lightning.run.checkpoints import Which, find_checkpoint
from jepa_lightning.run.writing import plain, replacing

EXPLAINED = {
    "world": "the agent, which sees observations alone",
    "untrained": "the same agent with the model before training",
    "actor": "state and goal to action, without planning (Mode-1)",
    "half": "the agent with half the samples",
    "half, from actor": "the agent with half the samples, its searches started from what the actor proposes",
    "nothing": "no action",
    "random": "random actions, each held",
    "straight line": "one random direction at full speed",
    "oracle": "the same planner with the true dynamics and distance; of a top-down planner the first level's, over all "
    "steps that the top level sees",
    "towards": "knows its place and the goal's, and no obstacle",
}


def plan(
    checkpoint: str | Path | World,
    *,
    environment: Environment | None = None,
    planner: Planner | None = None,
    cost: Cost | None = None,
    actor: ActorTraining | None = None,
    episodes: int = 100,
    budget: int = 40,
    execute: int = 4,
    seed: int = 0,
    controls: bool = True,
    video: int = 0,
    which: Which = "last",
    out: str | None = None,
    trust: Sequence[str] = (),
) -> dict[str, Any]:
    """Let an agent reach goals with a world model, beside what others reach, and write `plan.json`.

    Starts and goals are drawn from `seed`; tasks that are solved where they start are left out and counted. All rows
    have the same tasks. Choose settings with one seed, and report with another.

    Args:
        checkpoint: folder or checkpoint of a run, or a world that is loaded.
        environment: where to act; None: that of the run's data.
        planner: finds plans; `CEM` by default.
        cost: of imagined trajectories; `GoalDistance` by default. `TemporalDistance` and `TransitionEnergy` are fitted
            to the run's walks first, unless they are already, and for the control "untrained" to those of its states.
        actor: `Imagine`, `Imitate` or `Distil`: also train an actor on the run's walks, write it to `actor.pt` beside
            the report, and let it act without planning (Mode-1), and as the start of a planner with half the samples.
        episodes: number of tasks that are drawn.
        budget: steps of an episode.
        execute: actions of a plan that are done before the next one is made.
        seed: of the tasks, the planner and the controls.
        controls: also run what the agent is compared with; False for the agent alone.
        video: how many of the tasks are acted once more and written as GIFs, into `episodes` beside the report: what is
            seen, the way that the plan of the moment imagines, and the goal. Needs observations that are pictures.
        which: of a folder, the "last" checkpoint or the "best".
        out: file to write; None: `plan.json` in the run's folder, and nothing of a world that is loaded.
        trust: packages whose classes the run's configuration may name.

    Returns:
        What is written: `rows` by name, `first_plans`, `levels` of a top-down planner, `readout_r2`, `surprise`,
        `protocol`, and with `video` the `films`.

    Raises:
        ValueError: a setting is out of range, there is no environment to act in, or `video` is asked for where
            observations are no pictures.
    """
    if episodes < 1 or budget < 1 or video < 0:
        raise ValueError(
            f"episodes and budget must be at least 1 and video at least 0, got {episodes}, {budget} and {video}"
        )
    target = out if out is not None or isinstance(checkpoint, World) else str(plan_file(checkpoint))
    if video and target is None:
        raise ValueError("expected out, a file beside which films are written, with video of a world that is loaded")
    world = checkpoint if isinstance(checkpoint, World) else load_world(checkpoint, which=which, trust=trust)
    if environment is None:
        data = world.data()
        if data.root is not None:
            raise ValueError(f"expected an environment to act in, since the run's data are files, {data.root}: add one")
        environment = data.environment
    planner, cost = planner or CEM(), cost or GoalDistance()
    fits = not all(part.fitted for part in learned(cost))
    walks = encode_walks(world, world.data()) if actor is not None or fits else None
    scored, began = described(cost), time.process_time()
    if walks is not None and fits:
        cost = fitted_to(cost, world, walks, seed=derive_seed("cost", seed))
        scored["seconds"] = time.process_time() - began
    settings: dict[str, Any] = {"cost": cost, "execute": execute, "seed": seed, "budget": budget}
    drawn = environment.tasks(episodes, torch.Generator().manual_seed(derive_seed("tasks", seed)))
    tasks, solved = unsolved(environment, drawn)
    if not len(tasks.start):
        raise ValueError("expected tasks that are not solved where they start, got none: raise episodes")
    if video:
        check_pictures(environment, tasks)
    agent = Agent(world, environment.space, planner, **settings)
    policies: dict[str, Policy] = {"world": Deliberate(agent)}
    worlds = {"world": world}
    acting = None
    if actor is not None:
        assert walks is not None
        began = time.process_time()
        acting = actor(world, walks, environment.space, seed=derive_seed("actor", seed))
        trained = described(actor) | {"seconds": time.process_time() - began}
        fewer = halved(planner)
        policies["actor"] = Deliberate(Reactive(world, acting))
        policies["half"] = Deliberate(Agent(world, environment.space, fewer, **settings))
        policies["half, from actor"] = Deliberate(Agent(world, environment.space, fewer, actor=acting, **settings))
    if controls:
        if world.config is not None:
            worlds["untrained"] = world.untrained()
            own = refitted(cost, worlds["untrained"], seed=derive_seed("cost", seed))
            same = settings | {"cost": own}
            policies["untrained"] = Deliberate(Agent(worlds["untrained"], environment.space, planner, **same))
        policies |= {"nothing": DoNothing(), "random": RandomActions(seed=seed)}
        policies["straight line"] = StraightLine(seed=seed)
        flat = planner.flat(world) if isinstance(planner, TopDown) else planner
        policies["oracle"] = Oracle(flat, cost=cost, execute=execute, seed=seed)
        if environment.towards(tasks.start, tasks.goal) is not None:
            policies["towards"] = Towards()
    rows = {name: run_episodes(environment, tasks, p, budget=budget).summary() for name, p in policies.items()}
    levels = range(1, world.levels + 1 if isinstance(planner, TopDown) else 2)
    read: dict[str, Any] = {"samples": environment.walks, "seed": derive_seed("readout", seed)}
    readouts = fit_readouts(world, environment, levels, **read)
    report: dict[str, Any] = {
        "rows": rows,
        "first_plans": believed_and_achieved(agent, environment, tasks, readouts[1]),
        "levels": believed_by_level(agent, environment, tasks, readouts),
        "readout_r2": dict(zip(environment.state_names, map(float, readouts[1].r2), strict=True)),
        "surprise": {
            name: detection(one, environment, walks=environment.walks, seed=derive_seed("surprise", seed))
            for name, one in worlds.items()
        },
        "protocol": {
            "version": __version__,
            "checkpoint": None if isinstance(checkpoint, World) else str(find_checkpoint(Path(checkpoint), which)),
            "environment": described(environment),
            "goals": "observations of states drawn by the environment",
            "planner": described(planner),
            "cost": scored,
            "actor": None if acting is None else trained,
            "episodes": episodes,
            "solved_at_start": solved,
            "budget": budget,
            "execute": execute,
            "frame_skip": world.frame_skip,
            "levels": world.levels,
            "seed": seed,
            "rows": {name: EXPLAINED[name] for name in rows},
        },
    }
    if video and target is not None:
        shown = Tasks(tasks.start[:video], tasks.goal[:video])
        films: dict[str, Any] = {"folder": Path(target).parent / "episodes", "seed": derive_seed("film", seed)}
        report["films"] = write_films(agent, environment, shown, budget=budget, **films)
    if target is not None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(target)) as beside:
            beside.write_text(json.dumps(plain(report), indent=2) + "\n")
        if acting is not None:
            acting.save(Path(target).with_name("actor.pt"))
    return report


def refitted(cost: Cost, world: World, *, seed: int) -> Cost:
    """A cost whose learned costs, if there are any, are fitted to another world on the walks of its own data."""
    return fitted_to(cost, world, encode_walks(world, world.data()), seed=seed, again=True) if learned(cost) else cost


def halved(planner: Planner) -> Planner:
    """The planner with half the samples, or half the restarts.

    Raises:
        ValueError: it has neither, or no half of them.
    """
    fewer = copy.copy(planner)
    if isinstance(fewer, TopDown):
        fewer.planners = [halved(one) for one in fewer.planners]
        return fewer
    name = next((name for name in ("samples", "restarts") if hasattr(planner, name)), None)
    least = getattr(planner, "elites", 1)
    if name is None or getattr(planner, name) // 2 < least:
        raise ValueError(
            f"expected a planner with at least {2 * least} samples, of which half is tried with an actor, got "
            f"{described(planner)}"
        )
    setattr(fewer, name, getattr(planner, name) // 2)
    return fewer


def plan_file(checkpoint: str | Path) -> Path:
    """Where the report of a run goes: `plan.json` in its folder."""
    path = Path(checkpoint).expanduser()
    folder = path if path.is_dir() else path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return folder / "plan.json"


def described(part: Any) -> dict[str, Any]:
    """The class and the plain settings of a part, and of the planners and the cost in it."""

    def plainly(value: Any) -> Any:
        if isinstance(value, (Planner, Cost)):
            return described(value)
        return [plainly(one) for one in value] if isinstance(value, list) else value

    kinds = (str, int, float, bool, tuple, list, Planner, Cost)
    settings = {name: plainly(value) for name, value in vars(part).items() if isinstance(value, kinds)}
    if isinstance(part, WeightedSum):
        settings["costs"] = [described(cost) for cost in part.costs]
    return {"class": type(part).__name__} | {n: v for n, v in settings.items() if n[0] != "_" and n != "training"}


def table(report: Mapping[str, Any]) -> str:
    """The report for a person."""
    rows = []
    for name, row in report["rows"].items():
        low, high = (f"{100 * bound:.1f}" for bound in row["interval"])
        steps, plan_ = ("-" if row[key] is None else f"{row[key]:.1f}" for key in ("steps", "ms_a_plan"))
        success = f"{100 * row['success']:.1f}%"
        rows.append([name, success, f"[{low}, {high}]", steps, f"{row['ms_an_action']:.2f}", plan_])
        if "return" in row:
            around = ", ".join(f"{bound:.0f}" for bound in row["return_interval"])
            rows[-1] += [f"{row['return']:.0f}", f"[{around}]"]
    rewarded = ["return", "95% interval"] if "return" in report["rows"]["world"] else []
    lines = [aligned(["", "success", "95% interval", "steps", "ms an action", "ms a plan", *rewarded], rows)]
    first, protocol = report["first_plans"], report["protocol"]
    read = ", ".join(f"{name} {value:.2f}" for name, value in report["readout_r2"].items())
    lines += [
        "",
        *surprise_lines(report["surprise"]),
        f"first plans: {100 * first['believed']:.0f}% believed to arrive, {100 * first['achieved']:.0f}% arrive when "
        f"done blindly; {first['error']:.1f} apart at their ends",
        *level_lines(report["levels"]),
        f"what the state tells (R2, linear): {read}",
        f"{report['rows']['world']['episodes']} episodes of at most {protocol['budget']} steps, "
        f"{protocol['solved_at_start']} solved at the start left out",
    ]
    if protocol["frame_skip"] > 1:
        lines.append(f"the world imagines {protocol['frame_skip']} steps of the environment at once (frame skip)")
    if "films" in report:
        files = [film["file"] for film in report["films"]]
        lines.append(f"{len(files)} films: {files[0]}" + (f" to {Path(files[-1]).name}" if len(files) > 1 else ""))
    return "\n".join(lines)


def level_lines(levels: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each level believes of the first plans, highest first."""
    return [
        f"level {row['level']}: {row['horizon']} x {row['steps']} steps, from {row['before']:.2f} to "
        f"{row['planned']:.2f} off {'the goal' if row['goal'] else 'the next state of level ' + str(row['compared'])} "
        f"in level {row['compared']}; {100 * row['believed']:.0f}% believed to arrive"
        for row in levels
    ]


def surprise_lines(surprise: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """AUROC of broken transitions by what is wrong, a column for each world."""
    rows = []
    for name in surprise["world"]:
        cells = (found[name] for found in surprise.values())
        rows.append([name, *(f"{cell['auroc']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]" for cell in cells)])
    return [aligned(["surprise (AUROC)", *surprise], rows), ""] if rows else []
