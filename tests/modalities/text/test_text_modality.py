"""What may not matter does not: padding, company, order, what is hidden. And what pictures show."""

from functools import partial

import pytest
import torch

from jepa_lightning import JEPA
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import Random, TimeSpans, WholeUnits
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts.masked import encode_context
from jepa_lightning.tokens import Masks
from modalities.text import Text

TEXTS = ["The old cook stirs the soup. It was not good!", "A cat.", "Why do sailors row in the bay? Nobody says."]
ENCODERS = {"sin-cos": {}, "rotary": {"rotary": "interleaved"}}


def make(encoder="sin-cos", **settings):
    torch.manual_seed(0)
    vit = partial(ViT, width=32, depth=2, heads=2, **ENCODERS[encoder])
    text = Text(**{"vocabulary": 256, "length": 64, "encoder": vit, **settings})
    for parameter in text.encoder.parameters():  # at the start the layers do next to nothing
        parameter.data += 0.1 * torch.randn_like(parameter)
    text.encoder.eval()
    return text


@torch.no_grad()
def features(text, texts):
    tokens = text.tokenizer({"text": texts})
    return [row[keep] for row, keep in zip(text.encoder(tokens), tokens.valid, strict=True)]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_padding_company_and_order(encoder):
    text = make(encoder)
    together = features(text, TEXTS)
    for one, expected in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(features(text, [one])[0], expected, rtol=0, atol=2e-5)
    for found, expected in zip(features(text, TEXTS[::-1]), together[::-1], strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    longer = make(encoder, fixed_size=True)
    for found, expected in zip(features(longer, TEXTS), together, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(
    "masker", [TimeSpans(spans=3, separate=True), Random(target_ratio=0.5), WholeUnits(), WholeUnits(unit="sentence")]
)
def test_hidden_tokens_change_nothing(encoder, masker):
    text = make(encoder, masker=masker)
    jepa = JEPA(text, predictor=partial(TransformerPredictor, width=16, depth=1, heads=2))
    tokens = text.tokenizer({"text": TEXTS})
    mask = text.masker(tokens, torch.Generator().manual_seed(0))[0]
    assert mask.targets_valid.any()
    before = encode_context(jepa.networks, tokens, mask).values
    hidden = torch.zeros_like(tokens.valid).scatter(1, mask.targets.flatten(1), mask.targets_valid.flatten(1))
    hidden |= ~tokens.valid
    other = torch.where(hidden, (tokens.values + 7) % 256, tokens.values)
    after = encode_context(jepa.networks, type(tokens)(**{**vars(tokens), "values": other}), mask).values
    assert torch.equal(before[mask.context_valid], after[mask.context_valid])
    shown = torch.where(tokens.valid & ~hidden, (tokens.values + 7) % 256, tokens.values)
    moved = encode_context(jepa.networks, type(tokens)(**{**vars(tokens), "values": shown}), mask).values
    assert (moved - before)[mask.context_valid].abs().max() > 0.01


def test_an_empty_text_is_no_nan():
    text = make()
    jepa = JEPA(text, predictor=partial(TransformerPredictor, width=16, depth=1, heads=2))
    outcome = jepa.step({"text": ["", "a word or two", ""]}, torch.Generator().manual_seed(0))
    loss = sum(jepa.losses(outcome).values())
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in jepa.parameters() if p.grad is not None)
    found = jepa.embed({"text": ["", "a word or two"]})
    assert (found[0] == 0).all()
    assert found.isfinite().all()


def test_embeddings_of_tokens_are_trained_and_do_not_decay():
    jepa = JEPA(make(), predictor=partial(TransformerPredictor, width=16, depth=1, heads=2))
    sum(jepa.losses(jepa.step({"text": TEXTS}, torch.Generator().manual_seed(0))).values()).backward()
    used = jepa.encoder.embed.weight.grad.abs().sum(1) > 0
    assert 10 < int(used.sum()) < 60
    with pytest.raises(ValueError, match="expected numbers of tokens as int64"):
        jepa.encoder.embed(torch.zeros(1, 2))


def test_raw_features():
    found = make().raw_features({"text": ["aab", ""]})
    assert found.shape == (2, 256)
    assert found[0, [ord("a"), ord("b"), ord(" "), ord("c")]].square().tolist() == pytest.approx([0.5, 0.25, 0.25, 0])
    assert not found[1].any()


def test_a_tokenizer_and_a_size():
    with pytest.raises(ValueError, match=r"expected tokenizer or vocabulary, got x.json and 300"):
        Text(tokenizer="x.json", vocabulary=300)


def test_pictures():
    text = make()
    batch = {"text": ["one two", "line\nbreak " * 4]}
    drawn = text.draw_samples(batch)
    assert drawn[0].shape == (3, 80, 448)
    assert drawn[1].shape == (3, 100, 448)
    assert all(picture.dtype == torch.uint8 for picture in drawn)
    tokens = text.tokenizer(batch)
    colours = torch.zeros(2, tokens.count, 3)
    colours[..., 0] = 1.0
    red = text.draw_features(batch, tokens, colours)[0]
    assert red[:, 10, 1].tolist() == [255, 128, 128]
    keep = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])
    asked = torch.tensor([[[4, 5]], [[4, 5]]])
    shown = text.draw_masks(batch, [Masks(context=keep, targets=asked)])[0]
    assert shown.shape == (3, 44, 448)  # the context above, all below
    ink = (shown < 60).all(0)
    assert ink[:20].sum() < ink[24:].sum()  # hidden words are not written
