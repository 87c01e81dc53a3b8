"""Masked prediction, with Lightning and without."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from variants import TwoMasks, TwoViews

from jepa_lightning.callbacks import CollapseMonitor
from jepa_lightning.encoders import ViT
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.maskers import Random
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import Masked, Networks, Outcome
from jepa_lightning.pretexts.masked import encode_apart
from jepa_lightning.targets import EMA
from jepa_lightning.tokens import Tokens, take
from modalities.image import Image

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


# Without Lightning --------------------------------------------------------------------------------------------------


@pytest.fixture
def networks():
    """The parts of a JEPA, of which the target has moved away from the context encoder."""

    def build(masker):
        torch.manual_seed(0)
        modality = Image(image_size=32, patch_size=8, encoder=partial(ViT, width=32, depth=1, heads=2), masker=masker)
        encoder = modality.encoder
        target = EMA(encoder, modality.spec)
        with torch.no_grad():
            for parameter in target.parameters():
                parameter += 0.05 * torch.randn(parameter.shape)
        spec = Masked().predictor_spec(modality, target)
        predictor = TransformerPredictor(spec, width=16, depth=1, heads=2)
        return Networks(modality, encoder, target, predictor)

    return build


class Filled(Random):
    """Masks of which some slots hold nothing: two of the first sample's context, one of the second's first block."""

    def __call__(self, tokens, generator):
        (mask,) = super().__call__(tokens, generator)
        seen, hidden = torch.ones_like(mask.context, dtype=torch.bool), torch.ones_like(mask.targets, dtype=torch.bool)
        seen[0, 1:3] = hidden[1, 0, 2] = False
        return [replace(mask, context_valid=seen, targets_valid=hidden)]


MASKERS = {"blocks": Random(target_ratio=0.5, targets=2), "padded": Filled(target_ratio=0.5, targets=2)}


@pytest.mark.parametrize("masker", MASKERS)
@pytest.mark.parametrize("sees", ["all", "targets"])
def test_a_pass_without_lightning(networks, masker, sees):
    """Sample by sample: what is encoded, predicted and aimed at, and where it lies."""
    nets = networks(MASKERS[masker])
    pretext = Masked(target_sees=sees)
    outcome = pretext(nets, {"image": IMAGES}, generator())
    tokens = nets.modality.tokenizer({"image": IMAGES})
    (mask,) = pretext.masks(nets, tokens, generator())
    (prediction,), (context,), (target,) = outcome.predictions, outcome.context, outcome.target
    assert outcome.batch_size == 4
    assert outcome.actions is None
    assert prediction.weight is None
    assert prediction.over == "mean"
    assert prediction.predicted.shape == prediction.target.shape == (*mask.targets.shape, 32)
    for found, drawn in ((prediction.valid, mask.targets_valid), (context.valid, mask.context_valid)):
        assert (found is None) == (drawn is None)
        assert found is None or torch.equal(found, drawn)
    positions = tokens.positions[0]
    for b in range(4):
        one = Tokens(values=tokens.values[b : b + 1], positions=tokens.positions, grid=(4, 4))
        kept = mask.context[b] if mask.context_valid is None else mask.context[b, mask.context_valid[b]]
        seen = nets.encoder(one, kept[None])[0]
        real = context.values[b] if context.valid is None else context.values[b, context.valid[b]]
        torch.testing.assert_close(real, seen, rtol=1e-4, atol=1e-5)
        assert torch.equal(context.positions[b], positions[mask.context[b]])
        hidden = torch.ones(mask.targets.shape[1:], dtype=torch.bool)
        hidden = hidden if mask.targets_valid is None else mask.targets_valid[b]
        alone = mask.targets[b][hidden].unique()
        every = nets.target(one)[0] if sees == "all" else None
        for place, aimed in zip(mask.targets[b][hidden], prediction.target[b][hidden], strict=True):
            encoded = every[place] if sees == "all" else nets.target(one, alone[None])[0, alone == place][0]
            expected = (encoded - encoded.mean()) / torch.sqrt(encoded.var(correction=0) + 1e-5)
            torch.testing.assert_close(aimed, expected, rtol=1e-4, atol=1e-4)
    assert target.values.shape == ((4, 16, 32) if sees == "all" else (4, mask.targets[0].numel(), 32))
    torch.testing.assert_close(target.values, F.layer_norm(target.values, (32,)), rtol=1e-3, atol=1e-3)


def test_all_that_is_drawn_comes_from_the_generator(networks):
    nets = networks(MASKERS["blocks"])
    state = torch.get_rng_state()
    one, again, other = (Masked()(nets, {"image": IMAGES}, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.predictions[0].predicted, again.predictions[0].predicted)
    assert not torch.equal(one.context[0].positions, other.context[0].positions)


def test_gradients_flow_through_the_predictions_alone(networks):
    nets = networks(MASKERS["blocks"])
    outcome = Masked()(nets, {"image": IMAGES}, generator())
    assert outcome.context[0].values.requires_grad
    assert not outcome.target[0].values.requires_grad
    outcome.predictions[0].predicted.square().mean().backward()
    for part in (nets.encoder, nets.predictor):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    assert all(p.grad is None for p in nets.target.parameters())


def test_an_outcome_without_gradient_keeps_no_graph(networks):
    nets = networks(MASKERS["padded"])
    outcome = Masked()(nets, {"image": IMAGES}, generator())
    kept = outcome.detach()
    assert isinstance(kept, Outcome)
    for latents in (*kept.context, *kept.target):
        assert not latents.values.requires_grad
    (before,), (after,) = outcome.predictions, kept.predictions
    assert before.predicted.requires_grad
    assert not after.predicted.requires_grad
    assert torch.equal(before.predicted, after.predicted)
    assert after.valid is before.valid
    assert torch.equal(kept.context[0].positions, outcome.context[0].positions)


@pytest.mark.parametrize("sees", ["all", "targets"])
def test_several_masks_are_passes_of_their_own(networks, sees):
    nets = networks(TwoMasks(target_ratio=0.5, targets=2))
    pretext, calls = Masked(target_sees=sees), []
    nets.target.register_forward_hook(lambda *_: calls.append(1))
    outcome = pretext(nets, {"image": IMAGES}, generator())
    assert len(calls) == len(outcome.target) == (1 if sees == "all" else 2)
    assert len(outcome.predictions) == len(outcome.context) == 2
    tokens = nets.modality.tokenizer({"image": IMAGES})
    masks = pretext.masks(nets, tokens, generator())
    assert not torch.equal(masks[0].context, masks[1].context)
    for i, mask in enumerate(masks):
        single = pretext.predict(nets, tokens, [mask])
        torch.testing.assert_close(outcome.predictions[i].predicted, single.predictions[0].predicted)
        torch.testing.assert_close(outcome.predictions[i].target, single.predictions[0].target)
        torch.testing.assert_close(outcome.context[i].values, single.context[0].values)
        torch.testing.assert_close(outcome.target[i % len(outcome.target)].values, single.target[0].values)


def test_each_draw_of_masks_is_asked_by_its_number(networks):
    asked = []
    nets = networks(TwoMasks())
    nets.predictor.register_forward_hook(lambda module, given, out: asked.append(given[1].mask))
    Masked()(nets, {"image": IMAGES}, generator())
    assert asked == [0, 1]


def test_a_pretext_of_ones_own_in_a_jepa(make_jepa):
    """Two views in place of a mask: losses and gradients are there, pictures of masks are none."""
    jepa = make_jepa(pretext=TwoViews())
    tokens = jepa.tokenizer({"image": IMAGES})
    assert jepa.pretext.masks(jepa.networks, tokens, generator()) == []
    outcome = jepa.step({"image": IMAGES}, generator())
    assert len(outcome.context) == 2
    losses = jepa.losses(outcome)
    assert set(losses) == {"prediction"}
    losses["prediction"].backward()
    assert all(p.grad is not None for p in jepa.encoder.parameters())


def test_parameters_of_a_pretext_are_trained(make_jepa):
    class Scaled(Masked):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, nets, batch, generator):
            return super().forward(nets, {"image": batch["image"] * self.scale}, generator)

    jepa = make_jepa(pretext=Scaled())
    sum(jepa.losses(jepa.step({"image": IMAGES}, generator())).values()).backward()
    assert jepa.pretext.scale.grad.abs() > 0
    held = {id(p) for group in jepa.configure_optimizers().param_groups for p in group["params"]}
    assert id(jepa.pretext.scale) in held
    assert "pretext.scale" in jepa.state_dict()


# A target that sees the targets alone -------------------------------------------------------------------------------


def test_a_target_that_sees_the_targets_alone(make_jepa):
    """Against an encoding of each sample's set of targets by itself; overlapping blocks, filler, both together."""
    target = make_jepa().target
    values = torch.randn(2, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = Tokens(values=values, positions=grid_positions((4, 4)), grid=(4, 4))
    targets = torch.tensor([[[0, 1, 5], [1, 2, 6]], [[3, 7, 0], [8, 12, 13]]])
    valid = torch.tensor([[[True] * 3, [True] * 3], [[True, True, False], [True] * 3]])
    for blocks, real in ((targets, None), (targets, valid), (targets[:, :1], None), (targets[:, :1], valid[:, :1])):
        found = encode_apart(target, tokens, blocks, real)
        assert found.shape == (*blocks.shape, 32)
        for b in range(2):
            own = torch.ones_like(blocks[b], dtype=torch.bool) if real is None else real[b]
            alone = sorted(set(blocks[b][own].tolist()))
            one = Tokens(values=values[b : b + 1], positions=tokens.positions, grid=(4, 4))
            expected = target(one, torch.tensor([alone]))[0]
            for place, encoded in zip(blocks[b][own].tolist(), found[b][own], strict=True):
                assert torch.allclose(encoded, expected[alone.index(place)], atol=1e-5)


def test_what_is_no_target_changes_nothing_for_a_target_that_sees_targets_alone(make_jepa):
    module = make_jepa(pretext=Masked(target_sees="targets"))
    image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    step = module.step({"image": image}, torch.Generator().manual_seed(1))
    (mask,) = module.masker(module.tokenizer({"image": image}), torch.Generator().manual_seed(1))
    hidden = torch.zeros(4, 16).scatter_(1, mask.targets.flatten(1), 1).view(4, 1, 4, 4)
    other = torch.where(hidden.repeat_interleave(8, 2).repeat_interleave(8, 3) > 0, image, 0.0)
    again = module.step({"image": other}, torch.Generator().manual_seed(1))
    assert torch.equal(step.target[0].values, again.target[0].values)
    assert step.target[0].values.shape == (4, 8, 32)  # two blocks of four
    whole = make_jepa().step({"image": image}, torch.Generator().manual_seed(1))
    assert not torch.allclose(
        step.target[0].values, take(whole.target[0].values, mask.targets).flatten(1, 2), atol=1e-3
    )


def test_target_sees_is_checked():
    with pytest.raises(ValueError, match="target_sees must be all or targets, got 'context'"):
        Masked(target_sees="context")


def test_a_run_whose_target_sees_targets_alone(make_trainer, make_jepa, make_data):
    module = make_jepa(pretext=Masked(target_sees="targets"))
    trainer = make_trainer(CollapseMonitor(every_n_steps=2), max_steps=4)
    trainer.fit(module, datamodule=make_data())
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert trainer.callback_metrics["collapse/effective_rank"] > 1


def test_targets_without_a_norm(networks):
    nets = networks(Random(target_ratio=0.5))
    for sees in ("all", "targets"):
        found = Masked(target_sees=sees, norm_targets=False).forward(nets, {"image": IMAGES}, generator())
        normed = Masked(target_sees=sees).forward(nets, {"image": IMAGES}, generator())
        expected = F.layer_norm(found.predictions[0].target, (32,))
        torch.testing.assert_close(normed.predictions[0].target, expected)
        assert not torch.equal(found.predictions[0].target, expected)
    raw = nets.target(nets.modality.tokenizer({"image": IMAGES}))
    assert torch.equal(Masked(norm_targets=False).forward(nets, {"image": IMAGES}, generator()).target[0].values, raw)


class Unequal(Random):
    """Two masks of contexts of different sizes, the second with filler."""

    def __call__(self, tokens, generator):
        first, second = (super(Unequal, self).__call__(tokens, generator)[0] for _ in range(2))
        valid = torch.ones_like(second.context[:, :5], dtype=torch.bool)
        valid[1, 3:] = False
        return [first, replace(second, context=second.context[:, :5], context_valid=valid)]


@pytest.mark.parametrize("masker", [TwoMasks(target_ratio=0.5), Unequal(target_ratio=0.5, targets=2)])
def test_contexts_in_one_call(networks, masker):
    """The same contexts and predictions as one after the other, the same gradient; the encoder is called once."""
    nets = networks(masker)
    calls, gradients, outcomes = [], [], []
    nets.encoder.register_forward_hook(lambda *_: calls.append(1))
    for one_call in (False, True):
        nets.encoder.zero_grad()
        outcomes.append(Masked(one_call=one_call)(nets, {"image": IMAGES}, generator()))
        real = [c.values if c.valid is None else c.values[c.valid] for c in outcomes[-1].context]
        torch.cat([values.flatten() for values in real]).square().sum().backward()
        gradients.append([p.grad.clone() for p in nets.encoder.parameters() if p.grad is not None])
    assert len(calls) == 3
    apart, together = outcomes
    for one, other in zip(apart.predictions, together.predictions, strict=True):
        torch.testing.assert_close(one.predicted, other.predicted, rtol=1e-4, atol=1e-5)
    for one, other in zip(apart.context, together.context, strict=True):
        assert torch.equal(one.positions, other.positions)
        keep = torch.ones(one.values.shape[:2], dtype=torch.bool) if one.valid is None else one.valid
        torch.testing.assert_close(one.values[keep], other.values[keep], rtol=1e-4, atol=1e-5)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
