"""The dense loss against the paper's formula in plain loops and float64; deep supervision; warm-up."""

import math

import pytest
import torch
import torch.nn.functional as F
from variants import TwoMasks

from jepa_lightning.cli.fit import fit
from jepa_lightning.maskers import Random
from jepa_lightning.objectives import L1
from jepa_lightning.predictors import MLPPredictor
from jepa_lightning.pretexts import Dense, LatentCodes, Masked
from jepa_lightning.pretexts.dense import nearest_hidden
from jepa_lightning.schedules import DelayedRamp
from jepa_lightning.tokens import Masks

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def generator():
    return torch.Generator().manual_seed(1)


def loss_of(jepa, outcome, step=0):
    return jepa.losses(outcome, step)["prediction"]


@pytest.mark.parametrize("layers", [(), (0, 1)])
@pytest.mark.parametrize("masker", [Random, TwoMasks])
@pytest.mark.parametrize("by_distance", [True, False])
def test_the_loss_is_the_papers(make_jepa, layers, masker, by_distance):
    pretext = Dense(context_weight=0.5, layers=layers, by_distance=by_distance)
    jepa = make_jepa(pretext=pretext, objective=L1(), masker=masker).double()
    with torch.no_grad():  # the target has moved away, and the small initial weights have grown
        for parameter in (*jepa.target.parameters(), *jepa.pretext.parameters(), *jepa.predictor.parameters()):
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator())
    images = IMAGES.double()
    outcome = jepa.step({"image": images}, generator())
    tokens = jepa.tokenizer({"image": images})
    masks = jepa.masker(tokens, generator())
    with torch.no_grad():
        all_layers = jepa.target.encoder(tokens, layers=layers or (-1,))  # (B, N, L, D)
    total = 0.0
    for mask, hidden, visible in zip(
        masks, outcome.predictions[: len(masks)], outcome.predictions[len(masks) :], strict=True
    ):
        blocks, kept = mask.targets.shape[1], mask.context.shape[1]
        sums = {"hidden": 0.0, "context": 0.0}
        for b in range(3):
            places = mask.targets[b].flatten().tolist()

            def target(place, b=b):
                each = all_layers[b, place]
                return torch.cat([(x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() for x in each])

            for m in range(blocks):
                for t in range(mask.targets.shape[2]):
                    expected = target(int(mask.targets[b, m, t]))
                    sums["hidden"] += float((hidden.predicted[b, m, t] - expected).abs().mean())
                for k in range(kept):
                    place = int(mask.context[b, k])
                    near = min(math.dist(divmod(place, 4), divmod(other, 4)) for other in places)
                    weight = 1 / math.sqrt(near) if by_distance else 1.0
                    sums["context"] += weight * float((visible.predicted[b, m, k] - target(place)).abs().mean())
        total += sums["hidden"] / (3 * mask.targets[0].numel()) + 0.5 * sums["context"] / (3 * blocks * kept)
    assert float(loss_of(jepa, outcome)) == pytest.approx(total / len(masks), rel=1e-6)


def test_the_predictor_gets_the_fusion_of_layers(make_jepa):
    jepa = make_jepa(pretext=Dense(context_weight=0.5, layers=(0, 1)))
    given = []
    jepa.predictor.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    outcome = jepa.step({"image": IMAGES}, generator())
    tokens = jepa.tokenizer({"image": IMAGES})
    (mask,) = jepa.masker(tokens, generator())
    first, last = jepa.encoder(tokens, mask.context, layers=(0, 1)).unbind(2)
    linear = jepa.pretext.fuse[0]
    x = torch.cat([F.layer_norm(first, (32,)), last], dim=-1) @ linear.weight.T + linear.bias
    torch.testing.assert_close(given[0].values, x * (1 + torch.erf(x / 2**0.5)) / 2)
    torch.testing.assert_close(outcome.context[0].values, last)
    assert outcome.context[0].values.shape[-1] == jepa.evaluated_encoder.dim == 32
    assert outcome.target[0].values.shape == (3, 16, 64)
    loss_of(jepa, outcome).backward()
    assert all(p.grad is not None for part in (jepa.pretext, jepa.encoder, jepa.predictor) for p in part.parameters())


def test_the_context_loss_warms_up(make_jepa):
    ramp = DelayedRamp(start=0.0, end=0.5, begin=0.1, stop=0.2)
    jepa = make_jepa(pretext=Dense(context_weight=ramp), objective=L1())
    jepa.total_steps = 100
    outcome = jepa.step({"image": IMAGES}, generator())
    hidden = float(L1()(outcome.predictions[0].predicted, outcome.predictions[0].target))
    found = [float(loss_of(jepa, outcome, step)) - hidden for step in (0, 10, 15, 20, 90)]
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[1] == pytest.approx(0, abs=1e-6)
    assert found[2] == pytest.approx(found[3] / 2, rel=1e-4)
    assert found[4] == pytest.approx(found[3], rel=1e-6)
    with pytest.raises(ValueError, match="begin and stop are rising shares"):
        DelayedRamp(0.0, 1.0, begin=0.3, stop=0.3)


def test_without_a_context_loss_hidden_tokens_have_the_loss_of_masked_prediction(make_jepa):
    """The predictor computes the same for the hidden tokens, whether it also predicts the context or not."""
    dense, masked = make_jepa(pretext=Dense(context_weight=0.0)), make_jepa(pretext=Masked())
    state = masked.predictor.state_dict()
    dense.predictor.load_state_dict({**dense.predictor.state_dict(), **state})
    found = [loss_of(jepa, jepa.step({"image": IMAGES}, generator())) for jepa in (dense, masked)]
    torch.testing.assert_close(*found)


def test_distances_leave_out_filler():
    from jepa_lightning.encoders.positions import grid_positions
    from jepa_lightning.tokens import Tokens

    tokens = Tokens(values=torch.zeros(2, 16, 1), positions=grid_positions((4, 4)), grid=(4, 4))
    mask = Masks(
        context=torch.tensor([[0, 5], [0, 5]]),
        targets=torch.tensor([[[1, 15]], [[1, 15]]]),
        targets_valid=torch.tensor([[[True, True]], [[False, True]]]),
    )
    expected = torch.tensor([[1.0, 1.0], [math.dist((0, 0), (3, 3)), math.dist((1, 1), (3, 3))]])
    torch.testing.assert_close(nearest_hidden(tokens, mask), expected)


def test_settings_that_make_no_sense(make_jepa):
    with pytest.raises(ValueError, match=r"layers that end with the encoder's last one, 1, .* got \[0\]"):
        make_jepa(pretext=Dense(layers=[0]))
    with pytest.raises(ValueError, match="expected layers from 0 to 1"):
        make_jepa(pretext=Dense(layers=[5, 1]))
    jepa = make_jepa(pretext=Dense())
    jepa.predictor = MLPPredictor(jepa.pretext.predictor_spec(jepa.modality, jepa.target), width=8)
    with pytest.raises(ValueError, match="use TransformerPredictor"):
        jepa.step({"image": IMAGES}, generator())


def test_clips_from_yaml(tmp_path):
    words = ["--config", "video.yaml", "--model.pretext", "Dense", "--model.pretext.layers", "[0,1]"]
    words += ["--data.samples", "64", "--data.batch_size", "16", "--trainer.max_epochs", "1", "--data.num_workers", "0"]
    words += ["--pictures.enabled", "false", "--probe.enabled", "false", "--trainer.enable_progress_bar", "false"]
    fit([*words, "--trainer.default_root_dir", str(tmp_path / "run")])
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("pretext", [Dense, LatentCodes])
def test_predictors_are_told_which_draw_of_masks_is_asked_for(make_jepa, pretext):
    jepa = make_jepa(pretext=pretext(), masker=TwoMasks)
    numbers = []
    jepa.predictor.register_forward_pre_hook(lambda _, inputs: numbers.append(inputs[1].mask))
    jepa.step({"image": IMAGES}, generator())
    assert numbers == [0, 1]
