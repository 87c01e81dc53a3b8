"""Wrappers that hand a frozen encoder's states to reinforcement learning: against the encoder itself, and gymnasium."""

import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from pages import ROOT

import jepa_lightning
from jepa_lightning import JEPA
from jepa_lightning.cli.fit import fit
from jepa_lightning.data.trajectories import Observations
from jepa_lightning.encoders import ConvEncoder
from jepa_lightning.loading import from_runs
from jepa_lightning.planning import World
from jepa_lightning.predictors import ResidualPredictor
from jepa_lightning.pretexts import Rollout
from modalities.image import Image

gymnasium = pytest.importorskip("gymnasium", reason="needs gymnasium, of the extra world")
pytest.importorskip("pygame", reason="needs pygame, of the extra world")

from gymnasium.utils.env_checker import check_env  # noqa: E402
from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402

from jepa_lightning.environments.gymnasium import shrunk  # noqa: E402
from jepa_lightning.rl import LatentObservation, LatentVectorObservation, PictureObservation  # noqa: E402
from jepa_lightning.rl.states import loaded  # noqa: E402


class Counter(gymnasium.Env):
    """Shows how many steps it has made as the brightness of an image; ends after a few."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, shape=(16, 16, 3), ends=4):
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.ends = ends

    def shown(self):
        return np.full(self.observation_space.shape, 10 + 20 * self.count, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.shown(), {}

    def step(self, action):
        self.count += 1
        return self.shown(), 1.0, self.count == self.ends, False, {}


def world(*, channels=3, history=2, skip=1):
    torch.manual_seed(0)
    modality = Image(image_size=16, patch_size=16, channels=channels, encoder=partial(ConvEncoder, dim=4, width=2))
    jepa = JEPA(modality, pretext=Rollout(action_dim=2 * skip, history=history), predictor=ResidualPredictor)
    return World(jepa, observations=Observations("image", mean=0.5, std=0.3), frame_skip=skip)


def state(found, count, channels=3):
    """What a world makes of the Counter's image at a count."""
    image = torch.full((1, channels, 16, 16), 10 + 20 * count, dtype=torch.uint8)
    return found.encode(image).flatten().numpy()


def expected(found, counts):
    """States of several observations behind each other, None for those before an episode."""
    return np.concatenate([np.zeros(4, np.float32) if n is None else state(found, n) for n in counts])


def close(one, other):
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_states_are_the_worlds_and_forgotten_at_a_reset():
    found = world()
    env = LatentObservation(Counter(), found)
    assert env.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (8,), np.float32)
    for _ in range(2):
        told, _ = env.reset()
        close(told, expected(found, [None, 0]))
        close(env.step(0)[0], expected(found, [0, 1]))
        told, reward, terminated, truncated, _ = env.step(1)
        close(told, expected(found, [1, 2]))
        assert (reward, terminated, truncated) == (1.0, False, False)
    assert told.dtype == np.float32
    assert not any(p.requires_grad for p in env.states.encoder.parameters())
    assert not np.allclose(state(found, 1), state(found, 2))


def test_states_lie_a_frame_skip_apart():
    found = world(skip=2)
    env = LatentObservation(Counter(ends=9), found, history=3)
    env.reset()
    for _ in range(3):
        told = env.step(0)[0]
    close(told, expected(found, [None, 1, 3]))
    for _ in range(2):
        told = env.step(0)[0]
    close(told, expected(found, [1, 3, 5]))


@pytest.mark.parametrize(("shape", "channels"), [((16, 16), 1), ((32, 32, 1), 1), ((3, 16, 16), 3), ((24, 24, 3), 1)])
def test_images_of_any_layout_come_in_the_models_size(shape, channels):
    found = world(channels=channels, history=1)
    close(LatentObservation(Counter(shape), found).reset()[0], state(found, 0, channels))


def test_gymnasium_finds_nothing_wrong():
    with warnings.catch_warnings():
        warnings.filterwarnings("error")
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version.*")
        warnings.filterwarnings("ignore", message=".*infinity.*")
        warnings.filterwarnings("ignore", message=".*Not able to test alternative render modes.*")
        check_env(LatentObservation(Counter(), world()))


def test_a_pendulum_is_seen_by_its_pictures():
    found = world(history=1)
    bare = gymnasium.make("Pendulum-v1", render_mode="rgb_array")
    env = LatentObservation(PictureObservation(bare, 16), found)
    env.reset(seed=3)
    told = env.step(np.array([2.0], np.float32))[0]
    bare.unwrapped.last_u = None  # the arrow, which is not part of the state
    close(told, found.encode(shrunk(bare.render(), (16, 16)).unsqueeze(0)).flatten().numpy())
    check_env(env, skip_render_check=True, skip_close_check=True)
    with pytest.raises(ValueError, match=r'made with render_mode="rgb_array", got None'):
        PictureObservation(gymnasium.make("Pendulum-v1"))


