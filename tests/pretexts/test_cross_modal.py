"""CrossModal: what each side sees, what is predicted, what a hidden token changes."""

import logging
from functools import partial

import pytest
import torch

from jepa_lightning import JEPA
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import Random
from jepa_lightning.multimodal import Multimodal
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import CrossModal, InfoNCE, Masked, Nearness
from jepa_lightning.regularizers import VICReg
from modalities.image import Image
from modalities.text import Text

SMALL = partial(ViT, width=16, depth=1, heads=2)
PREDICTOR = partial(TransformerPredictor, width=16, depth=1, heads=2)
TEXTS = ["a red ball on the green grass", "two cats asleep on the old sofa by the fire", "snow"]


def picture():
    return Image(image_size=32, patch_size=8, encoder=SMALL, masker=Random(target_ratio=0.4))


def both(**settings):
    torch.manual_seed(0)
    text = Text(vocabulary=256, length=48, encoder=partial(ViT, width=16, depth=2, heads=2))
    return Multimodal(modalities={"image": picture(), "text": text}, **settings)


def batch(seed=0):
    return {"image": torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed)), "text": list(TEXTS)}


def model(pretext=None, **settings):
    return JEPA(both(**settings.pop("modality", {})), pretext=pretext or CrossModal(), predictor=PREDICTOR, **settings)


def generator():
    return torch.Generator().manual_seed(1)


def test_each_modality_is_predicted_from_its_rest_and_all_of_the_other():
    jepa = model()
    tokens = jepa.tokenizer(batch())
    image, text = jepa.pretext.masks(jepa.networks, tokens, generator())
    assert (image.part, text.part) == ("image", "text")
    count = tokens.sizes["image"]
    assert (image.targets < count).all()
    assert (text.targets >= count).all()
    assert image.context.shape[1] == image.own.context.shape[1] + tokens.sizes["text"]
    assert torch.equal(image.context_valid[:, image.own.context.shape[1] :], tokens.parts["text"].valid)
    assert (text.context[:, :count] == torch.arange(count)).all()
    outcome = jepa.pretext.predict(jepa.networks, tokens, [image, text])
    assert [p.predicted.shape[:3] for p in outcome.predictions] == [image.targets.shape, text.targets.shape]
    assert [latents.values.shape[1] for latents in outcome.context] == list(tokens.sizes.values())
    assert [latents.values.shape[1] for latents in outcome.target] == list(tokens.sizes.values())


def test_targets_are_those_of_each_encoder_alone_layer_normed():
    jepa = model()
    outcome = jepa.step(batch(), generator())
    for name, found in zip(("image", "text"), outcome.target, strict=True):
        part = jepa.modality.modalities[name]
        expected = jepa.target.encoder.part(name)(part.tokenizer(batch()))
        torch.testing.assert_close(found.values, torch.nn.functional.layer_norm(expected, expected.shape[-1:]))


