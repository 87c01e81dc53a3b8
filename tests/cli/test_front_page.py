"""`jepa-fit` without a run: help, lists, version, short forms, and what is said of foreign words."""

import subprocess
import sys

import pytest

from jepa_lightning._version import __version__
from jepa_lightning.cli.fit import fit
from jepa_lightning.config.kinds import KINDS, classes_of
from jepa_lightning.config.shipped import shipped
from jepa_lightning.config.suggestions import SYNONYMS, suggest
from jepa_lightning.config.words import class_names, config_settings, spell_out
from jepa_lightning.data.shared import FileSettings, OtherDataSettings


def said(words, capsys):
    """What a user sees of a mistake."""
    with pytest.raises(SystemExit) as end:
        fit(words)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("jepa-fit: error: ")
    assert "Traceback" not in error
    return error.removeprefix("jepa-fit: error: ").strip()


def test_help_fits_a_screen_and_loads_nothing_that_computes():
    code = """
import sys
from jepa_lightning.cli.fit import fit
for words in ([], ["-h"], ["--help"], ["--version"]):
    fit(words)
found = {"torch", "lightning", "sklearn", "numpy", "jsonargparse"} & set(sys.modules)
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = done.stdout[: done.stdout.rindex("jepa-lightning ")]
    assert page.count(page[: len(page) // 3]) == 3  # the same thrice
    lines = page[: len(page) // 3].splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    assert sum(line.startswith("  jepa-fit image.yaml") for line in lines) == 3  # examples
    assert done.stdout.splitlines()[-1] == f"jepa-lightning {__version__}"


def test_lists_name_everything_with_a_line_each(capsys):
    fit(["list"])
    blocks = [block.splitlines() for block in capsys.readouterr().out.strip().split("\n\n")]
    assert [block[0] for block in blocks] == list(KINDS)
    rows = {block[0]: [line.split(maxsplit=1) for line in block[1:]] for block in blocks}
    assert all(len(row) == 2 for found in rows.values() for row in found)  # each says what it is
    names = {kind: [row[0] for row in found] for kind, found in rows.items()}
    assert {*names["configs"], *(f"recipes/{name}" for name in names["recipes"])} == set(shipped())
    assert {"Audio", "Graph", "Image", "PointCloud", "Video"} <= set(names["modalities"])
    assert {"ImageData", "TrajectoryData"} <= set(names["data"])
    assert {"MultiBlock", "Tube"} <= set(names["maskers"])
    assert {"CEM", "MPPI"} <= set(names["planners"])
    assert {"GoalDistance", "TemporalDistance", "TransitionEnergy", "WeightedSum"} <= set(names["costs"])
    assert set(names["actors"]) == {"Distil", "Imagine", "Imitate"}
    assert "JEPADataModule" not in names["data"]  # abstract


def test_one_list_and_a_kind_that_there_is_not(capsys):
    fit(["list", "targets"])
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == "targets"
    fit(["--list", "targets"])
    assert capsys.readouterr().out == shown
    assert "did you mean encoders?" in said(["list", "encoder"], capsys)


@pytest.mark.parametrize("kind", [kind for kind, base in KINDS.items() if base])
def test_listed_classes_can_be_named(kind):
    for cls in classes_of(kind):
        if cls.__module__.partition(".")[0] not in ("jepa_lightning", "modalities"):  # of other tests
            continue
        assert not cls.__name__.startswith("_")
        assert cls.__doc__, cls


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("image.yaml", "--config image.yaml"),
        ("image", "--config image"),
        ("fit image.yaml --seed_everything 1", "fit --config image.yaml --seed_everything 1"),
        ("validate image.yaml", "validate --config image.yaml"),
        ("image.yaml mine.yaml --a b", "--config image.yaml --config mine.yaml --a b"),
        ("--config image.yaml", "--config image.yaml"),
        ("--model.regularizers VICReg", "--model.regularizers [VICReg]"),
        ("--model.regularizers=my.Own", "--model.regularizers=[my.Own]"),
        ("--model.regularizers [VICReg]", "--model.regularizers [VICReg]"),
        ("--model.regularizers null", "--model.regularizers null"),
        ("--model.learning_rate 0.001", "--model.learning_rate.peak 0.001"),
        ("--model.learning_rate=1e-3", "--model.learning_rate.peak=1e-3"),
        ("--model.learning_rate Constant", "--model.learning_rate Constant"),
        ("graphjepa_dd --model.learning_rate 1", "--config graphjepa_dd --model.learning_rate.value 1"),
    ],
)  # fmt: skip
def test_short_forms(typed, meant):
    assert spell_out(typed.split(), subcommands=("fit", "validate")) == meant.split()


def test_short_forms_reach_the_settings(capsys):
    with pytest.raises(SystemExit) as end:
        fit(["image.yaml", "--model.learning_rate", "0.00321", "--model.regularizers", "SIGReg", "--print_config"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "peak: 0.00321" in shown
    assert "warmup: 0.1" in shown  # of the config
    assert "- class_path: jepa_lightning.regularizers.SIGReg" in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("image.yaml --epochs 5", "no option --epochs; did you mean --trainer.max_epochs?"),
        ("image.yaml --lr 0.001", "no option --lr; did you mean --model.learning_rate?"),
        ("image.yaml --batch-size 16", "no option --batch-size; did you mean --data.batch_size?"),
        ("image.yaml --output x", "no option --output; did you mean --trainer.default_root_dir?"),
        ("image.yaml --patch_size 4", "no option --patch_size; did you mean --model.modality.patch_size?"),
        ("image.yaml --trainer.max_stepz 4", "no option --trainer.max_stepz; did you mean --trainer.max_steps?"),
        ("image.yaml --qqq 4", "no option --qqq; jepa-fit CONFIG --print_config shows all settings"),
        (
            "image.yaml --data.dataset torchvision.datasets.CIFAR10",
            "data.dataset: CIFAR10: the following arguments are required: root",
        ),
        (
            "image.yaml --trainer.callbacks EarlyStopping",
            "trainer.callbacks: EarlyStopping: the following arguments are required: monitor",
        ),
        ("image.yaml --seed_everything 1 photos", "expected an option before 'photos', such as --data.root photos"),
    ],
)
def test_foreign_and_mistyped_words(words, says, capsys):
    assert said(words.split(), capsys) == says


def test_synonyms_stand_for_options_that_exist():
    shared = {f"data.{name}" for name in (*FileSettings.__annotations__, *OtherDataSettings.__annotations__)}
    known = shared | set(config_settings(["--config", "image.yaml"]))
    from jepa_lightning.cli.lightning_cli import JEPACLI

    class Options(JEPACLI):
        def parse_arguments(self, parser, args):
            known.update(option.lstrip("-") for action in parser._actions for option in action.option_strings)
            raise SystemExit(0)

    with pytest.raises(SystemExit):
        Options(["fit"])
    assert set(SYNONYMS) <= known
    words = [word for found in SYNONYMS.values() for word in found.split()]
    assert len(words) == len(set(words))


def test_nothing_is_suggested_that_is_unlike_it():
    assert suggest("--zzz", ["data.root", "trainer.max_epochs", "probe.c"]) == []
    assert suggest("--roots", ["data.root", "probe.c"]) == ["data.root"]
    assert set(suggest("--epochs", ["probe.epochs", "a.epochs"])) == {"probe.epochs", "a.epochs"}


def test_what_is_wrong_with_a_config_names_the_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text("model:\n  modality: [Image\n")
    (tmp_path / "datas.yaml").write_text("datas:\n  root: x\n")
    message = said(["broken.yaml"], capsys)
    assert message.startswith("broken.yaml, line 3, column 1: ")
    assert "\n" not in message
    for text, found in (("- 1\n- 2\n", "a list"), ("hello\n", "a str"), ("", "nothing")):
        (tmp_path / "other.yaml").write_text(text)
        assert said(["image.yaml", "other.yaml"], capsys).startswith("expected settings in other.yaml")
        assert said(["other.yaml"], capsys).endswith(f"got {found}")
    (tmp_path / "latin.yaml").write_bytes("a: caf\xe9\n".encode("latin-1"))
    assert said(["latin.yaml"], capsys).startswith("latin.yaml is not in UTF-8")
    (tmp_path / "twice.yaml").write_text("trainer:\n  max_epochs: 1\n  max_epochs: 2\n")
    assert said(["image.yaml", "twice.yaml"], capsys) == (
        "twice.yaml: expected each setting once, got max_epochs again in line 3: leave one out"
    )
    message = said(["image.yaml", "datas.yaml"], capsys)
    assert message == "no setting datas.root (in datas.yaml); did you mean --data.root?"


def test_a_class_of_ones_own_is_found_in_the_working_directory(tmp_path, monkeypatch):
    from jepa_lightning.config.own_classes import find_own_classes

    name = "own_parts_of_this_test"
    (tmp_path / f"{name}.py").write_text("VALUE = 3")
    (tmp_path / "torch.py").write_text("raise SystemExit('stands for an installed package')")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    find_own_classes(["torch.optim.AdamW", "missing.Class", "ImageData"])
    assert str(tmp_path) not in sys.path
    find_own_classes(class_names(["--model.modality.masker", f"{name}.Mine"]))
    assert sys.path[-1] == str(tmp_path)
    assert __import__(name).VALUE == 3


def test_help_on_a_class_names_our_classes_alone(capsys):
    with pytest.raises(SystemExit) as end:
        fit(["--data.help", "ImageData"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 200
    shown = " ".join(" ".join(lines).split())
    assert "--data.batch_size" in shown
    assert "a class of that kind, by its import path" in shown  # Dataset
    assert "usage" not in shown
