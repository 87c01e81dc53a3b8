"""The documentation: pages are in the nav, links and pictures exist, commands parse, code runs."""

import ast
import importlib
import re
import shlex

import pytest
import yaml
from pages import ROOT, blocks, commands, named_blocks, programs
from PIL import Image
from short_runs import Parsed

import jepa_lightning
from jepa_lightning.callbacks.collapse_messages import REMEDIES
from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.options import parse_words
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.config.shipped import shipped
from jepa_lightning.data.trajectories.collect import collect

DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text() for path in sorted(DOCS.glob("*.md"))}
RUN = {
    "curves.md",
    "encoders.md",
    "index.md",
    "evaluation.md",
    "modalities.md",
    "own-parts.md",
    "views.md",
}  # whose Python is run; else it is compiled
FUNCTIONS = {
    "jepa-export": jepa_lightning.export,
    "jepa-import": jepa_lightning.import_weights,
    "jepa-plan": jepa_lightning.plan,
    "jepa-collect": collect,
    "jepa-finetune": jepa_lightning.finetune,
    "jepa-probe": jepa_lightning.evaluate,
    "jepa-embed": jepa_lightning.embed,
    "jepa-view": jepa_lightning.view,
}
OTHERS = {"stable_baselines3"}  # of no extra of ours: tests/rl runs the page's example where it is installed
ELSEWHERE = {"new-modality.md", "new-pretext.md", "own-parts.md"}  # whose commands need their files: other tests


def ours():
    """(page, command) for each line of a shell block that calls one of our commands, perhaps behind `torchrun`."""
    names = "|".join(map(re.escape, programs()))
    found = []
    for page, text in PAGES.items():
        for line in commands(text) if page not in ELSEWHERE else ():
            match = re.search(rf"(?:^|[\s/])({names})(\s.*|$)", line)
            if match and not line.startswith("pip "):
                found.append((page, re.split(r"\s(?:#|\||&&|>)|;", match[1] + match[2])[0]))
    return found


def nav(entries):
    for entry in entries:
        for value in entry.values():
            yield from nav(value) if isinstance(value, list) else [value]


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    """Parses the words of `jepa-fit` in a folder that has the YAML files which the pages show."""
    load_plugins()
    folder = tmp_path_factory.mktemp("reader")
    for page, text in PAGES.items():
        first_lines = {m[1]: b for b in blocks(text, "yaml") if (m := re.match(r"# (\S+\.yaml)", b))}
        for name, block in (named_blocks(text) | first_lines).items() if page not in ELSEWHERE else ():
            if name.endswith(".yaml"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(block)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cli = Parsed(["--config", "image.yaml"])
        yield lambda words: cli.parse_arguments(cli.parser, words)


def test_every_page_is_in_the_nav_and_back():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = list(nav(settings["nav"]))
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_exist(page):
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text):
        path = (link[0] or link[1]).partition("#")[0]
        if path and ":" not in path:
            assert (DOCS / path).is_file(), f"{page} links to {path}"


@pytest.mark.parametrize("page", PAGES)
def test_files_of_the_repository_that_are_named_exist(page):
    folders = "|".join(("jepa_lightning", "modalities", "benchmarks", "configs", "examples", "tests"))
    for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", PAGES[page]):
        assert (ROOT / path).exists(), f"{page} names {path}"
    for name in re.findall(r"`(recipes/\w+)(?:\.yaml)?`", PAGES[page]):
        assert f"{name}.yaml" in shipped(), f"{page} names {name}"


@pytest.mark.long
@pytest.mark.parametrize(("page", "command"), ours())
def test_our_commands_parse(parser, capsys, page, command):
    name, *words = shlex.split(command)
    if name == "jepa-fit":
        stops = {"--help", "-h", "--print_config"} & set(words)
        if not stops:
            parser(words)
            return
        with pytest.raises(SystemExit) as stop:
            parser(words)
        assert stop.value.code in (0, None)
        assert capsys.readouterr().out
        return
    if "--help" not in words:
        parse_words(name, FUNCTIONS[name], words)


def test_programs_of_ours_exist():
    for page, text in PAGES.items():
        for name in re.findall(r"python -m (benchmarks\.\w+)", text):
            assert importlib.util.find_spec(name), f"{page} names {name}"


@pytest.mark.parametrize("page", PAGES)
def test_python_imports_what_exists(page):
    for block in [
        *blocks(PAGES[page], "python"),
        *(t for n, t in named_blocks(PAGES[page]).items() if n[-3:] == ".py"),
    ]:
        tree = ast.parse(block, page)
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        own = {name.split("/")[1] for name in named_blocks(PAGES[page]) if name.count("/") == 2}  # the page's package
        for node in imports:
            module = (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
            if isinstance(node, ast.ImportFrom) and node.module in own:
                continue
            if module in OTHERS and importlib.util.find_spec(module) is None:
                continue
            exec(compile(ast.Module([node], []), page, "exec"), {})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with the run that the first page begins with, two steps long."""
    folder = tmp_path_factory.mktemp("reader_with_run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        short = [
            "--trainer.max_epochs=-1",
            "--trainer.max_steps=2",
            "--trainer.accelerator=cpu",
            "--probe.enabled=false",
        ]
        small = ["--trainer.limit_val_batches=1", "--pictures.enabled=false", "--data.samples=320"]
        fit(["--config", "image.yaml", *short, *small, "--trainer.logger=false", "--trainer.enable_progress_bar=false"])
        Image.new("RGB", (60, 40), (90, 20, 200)).save("photo.jpg")
        yield folder


@pytest.mark.long
@pytest.mark.usefixtures("no_plots", "quick_logistic")
@pytest.mark.parametrize(("page", "block"), [(page, b) for page in sorted(RUN) for b in blocks(PAGES[page], "python")])
def test_python_runs(run, page, block):
    exec(compile(block, page, "exec"), {"__name__": "page"})


@pytest.mark.parametrize("page", ["curves.md", "faq.md"])
def test_the_remedies_for_collapse_have_the_monitors_order(page):
    words = ("regularizer", "learning rate", "momentum", "targets", "batches")
    assert len(words) == len(REMEDIES)
    for word, remedy in zip(words, REMEDIES, strict=True):
        assert word.replace(" ", "_").removesuffix("es") in remedy
    text = " ".join(PAGES[page].split()).partition("in this order: a ")[2]
    places = [text.index(word) for word in words]
    assert places == sorted(places)


def test_there_is_something_to_check():
    assert len(ours()) >= 20
    assert {*FUNCTIONS, "jepa-fit"} == {line.split()[0] for _, line in ours()}
