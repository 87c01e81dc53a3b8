"""One of several maskers at each step."""

import pytest
import torch
from lightning.pytorch import Callback

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.maskers import MixedMasker, MultiBlock, MultiMasker, Random
from jepa_lightning.multimodal import EachMasker
from jepa_lightning.schedules import LinearRamp
from jepa_lightning.tokens import Tokens

TOKENS = Tokens(values=torch.zeros(2, 64, 1), positions=grid_positions((8, 8)), grid=(8, 8))


def test_each_is_chosen_as_often_as_its_share():
    masker = MixedMasker([Random(targets=1), Random(targets=2), Random(targets=3)], shares=[3, 0, 1])
    generator = torch.Generator().manual_seed(0)
    found = [masker(TOKENS, generator)[0].targets.shape[1] for _ in range(400)]
    assert set(found) == {1, 3}
    assert 0.68 < found.count(1) / 400 < 0.82
    equal = MixedMasker([Random(targets=1), Random(targets=2)])
    assert {equal(TOKENS, generator)[0].targets.shape[1] for _ in range(30)} == {1, 2}


def test_masks_are_those_of_the_chosen_masker():
    masker = MixedMasker([MultiBlock(), Random()], shares=[0, 1])
    generator = torch.Generator().manual_seed(1)
    torch.rand((), generator=generator)
    expected = Random()(TOKENS, generator)[0]
    found = masker(TOKENS, torch.Generator().manual_seed(1))[0]
    assert torch.equal(found.context, expected.context)
    assert torch.equal(found.targets, expected.targets)


def test_shares_that_follow_the_run():
    """A curriculum: masks are those of the step, whatever was drawn before it."""
    masker = MixedMasker([Random(targets=1), Random(targets=2)], shares=[LinearRamp(1.0, 0.0), LinearRamp(0.0, 1.0)])
    assert not masker.reads_shapes_only
    generator = torch.Generator().manual_seed(0)
    for step in (100, 0, 25):
        masker.set_step(step, 100)
        found = [masker(TOKENS, generator)[0].targets.shape[1] for _ in range(300)]
        assert found.count(2) / 300 == pytest.approx(step / 100, abs=0.08 if step == 25 else 0)
    fresh = MixedMasker([Random(targets=1), Random(targets=2)], shares=[LinearRamp(1.0, 0.0), LinearRamp(0.0, 1.0)])
    fresh.set_step(25, 100)
    for seed in range(20):
        one, other = (m(TOKENS, torch.Generator().manual_seed(seed))[0] for m in (masker, fresh))
        assert torch.equal(one.targets, other.targets)


def test_maskers_within_maskers_are_told_the_step():
    inner = [MixedMasker([Random(), Random()], shares=[LinearRamp(1.0, 0.0), 1.0]) for _ in range(3)]
    outer = MultiMasker([inner[0]]), MixedMasker([inner[1]]), EachMasker({"a": inner[2]})
    for masker, told in zip(outer, inner, strict=True):
        masker.set_step(3, 4)
        assert told.current == [0.25, 1.0]


def test_a_schedule_that_leaves_no_share_is_refused():
    masker = MixedMasker([Random()], shares=[LinearRamp(1.0, -1.0)])
    with pytest.raises(ValueError, match=r"got \[-1\.0\] at step 10 of 10"):
        masker.set_step(10, 10)


def test_a_run_sets_the_step(make_jepa, make_data, make_trainer):
    def mixed(**settings):
        return MixedMasker([Random(**settings), Random(**settings)], shares=[LinearRamp(1.0, 0.0), 1.0])

    seen = []

    class Seen(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            seen.append(pl_module.masker.current[0])

    make_trainer(Seen(), max_steps=4, limit_val_batches=0).fit(make_jepa(masker=mixed), datamodule=make_data())
    assert seen == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("shares", [[1.0], [0.0, 0.0], [1.0, -1.0], [1.0, float("inf")]])
def test_shares_that_do_not_fit(shares):
    with pytest.raises(ValueError, match="one number of at least 0 for each of 2 maskers"):
        MixedMasker([Random(), Random()], shares=shares)


@pytest.mark.parametrize("maskers", [[], ["Random"]])
def test_what_is_no_masker_is_refused(maskers):
    with pytest.raises(ValueError, match="at least one masker"):
        MixedMasker(maskers)
