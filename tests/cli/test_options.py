"""The flags of a command are the signature of the function behind it."""

import inspect
import subprocess
import sys

import docstring_parser
import pytest

import jepa_lightning
from jepa_lightning.cli.collect import collect
from jepa_lightning.cli.embed import embed
from jepa_lightning.cli.finetune import finetune
from jepa_lightning.cli.options import command, function_parser, parse_words
from jepa_lightning.cli.plan import plan
from jepa_lightning.cli.probe import probe
from jepa_lightning.cli.view import view
from jepa_lightning.data.trajectories.collect import collect as record

COMMANDS = {
    "jepa-probe": (probe, jepa_lightning.evaluate),
    "jepa-embed": (embed, jepa_lightning.embed),
    "jepa-view": (view, jepa_lightning.view),
    "jepa-plan": (plan, jepa_lightning.plan),
    "jepa-collect": (collect, record),
    "jepa-finetune": (finetune, jepa_lightning.finetune),
}


def options(parser):
    """By name, the option of a parser."""
    return {
        action.dest: action for action in parser._actions if action.dest.rpartition(".")[2] not in ("help", "config")
    }


@pytest.mark.parametrize("program", COMMANDS)
def test_help_lists_the_parameters_of_the_function(program, capsys):
    """The same settings, descriptions and defaults, in the shell and in `help(jepa_lightning.evaluate)`."""
    run, function = COMMANDS[program]
    with pytest.raises(SystemExit) as stop:
        run(["--help"])
    assert stop.value.code in (0, None)
    shown = " ".join(capsys.readouterr().out.split())
    described = {param.arg_name: param.description for param in docstring_parser.parse(function.__doc__).params}
    parameters = inspect.signature(function).parameters
    found = options(function_parser(program, function))
    assert set(found) == set(described) == set(parameters)
    for name, parameter in parameters.items():
        assert f"--{name} " in shown
        words = " ".join(described[name].split())
        assert words.replace("- ", "-") in shown.replace("- ", "-"), name  # argparse breaks lines at hyphens
        if parameter.default is not inspect.Parameter.empty:
            assert found[name].default == parameter.default, name


