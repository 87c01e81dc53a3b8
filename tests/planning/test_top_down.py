"""Planning from the top down: energies in loops, aims, skipped levels, a way that short plans do not see."""

import json

import pytest
import torch
from test_cost_level import hierarchy
from test_world import pictures, world
from toy_hierarchy import Angle, Bare, Circle, TrueRooms

from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.options import parse_words
from jepa_lightning.cli.plan import plan as plan_command
from jepa_lightning.environments import Disc, Tasks
from jepa_lightning.hierarchy.levels import MacroPrior
from jepa_lightning.planning import (
    CEM,
    MPPI,
    ActionPenalty,
    Agent,
    Deliberate,
    GoalDistance,
    Gradient,
    MacroActions,
    Planner,
    RandomShooting,
    Scene,
    TopDown,
    TopDownHorizon,
    load_world,
    run_episodes,
    shrinking_horizons,
)
from jepa_lightning.planning.plan import halved, plan, table


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def scene(found, batch=3, cost=None):
    past, goal = found.past(found.encode(pictures(batch))), found.encode_goal(pictures(batch, seed=1))
    return Scene(found, past, goal, cost or GoalDistance())


def descend(found, planner, *, batch=3, seed=0, cost=None):
    one = scene(found, batch, cost)
    return one, planner.descend(one, planner.spaces(found, Disc(3.0)), {}, generator(seed))


class Spy(Planner):
    """Keeps what it is given to start from, as the plan."""

    def __init__(self, *, horizon=1, hold=1):
        super().__init__(horizon=horizon, hold=hold)
        self.starts = []

    def search(self, energy, space, start, generator):
        self.starts.append(start)
        return start, energy(start.unsqueeze(1)).squeeze(1)


def test_horizons_shrink_from_the_top():
    assert [shrinking_horizons(call, 35, [5])[0] for call in range(35)] == [
        h for h in (5, 4, 3, 2, 1) for _ in range(7)
    ]
    found = [shrinking_horizons(call, 35, [4, 2, 5]) for call in range(35)]
    assert found[:28] == [(4, 2, h) for h in (5, 4, 3, 2) for _ in range(7)]
    assert found[28:] == [(4, 2, 1)] * 4 + [(4, 1, 1), (3, 1, 1), (2, 1, 1)]
    assert shrinking_horizons(99, 35, [4, 2, 5]) == found[-1]
    least = [shrinking_horizons(call, 10, [4, 1], [2, 1]) for call in range(10)]
    assert least == [(4, 1)] * 4 + [(3, 1)] * 3 + [(2, 1)] * 3
    for calls in (1, 2, 3):
        assert shrinking_horizons(0, calls, [4, 2, 5]) == (4, 2, 5)
    with pytest.raises(ValueError, match=r"horizons no shorter than \[2, 1\], got 0, 3 and \[1, 1\]"):
        shrinking_horizons(0, 3, [1, 1], [2, 1])


@pytest.mark.parametrize("reduce", ["min", "last"])
def test_each_levels_energy_is_that_of_its_states_re_encoded_one_by_one(reduce):
    found = hierarchy(depth=3, stride=[2, 3])
    levels = found.pretext.levels
    planner = TopDown(horizons=[4, 3, 2], search=CEM(samples=8, elites=2, hold=2))
    one, plans = descend(found, planner, cost=GoalDistance(reduce=reduce))
    assert [plan.level for plan in plans] == [3, 2, 1]
    assert [plan.compared for plan in plans] == [3, 3, 2]
    assert [plan.anchored for plan in plans] == [True, False, False]

    def apart(states, aim):
        d = [float((state - aim).square().mean().sqrt()) for state in states]
        return d[-1] if reduce == "last" else min(d) + 0.02 * sum(d) / len(d)

    for b in range(3):
        state = [one.past.states[b : b + 1, -1]]
        for level in levels:
            state.append(level.encoder(state[-1]))
        goal = levels[1].encoder(levels[0].encoder(one.goal[b]))
        way = levels[1].rollout(state[2], plans[0].plan.actions[b : b + 1])[0]
        assert float(plans[0].plan.energy[b]) == pytest.approx(apart(way, goal), rel=1e-4)
        assert float(plans[0].before[b]) == pytest.approx(apart(state[2], goal), rel=1e-4)
        below = levels[0].rollout(state[1], plans[1].plan.actions[b : b + 1])[0]
        assert float(plans[1].plan.energy[b]) == pytest.approx(apart([levels[1].encoder(below[2])], way[0]), rel=1e-4)
        first = found.imagine(one.past, plans[2].plan.actions.unsqueeze(1))[b, 0]
        seen = [levels[0].encoder(first[1]), levels[0].encoder(first[3])]
        assert float(plans[2].plan.energy[b]) == pytest.approx(apart(seen, below[0]), rel=1e-4)
    assert planner.horizons == (4, 3, 2)


