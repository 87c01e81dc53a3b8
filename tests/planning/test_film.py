"""Films of episodes: what is noted of them against an agent that is led by hand, the decoder, and the files."""

from functools import partial

import pytest
import torch
from PIL import Image as Pictures
from PIL import ImageSequence
from toy_hierarchy import Angle, Circle

from jepa_lightning import JEPA
from jepa_lightning.data.trajectories import Observations
from jepa_lightning.encoders import ConvEncoder
from jepa_lightning.environments import TwoRooms
from jepa_lightning.planning import CEM, Agent, World, film, run_episodes
from jepa_lightning.planning.film import Watched, fit_decoder, trail
from jepa_lightning.planning.plan import plan, table
from jepa_lightning.predictors import ResidualPredictor
from jepa_lightning.pretexts import Rollout
from jepa_lightning.randomness import derive_seed
from modalities.image import Image


@pytest.fixture(scope="module")
def world():
    torch.manual_seed(0)
    image = Image(image_size=16, patch_size=16, channels=1, encoder=partial(ConvEncoder, dim=64, width=8))
    jepa = JEPA(image, pretext=Rollout(action_dim=2), predictor=ResidualPredictor)
    jepa.pretext.estimate([{"actions": torch.randn(4, 9, 2)}])
    with torch.no_grad():
        for parameter in jepa.predictor.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return World(jepa, observations=Observations("image", mean=0.1, std=0.25))


@pytest.fixture
def rooms(monkeypatch):
    """A small environment, and few updates of the decoder."""
    found = TwoRooms(image_size=16)
    found.walks = 40
    monkeypatch.setattr(film, "fit_decoder", partial(fit_decoder, updates=20))
    return found


def agent(world, rooms):
    return Agent(world, rooms.space, CEM(samples=8, elites=2, iterations=2, horizon=8), execute=4)


