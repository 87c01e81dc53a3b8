"""Short errors, from what the parser really says."""

import re
import sys
from types import ModuleType

import pytest
import yaml
from jsonargparse import ActionConfigFile
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser
from torch.utils.data import Dataset

from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.parser import Parser
from jepa_lightning.config.messages import LINES, shorten
from jepa_lightning.encoders import Encoder, ViT
from jepa_lightning.maskers import Masker
from jepa_lightning.modality import EncoderFactory, Modality
from jepa_lightning.schedules import Schedule, WarmupCosine
from modalities.image import Image, ImageData

MANY_LINES = [f"reason {number}" for number in range(30)]


class Model:
    """A model with the kinds of settings that ours have."""

    def __init__(
        self,
        modality: Modality,
        rate: Schedule = WarmupCosine(peak=1.0),
        width: int = 4,
        name: str | None = None,
        scale: tuple[float, float] = (0.1, 0.2),
        compile: bool = False,
    ) -> None:
        self.modality = modality


@pytest.fixture
def parser():
    assert all((Image, ImageData, ViT))  # imported, so that they are known by their short names
    parser = Parser(exit_on_error=True)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_class_arguments(Model, "model")
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    return parser


@pytest.fixture
def said(parser, capsys):
    """What a user sees of a mistake, without the prefix."""

    def said(*words):
        with pytest.raises(SystemExit) as end:
            parser.parse_args(list(words))
        assert end.value.code == 2
        text = capsys.readouterr().err
        assert text.startswith("jepa-fit: error: ")
        assert "Traceback" not in text
        assert "usage:" not in text
        return text.removeprefix("jepa-fit: error: ").strip()

    return said


def test_a_mistyped_option(said):
    assert said("--model.widht", "3") == "no option --model.widht; did you mean --model.width?"
    assert said("--model.widht=3") == "no option --model.widht; did you mean --model.width?"


def test_a_mistyped_option_of_a_class(said):
    text = said("--model.modality=Image", "--model.modality.patch_sise=3")
    assert text == "model.modality: Image has no option 'patch_sise'; did you mean patch_size?"


def test_a_mistyped_option_that_a_class_takes_from_its_base(said):
    text = said("--data=ImageData", "--data.batch_sise=3")
    assert text == "data: ImageData has no option 'batch_sise'; did you mean batch_size?"


def test_a_mistyped_option_two_classes_deep(said):
    text = said("--model.modality=Image", "--model.modality.masker=MultiBlock", "--model.modality.masker.target=3")
    assert "MultiBlock has no option 'target'; did you mean targets?" in text
    assert len(text.splitlines()) == 1


def test_a_mistyped_class(said):
    text = said("--model.modality=Imgae")
    assert text == "model.modality: no class 'Imgae'; did you mean Image?"
    assert said("--model.rate=WarmupCosin") == "model.rate: no class 'WarmupCosin'; did you mean WarmupCosine?"


def test_a_class_that_cannot_be_imported(said):
    for path, part in (("nowhere.Image", "No module named"), ("modalities.image.Imag", "")):
        text = said(f"--model.modality={path}")
        assert text.startswith(f"model.modality: cannot import {path}: {part}")
        assert len(text.splitlines()) == 1


def test_what_must_be_given(said):
    text = said("--model.width=3")
    assert "--data" in text
    assert "--model.modality" in text
    assert "jepa-fit image.yaml" in text


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--model.width=wide",), ("model.width: expected int, got wide",)),
        (("--model.compile=maybe",), ("model.compile: expected bool, got maybe",)),
        (("--model.rate=WarmupCosine", "--model.rate.peak=high"), ("model.rate.peak: expected float, got high",)),
        (
            ("--model.modality=Image", "--model.modality.encoder=ViT", "--model.modality.encoder.width=wide"),
            ("model.modality.encoder.width: expected int, got wide",),
        ),
        (("--data=ImageData", "--data.batch_size=wide"), ("data.batch_size: expected int, got wide",)),
        (("--data=ImageData", "--data.mean=grey"), ("data.mean: expected", "auto", "null, got grey")),
        (
            ("--model.modality=Image", "--model.modality.image_size=abc"),
            ("image_size: expected int or tuple, got abc",),
        ),
    ],
)
def test_a_value_of_another_type(said, words, parts):
    text = said(*words)
    assert all(part in text for part in parts), text
    assert len(text.splitlines()) == 1


