"""Vectors: tokens against numpy, statistics, what is refused; masked prediction, and a world model from files."""

import json
from functools import partial

import numpy as np
import pytest
import torch

import jepa_lightning
from jepa_lightning import JEPA
from jepa_lightning.cli.fit import fit
from jepa_lightning.encoders import ViT
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import Masked
from modalities.vector import Vector, VectorTokenizer

SMALL = partial(ViT, width=16, depth=1, heads=2)


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("group", [1, 2, 6])
def test_tokens_are_groups_of_numbers_in_a_row(group):
    given = vectors(5, 6)
    tokens = VectorTokenizer(features=6, group=group, standardize=False)({"vector": given})
    assert tokens.grid == (6 // group,)
    assert tokens.positions.flatten().tolist() == list(range(6 // group))
    for n in range(6 // group):
        assert torch.equal(tokens.values[:, n], given[:, n * group : (n + 1) * group])


def test_each_number_is_standardised_by_the_training_set():
    tokenizer = VectorTokenizer(features=4, group=4)
    assert tokenizer.needs_statistics
    scale, centre = torch.tensor([1.0, 100.0, 1e-3, 0.0]), torch.tensor([0.0, -5.0, 2.0, 7.0])
    batches = [{"vector": vectors(8, 3, 4, seed=n) * scale + centre} for n in range(3)]  # of trajectories, too
    tokenizer.estimate(batches)
    assert not tokenizer.needs_statistics
    every = torch.cat([batch["vector"].flatten(0, 1) for batch in batches]).double().numpy()
    np.testing.assert_allclose(tokenizer.mean, every.mean(0), rtol=1e-6)
    np.testing.assert_allclose(tokenizer.std[:3], every.std(0)[:3], rtol=1e-5)
    assert tokenizer.std[3] == 1  # it never changes
    found = tokenizer({"vector": batches[0]["vector"][:, 0]}).values.flatten(1)
    expected = (batches[0]["vector"][:, 0].double().numpy() - every.mean(0)) / [*every.std(0)[:3], 1]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    again = VectorTokenizer(features=4, group=4)
    again.load_state_dict(tokenizer.state_dict())
    assert not again.needs_statistics
    assert torch.equal(
        Vector(features=4, encoder=SMALL).using(again, None).raw_features({"vector": found}),
        (found - again.mean) / again.std,
    )


def test_masked_prediction_of_numbers_hides_them():
    modality = Vector(features=8, group=1, standardize=False, encoder=SMALL)
    jepa = JEPA(modality, pretext=Masked(), predictor=partial(TransformerPredictor, width=16, depth=1, heads=2))
    outcome = jepa.step({"vector": vectors(4, 8)}, torch.Generator().manual_seed(0))
    assert outcome.target[0].values.shape == (4, 8, 16)
    seen = outcome.context[0].positions.long()[0, :, 0]
    hidden = [n for n in range(8) if n not in seen.tolist()]
    assert hidden
    other = vectors(4, 8)
    other[:, hidden] += 1.0
    again = jepa.step({"vector": other}, torch.Generator().manual_seed(0))
    rows = (outcome.context[0].positions == again.context[0].positions).all()
    assert rows
    assert torch.equal(outcome.context[0].values[0], again.context[0].values[0])
    assert not torch.equal(outcome.target[0].values, again.target[0].values)


def test_what_is_refused():
    with pytest.raises(ValueError, match="a group that divides them, got 6 and 4"):
        Vector(features=6, group=4, encoder=SMALL)
    tokenizer = VectorTokenizer(features=4, group=2)
    with pytest.raises(ValueError, match=r"expected floats \(B, 4\) at the key 'vector', got \(2, 5\)"):
        tokenizer({"vector": vectors(2, 5)})
    with pytest.raises(ValueError, match=r"got \['image'\]: set model.modality.features"):
        tokenizer({"image": vectors(2, 5)})
    with pytest.raises(ValueError, match="int64"):
        tokenizer({"vector": torch.zeros(2, 4, dtype=torch.int64)})
    with pytest.raises(ValueError, match=r"expected vectors \(B, 4\), got \(2, 3, 4\)"):
        tokenizer({"vector": vectors(2, 3, 4)})
    with pytest.raises(ValueError, match="no batch to estimate"):
        tokenizer.estimate([])
    broken = vectors(6, 4)
    broken[3, 2] = torch.nan
    with pytest.raises(ValueError, match=r"expected finite numbers, got some that are not at the places \[2\]"):
        tokenizer.estimate([{"vector": broken}])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on a file of points that are pushed about."""
    folder = tmp_path_factory.mktemp("vector")
    rng = np.random.default_rng(0)
    actions = rng.normal(size=(24, 15, 2)).astype(np.float32)
    places = np.concatenate([np.zeros((24, 1, 2)), actions.cumsum(1)], 1)
    speeds = np.concatenate([np.zeros((24, 1, 2)), actions], 1)
    np.savez(
        folder / "walks.npz", observations=np.concatenate([places, speeds], -1).astype(np.float32), actions=actions
    )
    words = [
        "--config",
        "recipes/world_pendulum_state",
        "--data.environment=null",
        f"--data.root={folder / 'walks.npz'}",
    ]
    words += ["--model.modality.features=4", "--model.pretext.action_dim=2", "--data.frame_skip=1", "--data.windows=2"]
    words += ["--model.modality.encoder.width=16", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
    words += ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={folder / 'run'}", "--data.probe_samples=8"]
    fit(words)
    return folder / "run"


def test_a_world_model_of_numbers_is_trained_from_files_and_loaded(run):
    assert json.loads((run / "summary.json").read_text())["modality"] == "vector"
    world = jepa_lightning.load_world(run)
    assert not world.tokenizer.needs_statistics
    assert world.tokenizer.std.min() > 0
    assert (world.tokenizer.std != 1).all()
    seen = vectors(3, 5, 4)
    states = world.encode(seen[:, 0])
    assert states.shape == (3, 1, 16)
    assert world.imagine(world.past(states), vectors(3, 2, 6, 2)).shape == (3, 2, 6, 1, 16)
    assert world.surprise(seen, vectors(3, 4, 2)).shape == (3, 4)
    fresh = world.untrained()
    assert torch.equal(fresh.tokenizer.mean, world.tokenizer.mean)  # of the data, not of the training
