"""`jepa-view`: pictures of every kind for every modality, and what they show where the answer is known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from variants import TwoViews

from jepa_lightning import Frozen, load, load_jepa
from jepa_lightning.cli.view import view
from jepa_lightning.evaluation.token_errors import token_errors
from jepa_lightning.modality import Modality
from jepa_lightning.objectives import MSE
from jepa_lightning.pictures.attention import attention_of_probe
from jepa_lightning.pictures.chosen import ChosenSamples
from jepa_lightning.pictures.drawing import HOT
from jepa_lightning.pictures.legend import WIDTH
from jepa_lightning.pictures.letters import LINE
from jepa_lightning.pictures.neighbours import chance_of_same, nearest, same_label
from jepa_lightning.pictures.tokens import draw_heat
from jepa_lightning.pretexts import Masked

FAST = ["--device", "cpu", "--data.num_workers", "0"]


def run(capsys, *words):
    view([*map(str, words), *FAST])
    return capsys.readouterr().out


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        view([*map(str, words), *FAST])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    message = message[message.index("jepa-view: error:") :].strip()
    lines = [line for line in message.splitlines() if line != "(JEPA_TRACEBACK=1 shows where)"]
    assert len(lines) == 1, message
    return lines[0]


def pixels(path):
    with PILImage.open(path) as image:
        assert image.format == path.suffix[1:].upper()
        return np.asarray(image.convert("RGB")).astype(int)


def row(*widths, gap):
    return sum(widths) + gap * (len(widths) - 1)


def fits(size, height, width):
    """Whether a picture of this size, (H, W), is one of `height` and `width`, enlarged, above its legend."""
    factor = max(1, WIDTH // width)
    return size[1] == max(WIDTH, factor * width) and LINE <= size[0] - factor * height <= 4 * LINE


# Of two samples: height and width of the features, and of a sample alone; small pictures are enlarged.
SIZES = {
    "image": ((2 * 128 + 16, 2 * 128 + 4), (128, 128)),
    "video": ((2 * (2 * 128 + 4) + 16, row(*[128] * 8, gap=4)), (128, 128)),
    "audio": ((2 * (2 * 32 + 4) + 16, 192), (32, 192)),
    "pointcloud": ((2 * 112 + 16, 2 * 112 + 4), (112, 2 * 112 + 4)),
    "graph": ((2 * 224 + 16, 224), (224, 224)),
    "text": ((2 * 80 + 16, 448), (80, 448)),
}


@pytest.mark.usefixtures("quick_attentive")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == "video" else ()) for name in SIZES]
)
def test_every_modality(short_run, tmp_path, name, capsys):
    folder, _ = short_run(name)
    said = run(capsys, "--checkpoint", folder, "--samples", 2, "--neighbours", 3, "--out", tmp_path)
    drawn = ["masks_1", "masks_2", "masks_3", "features", "neighbours", "attention", "error"]
    moving = [f"{kind}.gif" for kind in drawn] if name == "video" else []
    files = [*(f"{kind}.png" for kind in drawn), *moving, "neighbours.json", "attention.json", "error.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    assert sorted(line for line in said.splitlines() if line.startswith(str(tmp_path))) == sorted(
        str(tmp_path / file) for file in files
    )
    of_features, of_sample = SIZES[name]
    for kind in ("attention", "error"):
        assert fits(pixels(tmp_path / f"{kind}.png").shape[:2], *of_features), kind
    tall, wide = of_features
    under = {"video": 2 * tall + 16, "text": 2 * tall - 16 + 2 * 4}  # before and after training
    both = (under[name], wide) if name in under else (tall, 2 * wide + 16)
    assert fits(pixels(tmp_path / "features.png").shape[:2], *both)
    height, width = of_sample
    expected = (2 * (height + LINE) + 8, row(width, 2, width, width, width, gap=8))  # the class below each
    assert fits(pixels(tmp_path / "neighbours.png").shape[:2], *expected)
    for file in files:
        if not file.endswith("json"):
            assert len(np.unique(pixels(tmp_path / file) @ (65536, 256, 1))) > 8, file
    pictures = [pixels(tmp_path / f"{kind}.png") for kind in drawn if kind != "neighbours"]
    assert all(
        one.shape != other.shape or (one != other).any()
        for place, one in enumerate(pictures)
        for other in pictures[:place]
    )
    if name == "video":
        with PILImage.open(tmp_path / "neighbours.gif") as gif:
            assert gif.n_frames == 16
            assert fits(gif.size[::-1], *expected)
    error = json.loads((tmp_path / "error.json").read_text())
    assert f"mean prediction error: {error['mean']:.4f}" in said
    for kind in ("error", "attention"):
        for sample in json.loads((tmp_path / f"{kind}.json").read_text())["samples"]:
            assert sample["min"] < sample["mean"] < sample["max"], kind
    found = json.loads((tmp_path / "neighbours.json").read_text())
    assert len(found["samples"]) == 2
    for sample in found["samples"]:
        similarities = [neighbour["similarity"] for neighbour in sample["neighbours"]]
        assert similarities == sorted(similarities, reverse=True)
        assert len(similarities) == 3
        assert sample["id"] not in {neighbour["id"] for neighbour in sample["neighbours"]}
    assert all(set(share) == {"trained", "untrained", "chance"} for share in found["same_label"].values())
    assert found["same_label"]


@pytest.fixture
def copies(tmp_path):
    """Three copies each of four images, a class for each image; the first has a fourth, broken copy."""
    for kind in range(4):
        values = np.random.default_rng(kind).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        for copy in range(3):
            path = tmp_path / "images" / f"kind{kind}" / f"{copy}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PILImage.fromarray(values).save(path)
    (tmp_path / "images" / "kind0" / "9.png").write_bytes(b"broken")
    return tmp_path / "images"


def test_duplicates_are_the_neighbours(short_run, copies, tmp_path, capsys):
    folder, _ = short_run("image")
    words = ["--checkpoint", folder, "--data.root", copies, "--data.val_fraction", 0, "--data.max_unreadable", 0.2]
    chosen = [f"images/kind{kind}/1.png" for kind in (3, 0)]
    words += ["--split", "train", "--neighbours", 2, "--data.cache", "false", "--out", tmp_path / "view"]
    said = run(capsys, "neighbours", *words, "--ids", *chosen)
    found = json.loads((tmp_path / "view" / "neighbours.json").read_text())
    assert found["gallery"] == 12
    assert [sample["id"] for sample in found["samples"]] == chosen
    for sample in found["samples"]:
        assert {other["id"] for other in sample["neighbours"]} == {
            sample["id"].replace("1.png", f"{copy}.png") for copy in (0, 2)
        }
        for other in sample["neighbours"]:
            assert other["similarity"] == pytest.approx(1)
            assert other["labels"] == sample["labels"] == {"label": sample["id"].split("/")[-2]}
    shares = found["same_label"]["label"]
    assert (shares["trained"], shares["untrained"]) == (1, 1)
    assert shares["chance"] == pytest.approx(2 / 11, rel=1e-4)
    picture = pixels(tmp_path / "view" / "neighbours.png")
    for top in (0, 128 + 8):
        query, *others = (picture[top : top + 128, left : left + 128] for left in (0, 146, 146 + 136))
        assert all(np.array_equal(query, other) for other in others)
    assert "skipped, since it cannot be read" in said
    assert "9.png" in said


def test_nearest_among_groups():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 8, generator=generator)
    labels = torch.arange(5).repeat_interleave(4)
    scale = torch.rand(20, 1, generator=generator) + 0.5  # cosine knows no lengths
    features = centres[labels] * scale
    index, similarity = nearest(features, k=3)
    assert (labels[index] == labels[:, None]).all()
    assert (index != torch.arange(20)[:, None]).all()
    torch.testing.assert_close(similarity, torch.ones(20, 3))
    chosen = nearest(features, k=3, rows=torch.tensor([7, 2]))[0]
    assert torch.equal(chosen.sort().values, index[[7, 2]].sort().values)  # all are as near as each other
    assert nearest(features[:3], k=9)[0].shape == (3, 2)
    assert same_label(labels, index) == 1
    labels[0] = -1
    assert np.isnan(same_label(labels, torch.zeros(20, 2, dtype=torch.int64)))  # of no pair is anything known
    assert chance_of_same(torch.tensor([0, 0, 1, -1])) == pytest.approx(1 / 3)


# Errors ---------------------------------------------------------------------------------------------------------


def test_a_planted_error_is_found_where_it_was_planted(make_jepa):
    jepa = make_jepa(objective=MSE()).eval()
    planted = torch.tensor([5, 10])
    jepa.pretext.targets = lambda target, tokens, masks: ([torch.zeros(*m.targets.shape, 32) for m in masks], [])

    def predict(context, query):
        targets = (query.positions * torch.tensor([4, 1])).sum(-1)
        wrong = 0.2 + 1.8 * (targets == planted[:, None, None]).float()
        return wrong.unsqueeze(-1).expand(-1, -1, -1, 32)

    jepa.predictor.forward = predict
    batch = {"image": torch.zeros(2, 3, 32, 32)}
    found = token_errors(jepa, batch)
    expected = torch.full((2, 16), 0.04)
    expected[torch.arange(2), planted] = 4.0
    torch.testing.assert_close(found.values, expected)
    assert int(found.times.min()) >= 8
    assert found.draws < 64
    drawn = draw_heat(jepa.modality, batch, found.tokens, found.values)
    for place, picture in zip(planted.tolist(), drawn, strict=True):
        cells = picture[:, :, 128 + 4 :].float().unflatten(1, (4, 32)).unflatten(3, (4, 32)).mean((2, 4)).flatten(1)
        colours = (torch.tensor(HOT) * 255).round()
        assert torch.equal(cells[:, place], colours[-1])
        others = [cell for cell in range(16) if cell != place]
        assert torch.equal(cells[:, others], colours[0][:, None].expand(-1, 15))


@pytest.mark.parametrize("sees", ["all", "targets"])
def test_the_mean_error_is_the_loss(make_jepa, sees):
    jepa = make_jepa(pretext=Masked(target_sees=sees)).eval()
    batch = {"image": torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
    found = token_errors(jepa, batch, draws=1, seed=3)
    with torch.no_grad():
        losses = jepa.losses(jepa.step(batch, torch.Generator().manual_seed(3)))
        (mask,) = jepa.masker(jepa.tokenizer(batch), torch.Generator().manual_seed(3))
    assert found.mean == pytest.approx(float(losses["prediction"]), rel=1e-5)
    hidden = torch.zeros(4, 16, dtype=torch.bool).scatter_(1, mask.targets.flatten(1), True)
    assert torch.equal(found.values.isfinite(), hidden)
    assert torch.equal(found.times > 0, hidden)
    assert found.draws == 1
    with pytest.raises(ValueError, match="at least 1 draw"):
        token_errors(jepa, batch, draws=0)


def test_errors_are_those_of_masked_prediction(make_jepa):
    with pytest.raises(ValueError, match="errors of tokens are those of masked prediction"):
        token_errors(make_jepa(pretext=TwoViews()), {"image": torch.zeros(2, 3, 32, 32)})


def test_padding_has_no_error(short_run):
    folder, _ = short_run("graph")
    jepa = load_jepa(folder)
    data = load(folder).data(num_workers=0)
    batch = next(iter(data.val_dataloader()))
    batch["graph"].counts[0] = 3  # whose other patches become padding
    found = token_errors(jepa, batch, enough=2)
    valid = found.tokens.valid
    assert not valid.all()
    assert torch.equal(found.values.isfinite(), valid)
    assert int(found.times[valid].min()) >= 2


def test_the_whole_jepa_is_loaded(short_run):
    folder, trained = short_run("image")
    before = torch.get_rng_state()
    jepa = load_jepa(folder)
    assert torch.equal(torch.get_rng_state(), before)
    stored, own = trained.model.state_dict(), jepa.state_dict()
    assert stored.keys() == own.keys()
    assert all(torch.equal(value, own[key]) for key, value in stored.items())
    assert any(key.startswith("predictor.") for key in own)
    assert not any(part.training for part in jepa.modules())
    assert jepa.run_seed == trained.model.run_seed
    with pytest.raises(ValueError, match="does not exist"):
        load_jepa(folder / "nowhere")


# Attention ------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_attention_finds_the_token_that_tells_the_class():
    """One token of each sample, marked by its first channel, has the class; batches differ in their padding."""
    generator = torch.Generator().manual_seed(0)
    batches, places = [], []
    for size in (5, 7, 6, 7):
        features = 0.3 * torch.randn(64, size, 6, generator=generator)
        place = torch.randint(size, (64,), generator=generator)
        kind = torch.randint(2, (64,), generator=generator)
        row = torch.arange(64)
        features[row, place, 0] = 3.0
        features[:, :, 1] = torch.randint(2, (64, size), generator=generator) * 2.0 - 1
        features[row, place, 1] = kind * 2.0 - 1
        places.append(place)
        batches.append({"features": features, "labels": {"noise": torch.rand(64), "kind": kind}})
    stub = SimpleNamespace(tokens=lambda batch: (batch["features"], None))
    fitted = attention_of_probe(stub, batches, seed=1)
    assert (fitted.label, fitted.samples) == ("kind", 256)
    weight, predicted = fitted.of(batches[1]["features"])
    torch.testing.assert_close(weight.sum(1), torch.ones(64))
    assert (weight.argmax(1) == places[1]).float().mean() > 0.95
    assert (predicted == batches[1]["labels"]["kind"]).float().mean() > 0.95
    assert attention_of_probe(stub, batches, numbers=100).samples == 64
    assert attention_of_probe(stub, batches, label="noise").of(batches[0]["features"])[1].shape == (64, 1)


def test_data_without_labels(short_run, copies, tmp_path, capsys):
    folder, _ = short_run("image")
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(copies.glob("kind[123]/*.png"))):
        path.rename(flat / f"{number}.png")
    words = ["--checkpoint", folder, "--data.root", flat, "--data.val_fraction", 0, "--split", "train"]
    said = run(capsys, "attention", "neighbours", *words, "--out", tmp_path / "view", "--data.cache", "false")
    assert "attention: left out, since the data have no labels" in said
    assert sorted(path.name for path in (tmp_path / "view").iterdir()) == ["neighbours.json", "neighbours.png"]
    assert json.loads((tmp_path / "view" / "neighbours.json").read_text())["same_label"] == {}


# The command ----------------------------------------------------------------------------------------------------


def test_beside_the_run_with_chosen_draws(short_run, capsys, tmp_path):
    folder, _ = short_run("image")
    run(capsys, "masks", "--checkpoint", folder, "--samples", 2)
    names = [f"masks_{draw}.png" for draw in (1, 2, 3)]
    assert sorted(path.name for path in (folder / "view").iterdir()) == names
    first = [pixels(folder / "view" / name) for name in names]
    run(
        capsys,
        "--checkpoint",
        folder / "checkpoints" / "last.ckpt",
        "--samples",
        2,
        "--seed",
        1,
        "--data.seed",
        0,
        "masks",
    )
    second = [pixels(folder / "view" / name) for name in names]
    run(capsys, "--checkpoint", folder, "masks", "--samples", 2)
    again = [pixels(folder / "view" / name) for name in names]
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert not any(one.shape == other.shape and (one == other).all() for one in first for other in second)


@pytest.mark.usefixtures("quick_attentive")
def test_the_context_encoder_and_the_chosen_label(short_run, capsys, tmp_path):
    folder, _ = short_run("image")
    for encoder in ("target", "context"):
        words = ["--checkpoint", folder, "--samples", 2, "--encoder", encoder, "--out", tmp_path / encoder]
        run(capsys, "features", "attention", *words, "--label", "shape")
    one, other = (pixels(tmp_path / encoder / "features.png") for encoder in ("target", "context"))
    assert (one != other).any()
    assert json.loads((tmp_path / "context" / "attention.json").read_text())["label"] == "shape"


def test_what_cannot_be_drawn_is_said(short_run, capsys, tmp_path, monkeypatch):
    folder, _ = short_run("image")

    def no_network(self, **settings):
        raise OSError("no network")

    monkeypatch.setattr(Frozen, "untrained", no_network)
    chosen = load(folder).modality.__class__
    for name in ("draw_samples", "draw_masks"):
        monkeypatch.setattr(chosen, name, getattr(Modality, name))
    said = run(capsys, "neighbours", "masks", "features", "--checkpoint", folder, "--out", tmp_path)
    assert "the modality image draws no samples" in said
    assert "masks_1: the modality image draws none" in said
    assert said.count("no pictures of the untrained encoder: no network") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.png", "neighbours.json"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["eror"], "among masks, features, neighbours, attention, error, predictions, got 'eror'; did you mean error?"),
        (["--sampels", "3"], "did you mean --samples?"),
        (["--samples", "0"], "expected samples of at least 1, got 0"),
        (["--ids", "val[9999]"], "expected ids of the split val, got 'val[9999]'"),
        (["--split", "test"], "expected a split test, but these data have only train, val"),
        (["attention", "--label", "sise"], "no label 'sise' in the data: it has ["),
        (["--data.rot", "x"], "no option 'rot'; did you mean root?"),
        (["--data.root", "no/such"], "no folder"),
        (["--data", "AudioData"], "modality image"),
        (["--encoder", "studen"], "encoder: expected 'target', 'context' or null, got studen"),
        (["--checkpoint", "nowhere"], "does not exist"),
    ],
)  # fmt: skip
def test_mistakes_end_in_a_line(short_run, tmp_path, capsys, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    folder, _ = short_run("image")
    before = sorted(folder.rglob("*"))
    assert says in refused(capsys, "--checkpoint", folder, *words)
    assert not list(tmp_path.iterdir())
    assert sorted(folder.rglob("*")) == before


def test_a_checkpoint_without_a_place(short_run, tmp_path, capsys):
    folder, _ = short_run("image")
    bare = tmp_path / "mine.ckpt"
    bare.write_bytes((folder / "checkpoints" / "last.ckpt").read_bytes())
    assert "expected out, a folder," in refused(capsys, "--checkpoint", bare, "--data", "ImageData")
    assert "got the file" in refused(capsys, "--checkpoint", bare, "--data", "ImageData", "--out", bare)


def test_samples_are_spread_over_a_split(make_data):
    samples = ChosenSamples(make_data(drop_last=False), "val")
    assert len(samples) == 12
    assert samples.spread(3) == [0, 6, 11]
    assert samples.spread(50) == list(range(12))
    batch = samples.read([11, 3])
    assert batch["position"] == [11, 3]
    assert samples.find(batch["id"]) == [11, 3]
    whole = list(samples.batches(range(12)))
    assert [place for part in whole for place in part["position"]] == list(range(12))
    image = torch.cat([part["image"] for part in whole])
    assert torch.equal(batch["image"], image[[11, 3]])
