"""Token features kept in memory or in a file."""

import os
import tempfile

import numpy as np
import pytest
import torch

from jepa_lightning.evaluation.features.extraction import PoolAndStore
from jepa_lightning.evaluation.features.token_store import TokenStore, join_clips


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("limit", [2**30, 200, 0])
@pytest.mark.parametrize("ragged", [False, True])
def test_what_comes_out_is_what_went_in(scratch, limit, ragged):
    sizes = [(4, 5), (3, 7 if ragged else 5), (2, 5)]
    batches = [torch.randn(samples, tokens, 3) for samples, tokens in sizes]
    masks = [torch.rand(batch.shape[:2]) > 0.4 if ragged else None for batch in batches]
    store = TokenStore(limit=limit)
    for batch, mask in zip(batches, masks, strict=True):
        store.append(batch, mask)
    on_disk = list(scratch.glob("jepa-tokens-*"))
    assert len(on_disk) == (limit < 2**30)
    found = store.finish()
    assert found.values.dtype == torch.float16
    assert found.values.shape == (9, 7 if ragged else 5, 3)
    assert (found.valid is None) is not ragged
    row = 0
    for batch, mask in zip(batches, masks, strict=True):
        for i in range(len(batch)):
            real = torch.ones(batch.shape[1], dtype=torch.bool) if mask is None else mask[i]
            mine = found.values[row] if found.valid is None else found.values[row][found.valid[row]]
            assert torch.equal(mine, batch[i][real].half())
            row += 1
    del store, batch
    assert not list(scratch.glob("jepa-tokens-*"))  # what is mapped stays readable
    assert found.values.float().isfinite().all()


@pytest.mark.skipif(os.name == "nt", reason="mapped files cannot be removed")
def test_rows_of_a_mapped_file_are_read_one_by_one(scratch):
    store = TokenStore(limit=0)
    for number in range(50):
        store.append(torch.full((2, 4, 8), float(number)))
    found = store.finish().values
    rows = torch.tensor([99, 0, 51])
    assert found[rows][:, 0, 0].tolist() == [49, 0, 25]


def test_numbers_out_of_range_are_cut_and_diverged_ones_stay_so():
    store = TokenStore()
    store.append(torch.tensor([[[1e6, -1e6, 1.0]], [[torch.inf, 0.0, 0.0]]]))
    values = store.finish().values
    assert values[0, 0].tolist() == [65504, -65504, 1]
    assert not values[1].isfinite().all()
    with pytest.raises(ValueError, match="at least one batch"):
        TokenStore().finish()


def test_clips_of_one_video_are_one_sample():
    tokens = torch.arange(5.0).view(5, 1, 1).expand(5, 2, 3)
    valid = torch.tensor([[True, True], [True, False], [True, True], [True, True], [False, True]])
    joined, real = join_clips(tokens, valid, ["b", "a", "b", "b", "a"])
    assert joined.shape == (2, 6, 3)
    assert joined[0, real[0], 0].tolist() == [0, 0, 2, 2, 3, 3]
    assert joined[1, real[1], 0].tolist() == [1, 4]


def test_an_embedder_that_keeps_its_tokens_runs_the_encoder_once():
    calls = []

    def tokens(batch):
        calls.append(batch)
        return batch["x"], None, batch["x"].mean(1)

    keeping = PoolAndStore(tokens, TokenStore())
    x = torch.randn(4, 3, 2)
    assert torch.equal(keeping({"x": x, "source": ["a", "a", "b", "b"]}), x.mean(1))
    assert torch.equal(keeping({"x": x[:2], "source": ["c", "c"]}), x[:2].mean(1))
    found = keeping.store.finish()
    assert len(calls) == 2
    assert found.values.shape == (3, 6, 2)
    assert np.allclose(found.values[1].float(), x[2:].flatten(0, 1), atol=1e-2)
