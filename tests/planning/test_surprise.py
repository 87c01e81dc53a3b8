"""Surprise: against a plain loop, and how well it tells broken transitions of a world that is known exactly."""

import pytest
import torch
from sklearn.metrics import roc_auc_score
from test_world import module, pictures, world

from jepa_lightning.environments import TwoRooms
from jepa_lightning.environments.two_rooms import blocked
from jepa_lightning.planning import World
from jepa_lightning.planning.surprise import break_walks, detection
from jepa_lightning.predictors.rollout import predict_next
from jepa_lightning.targets import EMA


class Seen(TwoRooms):
    """Two Rooms whose observation is its state."""

    def observe(self, states):
        return states


class Known:
    """A world without a network: surprised by how far a state is from the true one, and a little by chance."""

    frame_skip = 1

    def __init__(self, noise=0.0, history=1):
        self.history, self.noise = history, noise
        self.generator = torch.Generator().manual_seed(0)

    def surprise(self, observations, actions):
        assert observations.shape[1] == self.history + 1 == actions.shape[1] + 1
        error = (TwoRooms().step(observations[:, :-1], actions) - observations[:, 1:]).norm(dim=-1)
        return error + self.noise * torch.randn(error.shape, generator=self.generator).abs()


@pytest.mark.parametrize(("history", "target"), [(1, EMA), (3, EMA)])
def test_surprise_is_the_distance_of_each_state_from_its_prediction(history, target):
    found = world(history=history, target=target)
    with torch.no_grad():
        for parameter in found.target.parameters():
            parameter += 0.05
    seen = torch.stack([pictures(4, seed) for seed in range(5)], dim=1)  # (4, 5, 1, 16, 16)
    actions = torch.randn(4, 4, 2, generator=torch.Generator().manual_seed(1))
    scores = found.surprise(seen, actions)
    assert scores.shape == (4, 4)
    for b in range(4):
        past = found.past(found.encode(seen[b, :1]))
        for t in range(4):
            told = (actions[b, t] - found.pretext.action_mean) / found.pretext.action_std
            error = found.encode_goal(seen[b, t + 1 : t + 2]) - predict_next(found.predictor, past, told.unsqueeze(0))
            assert float(scores[b, t]) == pytest.approx(float(error.square().mean().sqrt()), rel=1e-4)
            past = past.push(found.encode(seen[b, t + 1 : t + 2]))
    batch = {"image": (seen.float() / 255 - 0.1) / 0.25, "id": list("abcd")}
    assert World(module(history=history)).surprise(batch, actions).shape == scores.shape
    torch.testing.assert_close(found.surprise(batch, actions), scores)


def test_numbers_that_do_not_fit():
    seen = torch.stack([pictures(2), pictures(2)], dim=1)
    with pytest.raises(ValueError, match="with 3 observations a trajectory"):
        world().surprise(seen, torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match=r"actions \(B, T - 1, A\)"):
        world().surprise(seen, torch.zeros(2, 2))


def test_what_two_rooms_forbids():
    rooms = TwoRooms()
    walks = rooms.wander(2000, 2, torch.Generator().manual_seed(0))
    before, after, action = walks.states[:, 0], walks.states[:, 1], walks.actions[:, 0]
    found = rooms.violations(before, action, after)
    index, jumped = found["jump over the wall"]
    assert len(index) > 50
    assert ((before[index, 0] < before[index, 2]) != (jumped[:, 0] < jumped[:, 2])).all()
    assert not blocked(jumped[:, :2], jumped[:, 2:]).any()  # a place where a dot can be
    index, moved = found["move into a wall"]
    assert len(index) > 20
    torch.testing.assert_close(moved[:, :2], before[index, :2] + action[index])
    assert ((moved - after[index]).norm(dim=-1) > 0.5).all()


def test_a_world_that_knows_the_laws_finds_all_that_is_broken():
    found = detection(Known(), Seen(), walks=900)
    assert set(found) == {"teleport", "other action", "jump over the wall", "move into a wall"}
    assert all(row["auroc"] > 0.97 for row in found.values())  # a wall may stop two actions alike
    assert found["jump over the wall"]["auroc"] == 1
    assert found == detection(Known(), Seen(), walks=900)


def test_the_area_is_scikit_learns_and_lies_in_its_interval():
    rooms, walks = Seen(), 400
    found = detection(Known(noise=3.0, history=2), rooms, walks=walks, seed=4)["other action"]
    generator = torch.Generator().manual_seed(4)
    drawn = rooms.wander(walks, 9, generator)
    other = next(broken for broken in break_walks(rooms, drawn, generator) if broken.name == "other action")
    known, pairs = Known(noise=3.0, history=2), []
    for last in (drawn.actions[:, -1], None, other.action[:, 0]):  # the teleports are scored between
        actions = torch.stack([drawn.actions[:, -2], drawn.actions[:, -1] if last is None else last], 1)
        pairs.append(known.surprise(drawn.states[:, -3:], actions)[:, -1])
    truth = [0] * walks + [1] * walks
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, torch.cat([pairs[0], pairs[2]]).numpy()), abs=1e-5)
    assert 0.6 < found["low"] < found["auroc"] < found["high"] < 1
    assert found["transitions"] == walks
