"""Energy: against plain loops, on a modality whose rule is known, and what is broken."""

from functools import partial

import pytest
import torch
from lightning.pytorch import seed_everything
from sklearn.metrics import roc_auc_score

from jepa_lightning import JEPA, Tokens
from jepa_lightning.encoders import ViT
from jepa_lightning.evaluation.auroc import detect
from jepa_lightning.evaluation.energy import break_tokens, detection, energy
from jepa_lightning.pretexts import Outcome, Prediction, Views
from jepa_lightning.targets import Online
from jepa_lightning.tokens import take
from modalities.image import Image
from modalities.text import Text

SMALL = partial(ViT, width=16, depth=1, heads=2)


@pytest.fixture
def jepa():
    seed_everything(0)
    return JEPA(Image(image_size=48, patch_size=8, encoder=SMALL)).eval()


def test_the_energy_is_the_mean_error_of_hidden_tokens_over_draws(jepa):
    batch = {"image": torch.randn(3, 3, 48, 48)}
    found = energy(jepa, batch, draws=3, seed=5)
    tokens, generator = jepa.tokenizer(batch), torch.Generator().manual_seed(5)
    sums, counts = [0.0] * 3, [0] * 3
    with torch.no_grad():
        for mask in [m for _ in range(3) for m in jepa.pretext.masks(jepa.networks, tokens, generator)]:
            made = jepa.pretext.predict(jepa.networks, tokens, [mask]).predictions[0]
            for b in range(3):
                for block in range(mask.targets.shape[1]):
                    for t in range(mask.targets.shape[2]):
                        if mask.targets_valid is None or mask.targets_valid[b, block, t]:
                            two = made.predicted[b, block, t], made.target[b, block, t]
                            sums[b] += float(jepa.objective.distance(*two))
                            counts[b] += 1
    assert found.tolist() == pytest.approx([s / c for s, c in zip(sums, counts, strict=True)], rel=1e-4)
    torch.testing.assert_close(energy(jepa, batch, draws=3, seed=5), found)
    alone = energy(jepa, {"image": batch["image"][:1]}, draws=3, seed=5)
    assert alone.shape == (1,)


def test_shuffled_tokens_are_the_same_ones_elsewhere_and_padding_stays():
    values = torch.arange(24).view(2, 12)
    valid = torch.arange(12) < torch.tensor([[12], [7]])
    tokens = Tokens(values=values, positions=torch.arange(12.0)[None, :, None], grid=(12,), valid=valid)
    broken = dict(break_tokens(tokens, torch.Generator().manual_seed(0)))
    shuffled = broken["shuffled"].values
    for row in range(2):
        real = valid[row]
        assert sorted(shuffled[row][real].tolist()) == values[row][real].tolist()
        assert shuffled[row][real].tolist() != values[row][real].tolist()
        assert shuffled[row][~real].tolist() == values[row][~real].tolist()
    half = broken["half another's"].values  # where both have a token, from the middle of the own ones on
    assert half[0].tolist() == [0, 1, 2, 3, 4, 5, 18, 7, 8, 9, 10, 11]
    assert half[1].tolist() == [12, 13, 14, 15, 4, 5, 6, 19, 20, 21, 22, 23]


def test_tokens_at_places_of_their_own_are_shuffled_alone():
    tokens = Tokens(values=torch.randn(2, 6, 3), positions=torch.randn(2, 6, 3))
    names = [name for name, _ in break_tokens(tokens, torch.Generator().manual_seed(0))]
    assert names == ["shuffled"]
    one = Tokens(values=torch.randn(1, 6, 3), positions=torch.randn(1, 6, 3))
    assert [name for name, _ in break_tokens(one, torch.Generator().manual_seed(0))] == ["shuffled"]


def test_a_model_that_knows_the_rule_detects_what_breaks_it(jepa, monkeypatch):
    """Images of one colour each: a token is predicted by the context's mean, and half of another is not."""
    pretext = type(jepa.pretext)

    def predict(self, nets, tokens, masks):
        raw = tokens.values.flatten(2)
        context = [take(raw, m.context).mean(1) for m in masks]
        guesses = [c[:, None, None].expand(-1, *m.targets.shape[1:], -1) for c, m in zip(context, masks, strict=True)]
        return Outcome(
            predictions=[
                Prediction(predicted=guess, target=take(raw, m.targets), valid=m.targets_valid)
                for guess, m in zip(guesses, masks, strict=True)
            ]
        )

    monkeypatch.setattr(pretext, "predict", predict)
    colours = torch.randn(40, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 48, 48)
    batches = [{"image": part, "id": [str(i) for i in range(len(part))]} for part in colours.split(8)]
    found = detection(jepa, batches, draws=4)
    assert found["half another's"].auroc == 1.0
    assert found["half another's"].pairs == 40
    assert found["shuffled"].auroc == pytest.approx(0.5)  # of one colour, nothing is broken


def test_the_area_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    true, broken = torch.randn(50, generator=generator), torch.randn(50, generator=generator) + 0.7
    found = detect(true, broken)
    assert found.auroc == pytest.approx(roc_auc_score([0] * 50 + [1] * 50, torch.cat([true, broken])), abs=1e-6)
    assert found.low < found.auroc < found.high


@pytest.mark.long
def test_texts_and_a_pretext_that_hides_nothing(jepa):
    seed_everything(0)
    text = JEPA(Text(vocabulary=256, encoder=SMALL)).eval()
    batch = {"text": ["A red ball lies there.", "Two cats.", "Nobody knows where the third one went today."]}
    assert energy(text, batch, draws=2).isfinite().all()
    assert set(detection(text, [{**batch, "id": ["a", "b", "c"]}], draws=2)) == {"shuffled", "half another's"}
    views = JEPA(Image(image_size=48, patch_size=8, encoder=SMALL), pretext=Views(), target=Online).eval()
    with pytest.raises(ValueError, match="Views"):
        energy(views, {"image": torch.randn(2, 3, 48, 48)})
