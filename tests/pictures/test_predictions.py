"""Nearest samples to predictions: against plain loops, and what a run's picture holds."""

import json

import pytest
import torch
import torch.nn.functional as F

from jepa_lightning.cli.view import view
from jepa_lightning.objectives import MSE
from jepa_lightning.pictures.predictions import distances, expected, nearest_samples
from jepa_lightning.pretexts import Dense, LatentCodes, Masked


def batches(count, size):
    images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = range(0, count, size)
    return [
        {
            "image": images[i : i + size],
            "position": list(range(i, i + size)),
            "id": [f"s{n}" for n in range(i, i + size)],
        }
        for i in rows
    ]


@pytest.mark.parametrize("pretext", [Masked, Dense, lambda: LatentCodes(codes=3)])
def test_the_distance_is_that_to_what_another_sample_has_where_it_is_hidden(make_jepa, pretext):
    jepa = make_jepa(pretext=pretext(), objective=MSE()).eval()
    some, more = batches(6, 3)
    found = expected(jepa, some, seed=4)
    apart, positions, ids = distances(jepa, found, [some, more])
    assert (positions, ids) == (list(range(6)), [f"s{n}" for n in range(6)])
    assert apart.shape == (3 if isinstance(jepa.pretext, LatentCodes) else 1, 3, 6)
    tokens = jepa.tokenizer({"image": torch.cat([some["image"], more["image"]])})
    targets = F.layer_norm(jepa.target(tokens), (32,))
    for s in range(len(apart)):
        for b in range(3):
            for n in range(6):
                own = targets[n, found.masks.targets[b]]
                assert float(apart[s, b, n]) == pytest.approx(
                    float((found.values[s, b] - own).square().mean()), rel=1e-4
                )
    torch.testing.assert_close(found.errors, apart[:, range(3), range(3)])


def test_a_sample_is_not_its_own_neighbour_and_clips_of_one_video_count_once(make_jepa):
    apart = torch.tensor([[[0.0, 3.0, 1.0, 2.0]]])
    index, value = nearest_samples(apart, [7, 8, 9, 5], [7], k=5)
    assert index.tolist() == [[[2, 3, 1]]]
    assert value.tolist() == [[[1.0, 2.0, 3.0]]]
    jepa = make_jepa(objective=MSE()).eval()
    (some,) = batches(4, 4)
    single = distances(jepa, expected(jepa, some), [some])[0]
    twice = {**some, "position": [0, 1, 1, 2]}
    found, positions, ids = distances(jepa, expected(jepa, some), [twice])
    assert (positions, ids) == ([0, 1, 2], ["s0", "s1", "s3"])
    torch.testing.assert_close(found[..., 1], single[..., 1:3].amin(-1))


@pytest.mark.long
def test_the_picture_of_a_run(short_run, tmp_path, capsys):
    words = [
        "--device",
        "cpu",
        "--data.num_workers",
        "0",
        "--out",
        str(tmp_path),
        "--samples",
        "2",
        "--neighbours",
        "3",
    ]
    view(["predictions", "--checkpoint", str(short_run("video")[0]), *words])
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix) == [
        f"predictions.{e}" for e in ("gif", "json", "png")
    ]
    found = json.loads((tmp_path / "predictions.json").read_text())
    for sample in found["samples"]:
        (only,) = sample["predictions"]
        apart = [other["distance"] for other in only["nearest"]]
        assert len(apart) == 3
        assert apart == sorted(apart)
        assert sample["id"] not in {other["id"] for other in only["nearest"]}
    assert "mean prediction error" in capsys.readouterr().out
    view(["predictions", "--checkpoint", str(short_run("graph")[0]), *words])
    assert "predictions: left out, since samples differ in the number or the places" in capsys.readouterr().out