def test_a_hidden_token_changes_nothing_that_is_predicted():
    jepa = model().eval()
    one = batch()
    tokens = jepa.tokenizer(one)
    masks = jepa.pretext.masks(jepa.networks, tokens, generator())
    before = jepa.pretext.predict(jepa.networks, tokens, masks)
    other = one["image"].clone()
    hidden = masks[0].own.targets[0, 0]  # of the first sample, patches of 8 by 8 pixels on a grid of 4 by 4
    for patch in hidden.tolist():
        row, column = divmod(patch, 4)
        other[0, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 7.0
    changed = jepa.tokenizer({**one, "image": other})
    after = jepa.pretext.predict(jepa.networks, changed, masks)
    assert torch.equal(before.predictions[0].predicted, after.predictions[0].predicted)
    assert not torch.equal(before.predictions[0].target[0], after.predictions[0].target[0])
    assert not torch.equal(before.predictions[1].predicted[0], after.predictions[1].predicted[0])  # sees the image


def test_a_hidden_word_changes_nothing_that_is_predicted():
    jepa = model().eval()
    tokens = jepa.tokenizer(batch())
    masks = jepa.pretext.masks(jepa.networks, tokens, generator())
    before = jepa.pretext.predict(jepa.networks, tokens, masks)
    own = masks[1].own
    hidden = own.targets[0, 0] if own.targets_valid is None else own.targets[0, 0][own.targets_valid[0, 0]]
    tokens.parts["text"].values[0, hidden] = 7
    after = jepa.pretext.predict(jepa.networks, tokens, masks)
    assert torch.equal(before.predictions[1].predicted, after.predictions[1].predicted)
    assert not torch.equal(before.predictions[0].predicted[0], after.predictions[0].predicted[0])  # sees the words


def test_the_caption_helps_to_predict_the_image():
    jepa = model().eval()
    one = batch()
    other = {**one, "text": ["wholly another caption", *one["text"][1:]]}
    tokens = [jepa.tokenizer(b) for b in (one, other)]
    masks = [jepa.pretext.masks(jepa.networks, t, generator())[:1] for t in tokens]
    first, second = (
        jepa.pretext.predict(jepa.networks, t, m).predictions[0].predicted for t, m in zip(tokens, masks, strict=True)
    )
    assert not torch.allclose(first[0], second[0])
    torch.testing.assert_close(first[1:], second[1:])


def test_padding_and_order_of_samples_change_nothing():
    jepa = model().eval()
    one = batch()
    features = jepa.embed(one)
    assert features.shape == (3, 32)  # of both, side by side
    alone = torch.cat(
        [jepa.embed({"image": one["image"][i : i + 1], "text": one["text"][i : i + 1]}) for i in range(3)]
    )
    torch.testing.assert_close(features, alone, rtol=1e-4, atol=1e-5)  # the short text without the long one's padding
    order = [2, 0, 1]
    turned = jepa.embed({"image": one["image"][order], "text": [one["text"][i] for i in order]})
    torch.testing.assert_close(features[order], turned, rtol=1e-4, atol=1e-5)


def test_losses_have_both_terms_and_all_parts_learn():
    jepa = model()
    outcome = jepa.step(batch(), generator())
    losses = jepa.losses(outcome)
    assert list(losses) == ["prediction", "alignment"]
    pooled = [latents.pooled() for latents in outcome.context]
    torch.testing.assert_close(losses["alignment"], 0.1 * jepa.pretext.alignment(pooled))
    sum(losses.values()).backward()
    without = [name for name, p in jepa.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert jepa.predictor.positions.modality.grad.abs().sum(1).min() > 0


def test_one_direction_only():
    jepa = model(CrossModal(predict=["image"]))
    outcome = jepa.step(batch(), generator())
    assert len(outcome.predictions) == 1
    assert "alignment" in outcome.terms
    assert outcome.context[0].values.shape[1] < 16  # what is kept of the image: nothing shows all of it


def test_a_run_without_alignment_is_told_so_once(caplog):
    jepa = model(CrossModal(alignment=False))
    with caplog.at_level(logging.WARNING, logger="jepa_lightning"):
        outcomes = [jepa.step(batch(), generator()) for _ in range(2)]
    assert [dict(outcome.terms) for outcome in outcomes] == [{}, {}]
    assert sum("no alignment" in record.getMessage() for record in caplog.records) == 1


def test_nearness_needs_a_regularizer():
    with pytest.raises(ValueError, match=r"expected a regularizer beside CrossModal.*set model.regularizers"):
        model(CrossModal(alignment=Nearness()))
    jepa = model(CrossModal(alignment=Nearness()), regularizers=[VICReg])
    assert "vicreg" in jepa.losses(jepa.step(batch(), generator()))


def test_frozen_encoders_stay_and_are_mapped():
    jepa = model(modality={"frozen": ["text"], "width": 24}).train()
    text = jepa.encoder.part("text")
    assert not text.training
    assert jepa.encoder.dim == jepa.target.dim == 24
    sum(jepa.losses(jepa.step(batch(), generator())).values()).backward()
    assert all(p.grad is None for p in text.parameters())
    assert jepa.encoder.maps["text"].weight.grad.abs().sum() > 0


def test_what_does_not_fit_is_one_line():
    with pytest.raises(ValueError, match="CrossModal is for several modalities in one module, got image alone"):
        JEPA(
            picture(),
            pretext=CrossModal(),
            predictor=PREDICTOR,
        )
    with pytest.raises(ValueError, match=r"expected predict among \['image', 'text'\], got \['sound'\]"):
        model(CrossModal(predict=["sound"]))
    with pytest.raises(ValueError, match=r"set model\.pretext to CrossModal"):
        model(Masked()).step(batch(), generator())
    with pytest.raises(ValueError, match="at least two modalities"):
        Multimodal(modalities={"image": picture()})
    with pytest.raises(ValueError, match=r"expected frozen among the modalities \['image', 'text'\], got \['sound'\]"):
        both(frozen=["sound"])
    with pytest.raises(ValueError, match="expected as many samples of each modality"):
        model().step({**batch(), "text": TEXTS[:2]}, generator())


def test_three_modalities_with_points_on_no_grid():
    from modalities.pointcloud import PointCloud

    cloud = PointCloud(groups=8, group_size=4, encoder=SMALL)
    parts = {
        "image": picture(),
        "cloud": cloud,
    }
    parts["text"] = Text(vocabulary=256, length=48, encoder=SMALL)
    jepa = JEPA(Multimodal(modalities=parts), pretext=CrossModal(alignment=InfoNCE(weight=1.0)), predictor=PREDICTOR)
    points = [torch.randn(64, 3, generator=generator()) for _ in range(3)]
    outcome = jepa.step({**batch(), "points": torch.stack(points)}, generator())
    assert len(outcome.predictions) == 3
    assert all(torch.isfinite(value) for value in jepa.losses(outcome).values())
