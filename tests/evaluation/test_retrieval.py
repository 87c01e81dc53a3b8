"""Recalls against plain loops, ties, chance and intervals."""

import pytest
import torch

from jepa_lightning.evaluation.retrieval import retrieval


def pair(count=30, width=6, noise=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    one = torch.randn(count, width, generator=generator)
    return {"image": one, "text": one + noise * torch.randn(count, width, generator=generator)}


def by_loops(queries, gallery, k):
    hits = 0
    for i, query in enumerate(queries.double()):
        cosines = [float(query @ other / query.norm() / other.norm()) for other in gallery.double()]
        hits += sum(cosine > cosines[i] for cosine in cosines) < k
    return hits / len(queries)


def test_recall_is_that_of_plain_loops_both_ways():
    vectors = pair()
    found = {(r.query, r.gallery, r.k): r for r in retrieval(vectors)}
    assert list(found) == [(*way, k) for way in (("image", "text"), ("text", "image")) for k in (1, 5, 10)]
    for (query, gallery, k), recall in found.items():
        assert recall.value == pytest.approx(by_loops(vectors[query], vectors[gallery], k))
        assert recall.chance == k / 30
        assert recall.candidates == 30
        assert recall.low < recall.value < recall.high
    assert found["image", "text", 1].value < found["image", "text", 10].value


def test_features_that_are_all_alike_get_chance():
    vectors = {"image": torch.ones(20, 4), "text": torch.ones(20, 4)}
    for recall in retrieval(vectors):
        assert recall.value == pytest.approx(recall.chance)


def test_equal_captions_share_their_place():
    images = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.1, 0.0], [0.0, 0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = {(r.query, r.k): r.value for r in retrieval({"image": images, "text": texts}, ks=[1, 2])}
    assert found["image", 1] == pytest.approx((0.5 + 0.5 + 1) / 3)  # each of the two is the first at even odds
    assert found["image", 2] == 1.0
    assert found["text", 1] == pytest.approx((1 + 0 + 1) / 3)  # both texts are nearest to the first image


def test_order_and_length_change_nothing():
    vectors = pair(noise=0.5)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    turned = {name: 3 * values[order] for name, values in vectors.items()}
    assert [r.value for r in retrieval(vectors)] == pytest.approx([r.value for r in retrieval(turned)])


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="two modalities or more, of one shape"):
        retrieval({"image": torch.ones(3, 4), "text": torch.ones(3, 5)})
    with pytest.raises(ValueError, match="two modalities or more"):
        retrieval({"image": torch.ones(3, 4)})
