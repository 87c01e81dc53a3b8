"""Picking tokens, against plain loops."""

import pytest
import torch

from jepa_lightning.encoders import TokenSpec, ViT
from jepa_lightning.maskers import Random, Tube
from jepa_lightning.tokens import Latents, Masks, Ragged, Tokens, take


def generator():
    return torch.Generator().manual_seed(0)


def test_take_picks_a_context():
    values = torch.randn(3, 7, 2, 4, generator=generator())
    index = torch.randint(7, (3, 5), generator=generator())
    picked = take(values, index)
    assert picked.shape == (3, 5, 2, 4)
    for b in range(3):
        for k in range(5):
            assert torch.equal(picked[b, k], values[b, index[b, k]])


def test_take_picks_target_blocks():
    values = torch.randn(3, 7, 4, generator=generator())
    index = torch.randint(7, (3, 2, 6), generator=generator())
    picked = take(values, index)
    assert picked.shape == (3, 2, 6, 4)
    for b in range(3):
        for m in range(2):
            for t in range(6):
                assert torch.equal(picked[b, m, t], values[b, index[b, m, t]])


def test_take_shares_values_of_a_batch_of_one():
    positions = torch.randn(1, 7, 2, generator=generator())
    index = torch.randint(7, (4, 3, 5), generator=generator())
    picked = take(positions, index)
    assert picked.shape == (4, 3, 5, 2)
    for b in range(4):
        for m in range(3):
            for t in range(5):
                assert torch.equal(picked[b, m, t], positions[0, index[b, m, t]])


def test_take_works_on_scalars_a_token_and_on_other_memory_layouts():
    valid = torch.rand(3, 7, generator=generator()) > 0.5
    index = torch.randint(7, (3, 4), generator=generator())
    assert torch.equal(take(valid, index), valid.gather(1, index))
    turned = torch.randn(7, 3, 2, generator=generator()).transpose(0, 1)
    assert not turned.is_contiguous()
    assert torch.equal(take(turned, index), torch.stack([turned[b, index[b]] for b in range(3)]))


def test_gradient_of_take_adds_up_where_a_token_is_picked_twice():
    values = torch.randn(2, 5, 3, generator=generator(), dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[0, 0, 3], [4, 1, 4]])
    weight = torch.randn(2, 3, 3, generator=generator(), dtype=torch.float64)
    (take(values, index) * weight).sum().backward()
    expected = torch.zeros(2, 5, 3, dtype=torch.float64)
    for b in range(2):
        for k in range(3):
            expected[b, index[b, k]] += weight[b, k]
    torch.testing.assert_close(values.grad, expected)


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_take_refuses_an_index_for_another_number_of_samples(samples):
    with pytest.raises(ValueError, match=f"values hold 3 samples and the index {samples}"):
        take(torch.zeros(3, 5, 2), torch.zeros(samples, 4, dtype=torch.int64))


def tokens(valid=None):
    return Tokens(
        values=torch.randn(2, 6, 3, generator=generator()),
        positions=torch.randn(1, 6, 2, generator=generator()),
        grid=(2, 3),
        valid=valid,
    )


def test_sizes_of_tokens():
    few = tokens()
    assert (few.batch_size, few.count, few.device) == (2, 6, torch.device("cpu"))


def test_kept_tokens_have_their_own_values_and_positions_and_no_grid():
    few, keep = tokens(), torch.tensor([[5, 0], [2, 3]])
    kept = few.take(keep)
    for b in range(2):
        for k in range(2):
            assert torch.equal(kept.values[b, k], few.values[b, keep[b, k]])
            assert torch.equal(kept.positions[b, k], few.positions[0, keep[b, k]])
    assert kept.grid is None
    assert kept.valid is None
    assert kept.count == 2


@pytest.mark.parametrize("with_valid", [False, True])
@pytest.mark.parametrize("with_keep_valid", [False, True])
def test_a_kept_slot_is_valid_where_the_token_is_and_the_slot_is(with_valid, with_keep_valid):
    valid = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 1, 0, 1, 1]]).bool()
    keep = torch.tensor([[0, 3, 2, 5], [1, 2, 4, 0]])
    keep_valid = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 1]]).bool()
    kept = tokens(valid if with_valid else None).take(keep, keep_valid if with_keep_valid else None)
    if not (with_valid or with_keep_valid):
        assert kept.valid is None
        return
    for b in range(2):
        for k in range(4):
            token_is = bool(valid[b, keep[b, k]]) if with_valid else True
            slot_is = bool(keep_valid[b, k]) if with_keep_valid else True
            assert bool(kept.valid[b, k]) == (token_is and slot_is)