def test_the_last_state_gives_way_to_the_goal_where_all_above_aim_at_it():
    found = hierarchy(depth=3, stride=2)
    kinds = {"search": CEM(samples=4, elites=2, hold=1), "ahead": 2}
    one, (_, middle, low) = descend(found, TopDown(horizons=[4, 2, 2], **kinds))
    for part, level in ((middle, 3), (low, 2)):
        assert part.anchored
        assert part.compared == level
        torch.testing.assert_close(part.aim, found.lift(one.goal, level=level))
    one, (top, middle, low) = descend(found, TopDown(horizons=[4, 2, 3], **kinds))  # the second state is not the last
    assert not middle.anchored
    assert not low.anchored  # the last one of level 2, which does not aim at the goal
    torch.testing.assert_close(middle.aim, top.states[:, 1])
    torch.testing.assert_close(low.aim, middle.states[:, 1])


def test_levels_of_horizon_1_are_skipped():
    found = hierarchy(depth=3, stride=2)
    one, plans = descend(found, TopDown(horizons=[4, 3, 1], search=CEM(samples=4, elites=2, hold=1)))
    assert [(plan.level, plan.compared, plan.anchored) for plan in plans] == [(2, 3, True), (1, 2, False)]
    torch.testing.assert_close(plans[0].aim, found.lift(one.goal, level=3))
    lifted = found.lift(plans[0].states, level=3, since=2)  # all of them, not every second one
    d = (lifted - plans[0].aim.unsqueeze(1)).square().mean((-1, -2)).sqrt()
    torch.testing.assert_close(plans[0].plan.energy, d.amin(1) + 0.02 * d.mean(1))


def test_with_all_levels_skipped_it_is_a_flat_plan_scored_in_the_highest():
    found = hierarchy(depth=3, stride=2)
    search = CEM(samples=16, horizon=6, hold=2)
    one, (plan,) = descend(found, TopDown(horizons=[6, 1, 1], search=search))
    flat = Scene(found, one.past, one.goal, GoalDistance(level=3))
    expected = search(flat, Disc(3.0), search.start(3, Disc(3.0)), generator())
    torch.testing.assert_close(plan.plan.actions, expected.actions)
    torch.testing.assert_close(plan.plan.energy, expected.energy)