@pytest.mark.parametrize("program", ["jepa-probe", "jepa-embed", "jepa-view", "jepa-finetune"])
def test_help_loads_nothing_that_computes(program):
    run, _ = COMMANDS[program]
    code = f"""
import sys
from {run.__module__} import {run.__name__} as run
try:
    run(["--help"])
except SystemExit:
    found = {{"torch", "lightning", "sklearn", "numpy"}} & set(sys.modules)
    assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--data" in done.stdout


@pytest.mark.parametrize("program", COMMANDS)
def test_options_may_stand_in_a_file(program, tmp_path, capsys):
    _, function = COMMANDS[program]
    required = next(iter(inspect.signature(function).parameters))
    lines = [f"{required}: runs/a", "out: there", *(["seed: 3"] if program != "jepa-embed" else ["split: val"])]
    (tmp_path / "options.yaml").write_text("\n".join(lines))
    file = str(tmp_path / "options.yaml")
    found = parse_words(program, function, ["--config", file])[0]
    expected = {required: "runs/a", "out": "there"} | ({"split": "val"} if program == "jepa-embed" else {"seed": 3})
    assert {name: found[name] for name in expected} == expected
    for words in (["--out", "here", "--config", file], [f"--config={file}", "--out=here"]):  # what is typed wins
        assert parse_words(program, function, words)[0]["out"] == "here"
    (tmp_path / "options.yaml").write_text("sede: 3")
    with pytest.raises(SystemExit):
        parse_words(program, function, ["runs/a", "--config", file])
    assert "no setting sede" in capsys.readouterr().err


def test_settings_of_data_stand_in_no_file(tmp_path):
    (tmp_path / "options.yaml").write_text("data: {root: photos}")
    with pytest.raises(ValueError, match=r"expected settings of the data as words, --data\.KEY VALUE"):
        parse_words("jepa-probe", jepa_lightning.evaluate, ["runs/a", "--config", str(tmp_path / "options.yaml")])


def test_classes_in_a_file_are_built(tmp_path):
    (tmp_path / "plan.yaml").write_text("planner: {class_path: CEM, init_args: {samples: 32}}\nbudget: 9")
    words = ["runs/a", "--config", str(tmp_path / "plan.yaml"), "--planner.elites", "4"]
    found = parse_words("jepa-plan", jepa_lightning.plan, words)[0]
    assert (found["planner"].samples, found["planner"].elites, found["budget"]) == (32, 4, 9)


def settings(program, words):
    _, function = COMMANDS[program]
    with command(program, function, words) as found:
        return {name: value for name, value in found.items() if found[name] != options_default(function, name)}


def options_default(function, name):
    return inspect.signature(function).parameters[name].default


@pytest.mark.parametrize(
    ("program", "words", "expected"),
    [
        ("jepa-probe", "runs/a", {"checkpoint": ["runs/a"]}),
        ("jepa-probe", "runs/a runs/b --k 3", {"checkpoint": ["runs/a", "runs/b"], "k": 3}),
        ("jepa-probe", "--checkpoint runs/a --probes knn svm", {"checkpoint": ["runs/a"], "probes": ["knn", "svm"]}),
        ("jepa-probe", "a --probes [knn] --shots=[1,5]", {"checkpoint": ["a"], "probes": ["knn"], "shots": [1, 5]}),
        ("jepa-probe", "a --labels 01 true --group null", {"checkpoint": ["a"], "labels": ["01", "true"]}),
        ("jepa-probe", "a --label_shares 0.1 1", {"checkpoint": ["a"], "label_shares": [0.1, 1.0]}),
        ("jepa-probe", "a --shots 5,10", {"checkpoint": ["a"], "shots": [5, 10]}),
        ("jepa-probe", "a --probes knn,svm", {"checkpoint": ["a"], "probes": ["knn", "svm"]}),
        ("jepa-probe", "a,b --label_shares=0.1,1 --k 3", {"checkpoint": ["a,b"], "label_shares": [0.1, 1.0], "k": 3}),
        ("jepa-probe", "a --labels x,y", {"checkpoint": ["a"], "labels": ["x,y"]}),
        ("jepa-probe", "a --seed -3", {"checkpoint": ["a"], "seed": -3}),
        ("jepa-embed", "runs/a f.npz --split val", {"checkpoint": "runs/a", "out": "f.npz", "split": "val"}),
        ("jepa-embed", "runs/a --out f.npz", {"checkpoint": "runs/a", "out": "f.npz"}),
        ("jepa-view", "runs/a masks error", {"checkpoint": "runs/a", "pictures": ["masks", "error"]}),
        ("jepa-view", "masks --checkpoint a --seed 2", {"checkpoint": "a", "pictures": ["masks"], "seed": 2}),
    ],
)  # fmt: skip
def test_words_become_arguments(program, words, expected):
    assert settings(program, words.split()) == expected


@pytest.mark.parametrize(
    ("program", "words", "says"),
    [
        ("jepa-probe", "", "--checkpoint must be given"),
        ("jepa-probe", "a --batch_size 4", "no option --batch_size; did you mean --data.batch_size?"),
        ("jepa-probe", "a --prob knn", "no option --prob; did you mean --probes?"),
        ("jepa-probe", "a --k", "expected a value after --k, got none"),
        ("jepa-probe", "a --labels --k 3", "expected a value after --labels, got none"),
        ("jepa-embed", "a b.npz c", "got 'c'"),
        ("jepa-view", "--chekpoint runs/image", "no option --chekpoint; did you mean --checkpoint?"),
        ("jepa-view", "a --samples two", "samples: expected int, got two"),
    ],
)
def test_mistakes_are_those_of_jepa_fit(program, words, says, capsys):
    with pytest.raises(SystemExit) as stop:
        settings(program, words.split())
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.startswith(f"{program}: error: ")
    assert "image.yaml" not in message  # which is an answer of jepa-fit alone