class Words(Ragged):
    """Strings of any length, B lists of N."""

    def __init__(self, words):
        self.words = words

    @property
    def shape(self):
        return (len(self.words), len(self.words[0]))

    def take(self, index, valid=None):
        valid = torch.ones_like(index, dtype=torch.bool) if valid is None else valid
        rows = zip(self.words, index.tolist(), valid.tolist(), strict=True)
        return Words([[mine[i] if v else "" for i, v in zip(at, real, strict=True)] for mine, at, real in rows])


def ragged(valid=None):
    words = Words([["a", "bb", "ccc"], ["d", "", "ee"]])
    return Tokens(values=words, positions=torch.arange(6.0).view(2, 3, 1), valid=valid)


def test_tokens_of_different_sizes_are_taken_by_their_own_class():
    few = ragged()
    assert (few.batch_size, few.count) == (2, 3)
    kept = few.take(torch.tensor([[2, 0], [1, 1]]))
    assert kept.values.words == [["ccc", "a"], ["", ""]]
    assert kept.positions.flatten().tolist() == [2, 0, 4, 4]
    assert kept.valid is None


def test_padding_and_filler_of_ragged_tokens_hold_nothing():
    valid = torch.tensor([[True, True, True], [True, False, False]])
    kept = ragged(valid).take(torch.tensor([[1, 2], [0, 2]]), torch.tensor([[True, False], [True, True]]))
    assert kept.values.words == [["bb", ""], ["d", ""]]
    assert kept.valid.tolist() == [[True, False], [True, False]]


def test_ragged_tokens_are_masked_by_number_and_refused_where_sizes_are_needed():
    (masks,) = Random(target_ratio=0.5)(ragged(), torch.Generator().manual_seed(0))
    assert masks.context.shape == (2, 1)
    spec = TokenSpec(shape=(1,), grid=None, positions=lambda width: torch.nn.Linear(1, width))
    with pytest.raises(ValueError, match=r"tokens of one size, got ragged ones: set the modality's TokenSpec.embed"):
        ViT(spec, width=8, depth=1, heads=1)(ragged())
    with pytest.raises(ValueError, match="Tube needs tokens of one size"):
        Tube()(Tokens(values=ragged().values, positions=ragged().positions, grid=(1, 3)), torch.Generator())


def test_masks_move_with_what_they_have():
    index = torch.zeros(2, 3, dtype=torch.int64)
    moved = Masks(context=index, targets=index[:, None], context_valid=index == 0).to(torch.device("meta"))
    assert moved.context.is_meta
    assert moved.targets.is_meta
    assert moved.context_valid.is_meta
    assert moved.targets_valid is None


@pytest.mark.parametrize("layers", [(), (3,)])
def test_latents_are_pooled_over_real_tokens_in_float32(layers):
    values = torch.randn(2, 4, *layers, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    valid = torch.tensor([[True, False, True, True], [False, False, True, False]])
    for real in (None, valid):
        found = Latents(values=values, valid=real).pooled()
        assert found.dtype == torch.float32
        for b in range(2):
            rows = [values[b, k].double() for k in range(4) if real is None or real[b, k]]
            torch.testing.assert_close(found[b].double(), sum(rows) / len(rows), rtol=1e-6, atol=1e-6)
    values[~valid] = torch.nan
    assert Latents(values=values, valid=valid).pooled().isfinite().all()
    assert (Latents(values=values, valid=torch.zeros_like(valid)).pooled() == 0).all()


def test_latents_without_gradient_are_otherwise_the_same():
    values = torch.randn(2, 3, 4, requires_grad=True)
    latents = Latents(values=values, positions=torch.zeros(1, 3, 2), valid=torch.ones(2, 3, dtype=torch.bool))
    kept = latents.detach()
    assert torch.equal(kept.values, values)
    assert not kept.values.requires_grad
    assert kept.positions is latents.positions
    assert kept.valid is latents.valid