@pytest.mark.parametrize(
    "search", [CEM(samples=64, hold=1), MPPI(samples=64, std=1.0, hold=1), RandomShooting(samples=256)]
)
def test_it_finds_the_way_that_a_flat_plan_as_short_does_not_see(search):
    found, turns = Circle(4), Angle()
    tasks = turns.tasks(20, generator())
    flat = CEM(samples=64, horizon=4, hold=1)
    short = run_episodes(turns, tasks, Deliberate(Agent(found, turns.space, flat)), budget=40)
    assert not short.reached.any()
    planner = TopDown(horizons=[4, 4], search=search)
    agent = Agent(found, turns.space, planner, budget=40)
    long = run_episodes(turns, tasks, Deliberate(agent), budget=40)
    assert long.reached.float().mean() >= 0.9
    assert long.plans == sum(-(-(n or 40) // 4) for n in long.steps.tolist())


def test_three_levels_of_which_the_top_alone_sees_the_goal():
    found, turns = Circle(2, 2), Angle()
    tasks = turns.tasks(20, generator())
    agent = Agent(found, turns.space, TopDown(horizons=[2, 2, 5], search=CEM(samples=64, hold=1)), execute=2)
    assert run_episodes(turns, tasks, Deliberate(agent), budget=40).reached.float().mean() >= 0.9


def test_gradients_through_the_levels():
    found, turns = Circle(4), Angle()
    start = turns.tasks(8, generator()).start
    tasks = Tasks(start, start + 2.0)  # not yet beyond the far side
    planner = TopDown(horizons=[4, 3], search=Gradient(restarts=4, iterations=60, std=1.0, hold=1))
    found = run_episodes(turns, tasks, Deliberate(Agent(found, turns.space, planner)), budget=12)
    assert found.reached.all()


def test_the_plan_of_an_episode_is_that_of_the_episode_by_itself():
    """Without draws: what is drawn for an episode depends on how many there are, and nothing else does."""
    found = hierarchy(depth=3, stride=2)
    planner = TopDown(horizons=[4, 2, 3], search=Gradient(restarts=1, iterations=5, hold=2))
    together, plans = descend(found, planner)
    for b in range(3):
        past = found.past(together.past.states[b : b + 1, -1])
        alone = Scene(found, past, together.goal[b : b + 1], GoalDistance())
        for one, many in zip(
            planner.descend(alone, planner.spaces(found, Disc(3.0)), {}, generator()), plans, strict=True
        ):
            torch.testing.assert_close(one.plan.actions[0], many.plan.actions[b], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("execute", [2, 4])
def test_searches_begin_with_what_is_left_of_the_last_plans(execute):
    found, turns = Circle(4), Angle()
    tasks = turns.tasks(4, generator())
    planner = TopDown(horizons=[8, 3], search=Spy(), above=[Spy()])
    agent = Agent(found, turns.space, planner, execute=execute)
    low, high = planner.planners
    agent.reset(tasks.goal)
    drawn = {1: turns.space.sample((4, 8), generator(1)), 2: turns.space.sample((4, 3), generator(2))}
    agent.act(tasks.start)
    for level, last in agent.loop.last.items():  # as if it had found these
        last.actions.copy_(drawn[level])
    for _ in range(execute - 1):
        agent.act(None)
    agent.keep(torch.tensor([0, 3]))
    agent.act(tasks.start[[0, 3]])
    rest = torch.cat([drawn[1][[0, 3], execute:], torch.zeros(2, execute, 1)], dim=1)
    torch.testing.assert_close(low.starts[-1], rest)
    above = drawn[2][[0, 3]]
    shifted = torch.cat([above[:, 1:], torch.zeros(2, 1, 1)], dim=1)
    torch.testing.assert_close(high.starts[-1], shifted if execute == 4 else (above + shifted) / 2)  # of 4 steps
    agent.reset(tasks.goal)
    agent.act(tasks.start)
    assert not high.starts[-1].any()


@pytest.mark.long
def test_the_opposite_room_with_true_dynamics():
    rooms = Bare(rooms="opposite")
    tasks = rooms.tasks(50, generator(1))

    def reached(planner, execute):
        agent = Agent(TrueRooms(rooms, 8), rooms.space, planner, execute=execute)
        return float(run_episodes(rooms, tasks, Deliberate(agent), budget=100).reached.float().mean())

    search = CEM(hold=2)
    assert reached(CEM(horizon=8, hold=2), 8) < 0.85
    for execute in (4, 8):
        assert reached(TopDown(horizons=[8, 5], search=search), execute) >= 0.95


def test_horizons_of_an_agent_shrink_to_what_it_executes():
    found, turns = Circle(4), Angle()
    tasks = turns.tasks(2, generator())
    for budget, shrink in ((40, True), (None, True), (40, False)):
        planner = TopDown(horizons=[8, 3], search=CEM(samples=4, elites=2, hold=2), shrink=shrink)
        agent = Agent(found, turns.space, planner, execute=4, budget=budget)
        agent.reset(tasks.goal)
        seen = []
        for step in range(40):
            if agent.loop.due:
                seen.append(agent.loop.horizons)
            agent.act(tasks.start if step % 4 == 0 else None)
        fixed = [(8, 3)] * 10
        assert seen == ([(8, 3)] * 4 + [(8, 2)] * 3 + [(8, 1), (6, 1), (4, 1)] if budget and shrink else fixed)
        assert agent.loop.levels[-1].plan.actions.shape[1] == seen[-1][0]


def test_a_proposal_is_taken_where_it_is_better():
    found, turns = Circle(4), Angle()
    planner = TopDown(horizons=[4, 2], search=Spy(), above=[Spy()])
    loop = TopDownHorizon(planner, turns.space, found)
    start, goal = torch.tensor([[0.5], [0.5]]), torch.tensor([[1.5], [1.5]])
    one = Scene(found, found.past(found.encode(start)), found.encode(goal), GoalDistance())
    good, bad = torch.full((1, 4, 1), 0.2), torch.full((1, 4, 1), -0.2)
    loop.act(lambda: one, 2, proposal=lambda: torch.cat([good, bad]))
    torch.testing.assert_close(planner.planners[0].starts[0], torch.cat([good, 0 * bad]))


def test_called_as_any_planner():
    found = hierarchy(depth=2, stride=2)
    planner = TopDown(horizons=[4, 2], search=CEM(samples=8, elites=2, hold=2))
    one = scene(found)
    start = planner.start(3, Disc(3.0))
    plan = planner(one, Disc(3.0), start, generator())
    assert plan.actions.shape == (3, 4, 2)
    expected = planner.descend(one, planner.spaces(found, Disc(3.0)), {}, generator())[-1].plan
    torch.testing.assert_close(plan.actions, expected.actions)
    with pytest.raises(ValueError, match="got an energy that knows none"):
        planner(lambda actions: actions.sum((-1, -2)), Disc(3.0), start, generator())


def test_macro_actions_stay_where_training_was():
    prior = MacroPrior(
        mean=torch.tensor([1.0, 0.0]),
        std=torch.tensor([0.5, 0.0]),
        low=torch.tensor([0.0, 0.0]),
        high=torch.tensor([1.5, 0.0]),
    )
    space = MacroActions(prior)
    drawn = space.sample((4000,), generator())
    assert (drawn[:, 0] >= 0).all()
    assert (drawn[:, 0] <= 1.5).all()
    assert abs(float(drawn[:, 0].median()) - 1) < 0.05
    assert (drawn[:, 1] == 0).all()
    assert space.scale[1] > 0  # a planner divides by it
    torch.testing.assert_close(space.project(torch.tensor([[9.0, 9.0]])), torch.tensor([[1.5, 0.0]]))


def test_the_flat_planner_reaches_as_far_as_the_top_level_sees():
    planner = TopDown(horizons=[4, 2, 5], search=CEM(hold=4))
    assert planner.flat(Circle(2, 3)).horizon == 32  # 5 x 6 steps, and whole held actions


def test_what_is_refused():
    found, space = hierarchy(depth=2, stride=2), Disc(3.0)
    with pytest.raises(ValueError, match=r"of 2 levels or more, got \[4\]"):
        TopDown(horizons=[4])
    with pytest.raises(ValueError, match="a planner for each of 2 levels above the first, got 1"):
        TopDown(horizons=[4, 2, 2], above=[CEM()])
    with pytest.raises(ValueError, match="ahead must be at least 1, got 0"):
        TopDown(horizons=[4, 2], ahead=0)
    with pytest.raises(ValueError, match="a multiple of hold, got 6 and 4"):
        TopDown(horizons=[6, 2])
    with pytest.raises(ValueError, match="HierarchicalRollout, got one of Rollout: use a planner of one level"):
        Agent(world(), space, TopDown(horizons=[4, 2]))
    with pytest.raises(ValueError, match=r"at most 2 levels, which the world has, got \(4, 2, 2\)"):
        Agent(found, space, TopDown(horizons=[4, 2, 2]))
    with pytest.raises(ValueError, match="horizon of level 1 that is a multiple of 2, which one step of level 2"):
        Agent(found, space, TopDown(horizons=[5, 2], search=CEM(hold=1)))
    with pytest.raises(ValueError, match="expected to execute 1 to 4 actions, the horizon, got 8"):
        Agent(found, space, TopDown(horizons=[4, 2]), execute=8)
    with pytest.raises(ValueError, match="which skip a level, at the top alone"):
        Agent(hierarchy(depth=3, stride=[2, 1]), space, TopDown(horizons=[4, 1, 2]))
    for cost in (GoalDistance(level=2), ActionPenalty()):
        agent = Agent(found, space, TopDown(horizons=[4, 2]), cost=cost)
        agent.reset(pictures(seed=1))
        with pytest.raises(
            ValueError, match="expected the cost GoalDistance with level 1, .* got " + type(cost).__name__
        ):
            agent.act(pictures())


def test_the_report_tells_what_each_level_believes():
    turns = Angle()
    turns.walks = 400
    planner = TopDown(horizons=[4, 4], search=CEM(samples=64, hold=1))
    report = plan(Circle(4), environment=turns, planner=planner, episodes=10, budget=40)
    high, low = report["levels"]
    assert (high["level"], high["horizon"], high["steps"], high["goal"], high["compared"]) == (2, 4, 4, True, 2)
    assert (low["level"], low["horizon"], low["steps"], low["goal"], low["compared"]) == (1, 4, 1, False, 2)
    assert high["planned"] < 0.75 * high["before"]
    assert low["planned"] < 0.1 * low["before"]
    said = table(report)
    assert "level 2: 4 x 4 steps, from " in said
    assert " off the goal in level 2; " in said
    assert "level 1: 4 x 1 steps, from " in said
    assert " off the next state of level 2 in level 2; 0% believed to arrive" in said
    written = report["protocol"]["planner"]
    assert (written["class"], written["ahead"], written["shrink"]) == ("TopDown", 1, True)
    assert [(one["class"], one["samples"], one["horizon"]) for one in written["planners"]] == [("CEM", 64, 4)] * 2
    assert report["rows"]["world"]["success"] == 1
    assert report["rows"]["oracle"]["success"] == 1
    assert report["rows"]["world"]["ms_a_plan"] > 0
    flat = plan(Circle(4), environment=turns, planner=CEM(hold=1), episodes=10, budget=4, controls=False)
    assert flat["levels"] == []
    assert "level 1" not in table(flat)


def test_half_the_samples_of_each_level():
    fewer = halved(TopDown(horizons=[4, 4], search=CEM(samples=64), above=[MPPI(samples=32)]))
    assert [one.samples for one in fewer.planners] == [32, 16]


def test_what_is_typed_in_a_shell():
    words = ["--checkpoint", "run", "--planner", "TopDown", "--planner.horizons", "[8,4]", "--planner.search", "CEM"]
    words += ["--planner.search.hold", "2", "--planner.above", "[{class_path: Gradient, init_args: {std: 1.0}}]"]
    found = parse_words("jepa-plan", plan, words)[0]["planner"]
    assert found.horizons == (8, 4)
    assert [type(one).__name__ for one in found.planners] == ["CEM", "Gradient"]
    assert [one.hold for one in found.planners] == [2, 1]
    assert found.planners[1].std == 1.0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of two levels."""
    folder = tmp_path_factory.mktemp("levels")
    words = ["--model.pretext", "HierarchicalRollout", "--model.pretext.stride", "4", "--data.window=9"]
    words += ["--data.episodes=16", "--data.windows=2", "--data.batch_size=8", "--trainer.max_epochs=1"]
    words += ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    fit(["--config", "world.yaml", *words, "--trainer.default_root_dir", str(folder)])
    return folder


def test_the_command_plans_from_the_top_down(run, capsys):
    words = ["--checkpoint", str(run), "--planner=TopDown", "--planner.horizons=[8,2]", "--planner.search=CEM"]
    words += ["--planner.search.samples=8", "--planner.search.elites=2", "--episodes=4", "--budget=8"]
    plan_command(words)
    said = capsys.readouterr().out
    assert "level 2: 2 x 4 steps" in said
    report = json.loads((run / "plan.json").read_text())
    assert list(report["rows"]) == ["world", "untrained", "nothing", "random", "straight line", "oracle", "towards"]
    assert report["protocol"]["levels"] == 2
    found = load_world(run)
    fresh = found.untrained()
    trained, untrained = (part.pretext.levels[0].encoder.mlp[0].weight for part in (found, fresh))
    assert not torch.equal(trained, untrained)
    assert torch.equal(found.pretext.action_std, fresh.pretext.action_std)
    for more, told in (("[6,2]", "horizon of level 1 that is a multiple of 4"), ("[8,2,2]", "at most 2 levels")):
        with pytest.raises(SystemExit) as stop:
            plan_command([*words[:3], f"--planner.horizons={more}", "--planner.search=CEM", "--planner.search.hold=2"])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert told in error
        assert "Traceback" not in error
