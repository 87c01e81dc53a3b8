"""The alignments against plain loops in float64, and what moves them."""

import math

import pytest
import torch

from jepa_lightning.pretexts import InfoNCE, Nearness, Sigmoid


def vectors(seed, batch=5, width=4):
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(seed))


def unit(rows):
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows.double().tolist()]


def cosines(one, other):
    return [[sum(a * b for a, b in zip(p, q, strict=True)) for q in unit(other)] for p in unit(one)]


def info_nce(one, other, temperature):
    logits = [[c / temperature for c in row] for row in cosines(one, other)]
    losses = []
    for table in (logits, [*map(list, zip(*logits, strict=True))]):
        for i, row in enumerate(table):
            losses.append(-row[i] + math.log(sum(math.exp(x) for x in row)))
    return sum(losses) / len(losses)


def sigmoid(one, other, scale, bias):
    total = 0.0
    for i, row in enumerate(cosines(one, other)):
        for j, cosine in enumerate(row):
            sign = 1 if i == j else -1
            total += math.log(1 + math.exp(-sign * (scale * cosine + bias)))
    return total / len(one)


def test_info_nce_is_that_of_plain_loops():
    one, other = vectors(0), vectors(1)
    found = InfoNCE(temperature=0.2)([one, other]).item()
    assert found == pytest.approx(info_nce(one, other, 0.2), rel=1e-5)


def test_sigmoid_is_that_of_plain_loops():
    one, other = vectors(2), vectors(3)
    found = Sigmoid(scale=3.0, bias=-1.0)([one, other]).item()
    assert found == pytest.approx(sigmoid(one, other, 3.0, -1.0), rel=1e-5)


def test_nearness_is_that_of_plain_loops():
    one, other = vectors(4), vectors(5)
    squares = [
        (a - b) ** 2 for p, q in zip(one.tolist(), other.tolist(), strict=True) for a, b in zip(p, q, strict=True)
    ]
    assert Nearness()([one, other]).item() == pytest.approx(sum(squares) / len(squares), rel=1e-5)


def test_three_modalities_are_the_mean_over_pairs():
    sets = [vectors(seed) for seed in range(3)]
    pairs = [info_nce(sets[i], sets[j], 0.07) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert InfoNCE()(sets).item() == pytest.approx(sum(pairs) / 3, rel=1e-5)


@pytest.mark.parametrize("part", [InfoNCE(temperature=0.5), Sigmoid(scale=2.0, bias=0.0)], ids=["infonce", "sigmoid"])
def test_order_of_samples_and_lengths_of_vectors_change_nothing(part):
    one, other = vectors(6), vectors(7)
    order = torch.tensor([3, 0, 4, 1, 2])
    found = part([one, other])
    torch.testing.assert_close(part([one[order], other[order]]), found)
    torch.testing.assert_close(part([3 * one, 0.5 * other]), found)
    assert part([one, other[order]]).item() != pytest.approx(found.item(), rel=1e-3)


@pytest.mark.parametrize("part", [InfoNCE(), Sigmoid(), Nearness()], ids=["infonce", "sigmoid", "nearness"])
def test_descending_brings_pairs_together(part):
    one, other = vectors(8).requires_grad_(), vectors(9)
    before = part([one, other])
    before.backward()
    after = part([one.detach() - 0.01 * one.grad / one.grad.norm(), other])
    assert after.item() < before.item()


def test_the_temperature_is_learned_and_bounded():
    part = InfoNCE()
    part([vectors(0), vectors(1)]).backward()
    assert part.scale.grad.abs().item() > 0
    part.scale.data.fill_(50.0)
    same = vectors(2)
    assert part([same, vectors(3)]).item() == pytest.approx(info_nce(same, vectors(3), 0.01), rel=1e-4)


def test_bad_settings():
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        InfoNCE(temperature=0.0)
    with pytest.raises(ValueError, match="scale must be above 0"):
        Sigmoid(scale=-1.0)
