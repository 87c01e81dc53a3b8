"""Batches of trajectories and their frames."""

import pytest
import torch

from jepa_lightning.pretexts.trajectories import first_observations, frames, trajectory_length


def batch(samples=2, length=3):
    images = torch.arange(samples * length * 4.0).view(samples, length, 1, 2, 2)
    labels = {"x": torch.arange(samples * length).view(samples, length)}
    names = [f"e{i}" for i in range(samples)]
    return {"image": images, "actions": torch.zeros(samples, length - 1, 2), "labels": labels, "id": names}


def test_frames_are_the_observations_in_order_with_their_labels():
    found = frames(batch())
    assert set(found) == {"image", "labels", "id"}
    for b in range(2):
        for t in range(3):
            assert torch.equal(found["image"][3 * b + t], batch()["image"][b, t])
            assert found["labels"]["x"][3 * b + t] == batch()["labels"]["x"][b, t]
            assert found["id"][3 * b + t] == f"e{b}[{t}]"


def test_single_samples_stay_as_they_are():
    single = {"image": torch.zeros(4, 1, 2, 2)}
    assert frames(single) is single


def test_t_observations_and_t_minus_1_actions():
    assert trajectory_length(batch(length=5)) == 5
    wrong = batch()
    wrong["actions"] = torch.zeros(2, 3, 2)  # as many actions as observations
    with pytest.raises(ValueError, match=r"expected 'image' with 4 observations .* got the shape \(2, 3, 1, 2, 2\)"):
        frames(wrong)
    with pytest.raises(ValueError, match=r"with actions \(B, T - 1, A\), got \['image'\]"):
        trajectory_length({"image": torch.zeros(4, 1, 2, 2)})
    with pytest.raises(ValueError, match=r"got actions \(2, 2\)"):
        frames({**batch(), "actions": torch.zeros(2, 2)})


def test_first_observations_are_every_trajectorys_first_frame():
    given = batch()
    found, every = first_observations(given), frames(given)
    assert set(found) == set(given) - {"actions"}
    assert found["id"] == given["id"]
    length = trajectory_length(given)
    for name, value in every.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(found[name], value[::length])
    for name, value in every["labels"].items():
        assert torch.equal(found["labels"][name], value[::length])
    single = {"image": torch.zeros(2, 3)}
    assert first_observations(single) is single