def vector(found, mode, ends=(2, 4)):
    envs = SyncVectorEnv([partial(Counter, ends=n) for n in ends], autoreset_mode=mode)
    return LatentVectorObservation(envs, found)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_environments_of_a_vector_are_encoded_together_and_forget_apart(mode):
    found, actions = world(), np.zeros(2, int)
    env = vector(found, mode)
    assert env.observation_space.shape == (2, 8)
    told, _ = env.reset()
    close(told, [expected(found, [None, 0])] * 2)
    env.step(actions)
    told, _, terminated, _, infos = env.step(actions)
    assert terminated.tolist() == [True, False]
    if mode == AutoresetMode.SAME_STEP:
        close(told, [expected(found, [None, 0]), expected(found, [1, 2])])
        close(infos["final_obs"][0], expected(found, [1, 2]))
        assert infos["final_obs"][1] is None
        close(env.step(actions)[0], [expected(found, [0, 1]), expected(found, [2, 3])])
        return
    close(told, [expected(found, [1, 2])] * 2)
    if mode == AutoresetMode.NEXT_STEP:
        close(env.step(actions)[0], [expected(found, [None, 0]), expected(found, [2, 3])])
        close(env.step(actions)[0], [expected(found, [0, 1]), expected(found, [3, 4])])
    else:
        told, _ = env.reset(options={"reset_mask": np.array([True, False])})
        close(told, [expected(found, [None, 0]), expected(found, [1, 2])])
        close(env.step(actions)[0], [expected(found, [0, 1]), expected(found, [2, 3])])


def test_a_folder_of_a_run_is_enough(short_run):
    folder = str(short_run("image")[0])
    encoder = jepa_lightning.load(folder)
    shape = (*encoder.modality.image_size, encoder.modality.channels)
    env = LatentObservation(Counter(shape), folder, history=2, device="cpu")
    env.reset()
    first, second = (encoder(np.full(shape, value, np.uint8)).numpy() for value in (10, 30))
    np.testing.assert_allclose(env.step(0)[0], np.concatenate([first, second]), atol=1e-4)


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="history must be at least 1, got 0"):
        LatentObservation(Counter(), world(), history=0)
    with pytest.raises(ValueError, match=r"expected observations that are arrays \(Box\), got Discrete\(16\)"):
        LatentObservation(gymnasium.make("FrozenLake-v1"), world())
    with pytest.raises((ValueError, OSError), match="nowhere"):
        LatentObservation(Counter(), str(tmp_path / "nowhere"))


def test_the_pages_example_of_stable_baselines3_trains_a_policy_and_not_the_encoder():
    pytest.importorskip("stable_baselines3")
    found, page = world(), (ROOT / "docs" / "world-models.md").read_text()
    example = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "import PPO" in block)
    frozen = [p.clone() for p in found.parameters()]
    names = {"found": found}
    assert example.count('"runs/world_pendulum"') == 1
    exec(example.replace('"runs/world_pendulum"', "found"), names)
    env, agent = names["env"], names["agent"]
    assert agent.num_timesteps == 128
    assert agent.observation_space.shape == (8,)
    assert all(torch.equal(a, b) for a, b in zip(frozen, env.states.encoder.parameters(), strict=True))
    assert env.action_space.contains(agent.predict(env.reset(seed=0)[0])[0])


@pytest.mark.parametrize("name", ["world", "image"])
def test_a_runs_checkpoint_is_read_once(tmp_path, monkeypatch, name):
    few = {"world": ["--data.episodes=8", "--data.length=13"], "image": ["--data.samples=32"]}[name]
    few += ["--data.batch_size=8", "--data.num_workers=0", "--probe.enabled=false", "--pictures.enabled=false"]
    few += ["--trainer.max_steps=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    fit(["--config", f"{name}.yaml", *few, f"--trainer.default_root_dir={tmp_path}"])
    seen, read = [], from_runs.read_checkpoint
    monkeypatch.setattr(from_runs, "read_checkpoint", lambda file: seen.append(file) or read(file))
    found = loaded(tmp_path)
    assert len(seen) == 1
    if name == "world":
        expected = jepa_lightning.load_world(tmp_path)
        shown = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
        assert torch.equal(found.encode(shown), expected.encode(shown))
        assert found.history == expected.history
    else:
        expected = jepa_lightning.load(tmp_path)
        state = expected.encoder.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in found.encoder.state_dict().items())
