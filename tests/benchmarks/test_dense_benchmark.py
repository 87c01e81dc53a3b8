"""`benchmarks.dense`: where the digit is, and that it trains, probes and prints."""

import numpy as np
import pytest
import torch

from benchmarks.dense import COLUMNS, METHODS, labels, main
from modalities.video import TubeletTokenizer

SIZES = [
    "--model.modality.encoder.width",
    "16",
    "--model.modality.encoder.depth",
    "3",
    "--model.modality.encoder.heads",
    "2",
]


def test_tokens_know_whether_they_hold_the_digit_and_where_it_is():
    video = torch.zeros(2, 1, 4, 32, 32)
    video[0, 0, :2, 5:8, 20:26] = 1.0  # rows 5 to 7, columns 20 to 25: two patches wide
    video[0, 0, 2:, 30:32, 0:2] = 1.0
    video[1, 0, :, 8:16, 8:16] = 1.0
    tokens = TubeletTokenizer(
        frames=4, image_size=(32, 32), tubelet=2, patch_size=(8, 8), channels=1, mean=[0.0], std=[1.0]
    )({"video": video})
    holds, centre = labels(tokens)
    assert holds[0].nonzero().flatten().tolist() == [2, 3, 16 + 12]
    assert holds[1].nonzero().flatten().tolist() == [5, 16 + 5]
    torch.testing.assert_close(centre[0, 0], torch.tensor([6.5 / 32, 23 / 32]))
    torch.testing.assert_close(centre[0, 20], torch.tensor([31 / 32, 1 / 32]))
    assert (centre[1] == 12 / 32).all()


@pytest.mark.long
def test_it_trains_probes_and_prints(tmp_path, capsys):
    draw = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        video = np.zeros((count, 20, 32, 32), dtype=np.uint8)
        for clip, (row, column) in zip(video, draw.integers(0, 24, (count, 2)), strict=True):
            clip[:, row : row + 8, column : column + 8] = 255
        (tmp_path / "data" / "moving_mnist").mkdir(parents=True, exist_ok=True)
        kinds = {"direction": np.arange(count) % 8, "digit": np.arange(count) % 10, "velocity": draw.random((count, 2))}
        np.savez(tmp_path / "data" / "moving_mnist" / f"{split}.npz", video=video, **kinds)
    words = ["--data", str(tmp_path / "data"), "--minutes", "0.0001", "--split", "test", "--out", str(tmp_path / "out")]
    words += ["--data.batch_size", "8", "--data.num_workers", "0", *SIZES]
    found = main([*words, "--json", str(tmp_path / "j.json")])
    assert [result["method"] for result in found] == list(METHODS)
    for result in found:
        assert set(result["scores"]) == {result["method"], "untrained", "raw"}
        assert result["scores"]["raw"][COLUMNS[0]] == pytest.approx(1, abs=0.02)
    said = capsys.readouterr().out
    assert all(word in said for word in (*METHODS, *COLUMNS, "untrained", "raw"))