def test_what_is_noted_is_what_was_done_and_imagined(world, rooms):
    tasks = rooms.tasks(3, torch.Generator().manual_seed(0))
    near = tasks.start.clone()
    near[:, :2] = tasks.goal[:, :2]
    near[0] = rooms.step(near[0], torch.tensor([2.5, 0.0]))
    tasks = type(tasks)(torch.stack([tasks.start[0], near[0], tasks.start[2]]), tasks.goal[[0, 0, 2]])
    watched = Watched(agent(world, rooms))
    outcomes = run_episodes(rooms, tasks, watched, budget=10)

    led = agent(world, rooms)  # the same by hand
    led.reset(rooms.observe(tasks.goal))
    state, running = tasks.start, [0, 1, 2]
    states, actions, ways, following = ([[] for _ in range(3)] for _ in range(4))
    for step in range(10):
        done = led.act(rooms.observe(state))
        imagined = world.imagine(led.memory.past(world.positions), led.loop.plan.actions.unsqueeze(1))[:, 0]
        for place, episode in enumerate(running):
            states[episode].append(state[place])
            actions[episode].append(done[place])
            if step % 4 == 0:
                ways[episode].append(imagined[place])
            following[episode].append(step // 4)
        state = rooms.step(state, rooms.space.project(done))
        left = torch.nonzero(~rooms.reached(state, tasks.goal[running])).squeeze(1)
        running, state = [running[place] for place in left], state[left]
        led.keep(left)
    assert outcomes.steps.tolist() == [len(states[n]) if n not in running else 0 for n in range(3)]
    assert watched.following == following
    for noted, expected in ((watched.states, states), (watched.actions, actions), (watched.ways, ways)):
        for mine, theirs in zip(noted, expected, strict=True):
            torch.testing.assert_close(torch.stack(mine), torch.stack(theirs))


def test_a_trail_shows_each_pixel_where_it_differs_most():
    way = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shown = trail(way)
    for row in range(4):
        for column in range(6):
            pixels = [way[k, :, row, column].tolist() for k in range(5)]
            off = [sum(abs(a - b) for a, b in zip(pixel, pixels[0], strict=True)) for pixel in pixels]
            assert shown[:, row, column].tolist() == pixels[off.index(max(off))]


def test_a_decoder_draws_what_states_hold_and_leaves_the_dice_alone(world):
    rooms = TwoRooms(image_size=16)
    dice = torch.get_rng_state()
    decoder = fit_decoder(world, rooms, walks=150, updates=100)
    assert torch.equal(torch.get_rng_state(), dice)
    new = rooms.observe(rooms.wander(100, 8, torch.Generator().manual_seed(5)).states[:, -1])
    drawn = decoder.pictures(world.encode(new).unsqueeze(1))
    assert drawn.shape == (100, 1, 1, 16, 16)
    assert drawn.dtype == torch.uint8
    error = (drawn[:, 0].float() - new.float()).square().mean()
    assert error < 0.6 * new.float().var(0, correction=0).mean()  # of the mean picture 1
    again = fit_decoder(world, rooms, walks=150, updates=100)
    assert torch.equal(decoder.pictures(world.encode(new)), again.pictures(world.encode(new)))


def test_large_pictures_are_drawn_smaller(world, monkeypatch):
    large = TwoRooms(image_size=140)
    monkeypatch.setattr(world, "encode", lambda seen: seen.float().flatten(1)[:, None, ::700])
    decoder = fit_decoder(world, large, walks=4, updates=1)
    assert decoder.shape == (1, 46, 46)  # a third, what is left over cut off
    assert (
        decoder.pictures(world.encode(large.observe(large.wander(3, 2, torch.Generator()).states[:, 0]))).shape[0] == 3
    )


def test_films_show_what_was_seen_and_the_goal(world, rooms, tmp_path):
    settings = {"planner": CEM(samples=8, elites=2), "controls": False, "episodes": 3, "budget": 6}
    (tmp_path / "episodes").mkdir()
    for name in ("0", "7", "mine"):
        (tmp_path / "episodes" / f"{name}.gif").write_bytes(b"of an earlier run")
    report = plan(world, environment=rooms, video=2, out=str(tmp_path / "plan.json"), **settings)
    assert [row["file"] for row in report["films"]] == [str(tmp_path / "episodes" / f"{n}.gif") for n in range(2)]
    assert sorted(path.name for path in (tmp_path / "episodes").iterdir()) == ["0.gif", "1.gif", "mine.gif"]
    assert f"2 films: {tmp_path / 'episodes' / '0.gif'} to 1.gif" in table(report)
    tasks = rooms.tasks(3, torch.Generator().manual_seed(derive_seed("tasks", 0)))
    for number, row in enumerate(report["films"]):
        with Pictures.open(row["file"]) as opened:
            frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(opened)]
            length = sum(frame.info["duration"] for frame in ImageSequence.Iterator(opened))
        count = row["steps"] + 1 + 8  # Pillow makes one long frame of equal ones, and of a time hundredths of a second
        assert 10 * (count * 12) <= length <= 125 * count
        size = 16 * 7  # enlarged seven times
        for left, state in ((0, tasks.start[number]), (2 * (size + 8), tasks.goal[number])):
            shown = frames[0].crop((left, 0, left + size, size)).resize((16, 16), Pictures.NEAREST)
            true = rooms.observe(state).squeeze(0)
            found = torch.tensor(list(shown.getdata())).view(16, 16, 3)
            assert (found - true.unsqueeze(-1).int()).abs().max() <= 16  # of 256 colours


def test_what_is_refused(world, rooms):
    with pytest.raises(ValueError, match="expected out, a file beside which films are written"):
        plan(world, environment=rooms, video=1)
    with pytest.raises(ValueError, match="video at least 0, got 100, 40 and -1"):
        plan(world, environment=rooms, video=-1)
    with pytest.raises(ValueError, match=r"expected pictures .* leave video out"):
        plan(Circle(1), environment=Angle(), planner=CEM(hold=1), video=1, out="nowhere/plan.json")