def long_winded(*lines):
    class Refusing(Dataset):
        """A data set of somebody's own."""

        def __init__(self, why: int = 0) -> None:
            raise ValueError("\n".join(lines))

    return Refusing


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("--data=ImageData", "--data.dataset=Shards", "--data.dataset.urls=no.tar"),
            "Shards: expected a tar file no.tar, but there is none: check dataset.urls",
        ),
        (
            ("--data=ImageData", "--data.dataset=ShardStream", "--data.dataset.urls=pipe:ls"),
            "ShardStream: expected a path or a URL, got the shell command 'pipe:ls': name the file's own URL",
        ),
        (("--data=ImageData", "--data.batch_size=0"), "ImageData: expected batch_size of at least 1, got 0"),
        (
            ("--data=ImageData", "--model.modality.masker=Random", "--model.modality.masker.target_ratio=3"),
            "Random: target_ratio must lie between 0 and 1, got 3.0",
        ),
        (("--data=ImageData", "--data.dataset=test_messages.ONE"), "ONE: the only line"),
        (("--data=ImageData", "--data.val_dataset=test_messages.MANY"), "MANY: " + "\n".join(MANY_LINES)),
    ],
)
def test_the_reason_why_a_class_refused_its_settings_is_whole(parser, monkeypatch, words, expected):
    """However deep it lies, and however long it is; without what else the parser has tried."""
    module = ModuleType("test_messages")
    module.ONE, module.MANY = long_winded("the only line"), long_winded(*MANY_LINES)
    monkeypatch.setitem(sys.modules, "test_messages", module)
    with pytest.raises((SystemExit, ValueError)) as error:
        parser.instantiate_classes(parser.parse_args(["--model.modality=Image", *words]))
    text = shorten(str(error.value), parser)
    assert text.startswith(expected), text
    assert "Errors:" not in text
    assert "Namespace" not in text


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "Early stopping conditioned on metric `val_loss` which is not available. Pass in or modify your "
            "`EarlyStopping` callback to use any of the following: `train/loss`, `val/loss`",
            "EarlyStopping: no metric 'val_loss' is logged; did you mean val/loss? Among those that are: train/loss, "
            "val/loss.",
        ),
        (
            "`ModelCheckpoint(monitor='acc')` could not find the monitored key in the returned metrics: "
            "['train/loss', 'epoch']. HINT: Did you call `log('acc', value)` in the `LightningModule`?",
            "ModelCheckpoint: no metric 'acc' is logged. Among those that are: train/loss, epoch.",
        ),
        (
            "ReduceLROnPlateau conditioned on metric val_loss which is not available. Available metrics are: "
            "['val/loss']. Condition can be set using `monitor` key in lr scheduler dict",
            "ReduceLROnPlateau: no metric 'val_loss' is logged; did you mean val/loss? Among those that are: val/loss.",
        ),
    ],
)
def test_a_metric_that_is_not_there(message, said):
    assert shorten(message) == said


def test_options_of_a_class_that_was_not_named(said):
    text = said("--model.modality.image_size=32")
    assert "name a class first" in text
    assert "--model.modality" in text


def test_strange_messages_are_cut():
    text = shorten("\n".join(f"line {i}" for i in range(50)) + "\n\n")
    assert text.splitlines() == [*(f"line {i}" for i in range(LINES)), "..."]
    assert shorten("one\n\ntwo") == "one\ntwo"
    assert shorten("  as it is \n") == "as it is"


def test_an_error_in_a_loaders_worker_is_its_last_line():
    message = (
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
    )
    assert shorten(message + "ValueError: the image is too small") == "ValueError: the image is too small"
    listed = (
        "jepa_lightning.data.errors.DataError: 2 of 3 samples cannot be read\n  a.png (cut off)\n  b.png: (cut off)"
    )
    assert shorten(message + listed) == listed


@pytest.mark.parametrize(
    ("words", "old", "new"),
    [
        (["--model.momentum", "LinearRamp"], "model.momentum", "model.target.momentum"),
        (["--model.momentum.start=0.5"], "model.momentum", "model.target.momentum"),
        (["--config", "old.yaml"], "model.momentum", "model.target.momentum"),
        (["--model.target_sees", "targets"], "model.target_sees", "model.pretext.target_sees"),
    ],
)
def test_options_that_have_moved_say_where_to(words, old, new, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ramp = {"class_path": "LinearRamp", "init_args": {"start": 0.97, "end": 1.0}}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({"model": {"momentum": ramp}}))
    with pytest.raises(SystemExit):
        fit(["--config", "image.yaml", *words])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"jepa-fit: error: {old} is now {new} (")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("target.momentum.strat", "model.target.momentum: LinearRamp has no option 'strat'; did you mean start?"),
        ("target.momentumm.start", "model.target: EMA has no option 'momentumm'; did you mean momentum?"),
        ("target.half_cpoy", "model.target: EMA has no option 'half_cpoy'; did you mean half_copy?"),
        ("modality.encoder.wdith", "model.modality.encoder: ViT has no option 'wdith'; did you mean width?"),
        (
            "modality.masker.taregts.x",
            "model.modality.masker: MultiBlock has no option 'taregts'; did you mean targets?",
        ),
        ("modality.masker.min_context.x", "model.modality.masker.min_context: expected int, got an option 'x' of it"),
        ("learning_rate.paek", "model.learning_rate: WarmupCosine has no option 'paek'; did you mean peak?"),
    ],
)
def test_a_mistyped_option_of_a_class_within_a_class_is_that_class_s(option, said, capsys):
    with pytest.raises(SystemExit):
        fit(["--config", "image.yaml", f"--model.{option}", "1"])
    assert capsys.readouterr().err.strip() == f"jepa-fit: error: {said}"


def test_every_swappable_base_is_searched_for_names():
    """The classes that a user can name have bases that the nearest name is looked for among."""
    from jepa_lightning.config.kinds import subclasses
    from jepa_lightning.config.messages import SWAPPABLE

    known = {cls.__name__ for base in SWAPPABLE for cls in subclasses(base)}
    for name in ("Image", "ImageData", "ViT", "TimmEncoder", "MultiBlock", "Random", "TransformerPredictor"):
        assert name in known
    for name in ("SmoothL1", "Cosine", "VICReg", "LinearRamp", "AdamW", "CollapseMonitor"):
        assert name in known
    for name in ("Masked", "EMA", "Online", "Pretrained", "AdaLNPredictor", "MLPPredictor"):
        assert name in known
    assert {Encoder, Masker, Modality} <= set(SWAPPABLE)
    assert EncoderFactory is not None


def test_the_parser_is_lightnings_with_another_error():
    assert issubclass(Parser, LightningArgumentParser)
    assert not re.search(r"\n.*\n", shorten("a\nb"))
