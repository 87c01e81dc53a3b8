"""Environments of gymnasium: states that are set, against gymnasium itself; episodes that are collected."""

import numpy as np
import pytest
import torch

from jepa_lightning.cli.collect import collect as collect_command
from jepa_lightning.data import TrajectoryData
from jepa_lightning.data.trajectories.collect import collect
from jepa_lightning.environments import Box, Discrete, Gym, Tasks
from jepa_lightning.planning import DoNothing, RandomActions, run_episodes

gymnasium = pytest.importorskip("gymnasium", reason="needs gymnasium, of the extra world")
pytest.importorskip("pygame", reason="needs pygame, of the extra world")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pendulum():
    return Gym(id="Pendulum-v1", image_size=32, angles=[0], goal=[0, 0], measured=[0], radius=0.3)


def test_steps_and_rewards_are_gymnasiums(pendulum):
    env = gymnasium.make("Pendulum-v1").unwrapped
    walk = pendulum.wander(2, 12, generator())
    assert isinstance(pendulum.space, Box)
    assert walk.states.shape == (2, 12, 3)
    assert torch.equal(walk.actions[:, 0], walk.actions[:, 3])  # held
    rewards = pendulum.rewards(walk.states[:, :-1], walk.actions)
    for n in range(2):
        env.reset(seed=0)
        cos, sin, speed = walk.states[n, 0].tolist()
        env.state = np.array([np.arctan2(sin, cos), speed])
        for t in range(11):
            observed, reward, *_ = env.step(walk.actions[n, t].numpy())
            torch.testing.assert_close(walk.states[n, t + 1], torch.tensor(observed), atol=1e-4, rtol=0)
            assert float(rewards[n, t]) == pytest.approx(float(reward), abs=1e-3)


def test_what_is_seen_depends_on_the_state_alone(pendulum):
    walk = pendulum.wander(3, 3, generator(1))
    seen = pendulum.observe(walk.states)
    assert seen.shape == (3, 3, 3, 32, 32)
    assert seen.dtype == torch.uint8
    assert torch.equal(pendulum.observe(walk.states[1, 2]), seen[1, 2])
    assert not torch.equal(seen[0, 0], seen[1, 0])


def test_the_state_itself_may_be_what_is_seen(pendulum):
    numbers = Gym(id="Pendulum-v1", pictures=False, angles=[0], goal=[0, 0])
    walk = pendulum.wander(3, 3, generator(1))
    assert torch.equal(numbers.observe(walk.states), walk.states)
    assert numbers.observe(walk.states.double()).dtype == torch.float32


def test_goals_and_distances(pendulum):
    tasks = pendulum.tasks(4, generator())
    torch.testing.assert_close(tasks.goal, torch.tensor([1.0, 0.0, 0.0]).expand(4, 3))
    near = torch.tensor([[np.cos(0.2), np.sin(0.2), 5.0], [-1.0, 0.0, 0.0]], dtype=torch.float32)
    torch.testing.assert_close(pendulum.distance(near, tasks.goal[:2]), torch.tensor([2 * np.sin(0.1), 2.0]).float())
    assert pendulum.reached(near, tasks.goal[:2]).tolist() == [True, False]
    walking = Gym(id="Pendulum-v1", image_size=32, angles=[0], away=5)
    drawn = walking.tasks(2, generator())
    torch.testing.assert_close(drawn.goal, walking.wander(2, 6, generator()).states[:, -1])


def test_choices_and_states_without_angles():
    cart = Gym(id="CartPole-v1", image_size=16)
    assert isinstance(cart.space, Discrete)
    walk = cart.wander(2, 5, generator())
    env = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    env.state = walk.states[0, 0].double().numpy()
    observed, *_ = env.step(int(walk.actions[0, 0].argmax()))
    torch.testing.assert_close(walk.states[0, 1], torch.tensor(observed), atol=1e-5, rtol=0)


def test_an_episode_goes_on_after_its_goal_and_rewards_add_up(pendulum):
    up = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    tasks = Tasks(up, torch.tensor([1.0, 0.0, 0.0]).expand(2, 3))
    found = run_episodes(pendulum, tasks, DoNothing(), budget=6)
    assert found.steps.tolist() == [1, 0]
    assert found.decisions == 12
    state, total = up, torch.zeros(2)
    for _ in range(6):
        total += pendulum.rewards(state, torch.zeros(2, 1))
        state = pendulum.step(state, torch.zeros(2, 1))
    torch.testing.assert_close(found.returns, total)
    summary = found.summary()
    assert summary["return"] == pytest.approx(float(total.mean()))
    assert summary["return_interval"][0] < summary["return"] < summary["return_interval"][1]
    assert run_episodes(pendulum, tasks, RandomActions(), budget=2).returns.shape == (2,)


def test_episodes_are_collected_and_read(tmp_path, capsys):
    collect_command(
        ["Pendulum-v1", str(tmp_path), "--episodes=5", "--length=9", "--image_size=16", "--val_fraction=0.2"]
    )
    said = capsys.readouterr().out
    assert "5 episodes, 45 observations\nreturn of random actions -" in said
    data = TrajectoryData(root=str(tmp_path), key="image", window=6, batch_size=2, num_workers=0)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 6, 3, 16, 16)
    assert batch["actions"].shape == (2, 5, 1)
    train = data.load()["train"].episodes
    assert [len(train), len(data.load()["val"].episodes)] == [4, 1]
    episode = train[0]
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    cos, sin, speed = episode.labels["state"][0].tolist()
    env.state = np.array([np.arctan2(sin, cos), speed])
    for t in range(8):
        observed, reward, *_ = env.step(episode.actions[t].numpy())
        torch.testing.assert_close(episode.labels["state"][t + 1], torch.tensor(observed), atol=1e-4, rtol=0)
        assert float(episode.labels["reward"][t]) == pytest.approx(float(reward), abs=1e-3)


def test_episodes_that_end_early_are_shorter(tmp_path):
    found = collect("CartPole-v1", tmp_path, episodes=4, image_size=8, hold=1)
    with np.load(tmp_path / "train.npz") as train:
        lengths = train["episode_lengths"]
        assert train["actions"].shape == (lengths.sum(), 2)
        assert (train["actions"].sum(1) == 1).all()
        assert lengths.max() < 200
        assert found["return"] > 5


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected an id without a module, got some:Env-v0"):
        Gym(id="some:Env-v0")
    with pytest.raises(ValueError, match=r"such as Pendulum-v1: Environment `Nowhere` doesn't exist"):
        collect("Nowhere-v0", tmp_path)
    with pytest.raises(ValueError, match="expected a goal of 2 numbers"):
        Gym(id="Pendulum-v1", goal=[0])
    with pytest.raises(ValueError, match="expected angles below 2"):
        Gym(id="Pendulum-v1", angles=[2])
    with pytest.raises(ValueError, match="expected at least 2 episodes"):
        collect("Pendulum-v1", tmp_path, episodes=1)


def test_a_state_that_cannot_be_set(monkeypatch):
    monkeypatch.setattr("jepa_lightning.environments.gym.make", lambda name: _Stateless())
    with pytest.raises(ValueError, match="record episodes with jepa-collect --env Other-v0"):
        Gym(id="Other-v0")


class _Stateless:
    action_space = gymnasium.spaces.Discrete(2)
    unwrapped = None

    def reset(self, seed):
        return None, {}
