"""`benchmarks.latent`: what it counts, and that it trains, scores and prints."""

import pytest
import torch

from benchmarks.latent import ROWS, counts, main
from jepa_lightning import load_jepa
from modalities.video import ForkedClips


def test_codes_and_futures_are_counted():
    errors = torch.tensor([[0.1, 0.9, 0.2, 0.3], [0.5, 0.1, 0.6, 0.1], [0.9, 0.9, 0.9, 0.9]])
    assert counts(errors, torch.tensor([0, 1, 0, 0])).tolist() == [[2, 0], [1, 1], [0, 0]]


@pytest.mark.long
def test_it_trains_both_and_prints_tables(tmp_path, capsys):
    words = ["--trainer.max_steps", "2", "--data.dataset.init_args.samples", "8", "--data.batch_size", "4"]
    words += ["--data.val_dataset.init_args.samples", "4", "--trainer.max_epochs", "-1"]
    found = main(["--seeds", "0", "--samples", "8", "--out", str(tmp_path), "--json", str(tmp_path / "j.json"), *words])
    (rows,) = found["rows"]
    assert set(rows) == set(ROWS)
    jepa, clips = load_jepa(tmp_path / "0" / "latent"), ForkedClips(8, seed=0, split="test")
    batch = {"video": torch.from_numpy(clips.videos).permute(0, 4, 1, 2, 3)}
    prediction = jepa.step(batch, torch.Generator()).predictions[0]
    errors = [
        float((guess - prediction.target)[n].square().mean().detach())
        for n in range(8)
        for guess in prediction.predicted
    ]
    assert rows["best of four"] == pytest.approx(sum(min(errors[4 * n : 4 * n + 4]) for n in range(8)) / 8, rel=1e-4)
    assert sum(map(sum, found["counts"][0])) == 8
    said = capsys.readouterr().out
    assert "seed 0: best code" in said
    assert all(row in said for row in ROWS)
