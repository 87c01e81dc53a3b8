"""Which way the arrows run: the core knows no modality, and a modality no other."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from processes import fresh

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "jepa_lightning").rglob("*.py"))
MODALITIES = sorted(path for path in (ROOT / "modalities").iterdir() if (path / "__init__.py").is_file())
OURS = [*CORE, *sorted((ROOT / "modalities").rglob("*.py"))]
EXTRAS = ("torchaudio", "torchcodec", "torch_geometric", "av", "h5py", "soundfile", "pymetis")
LAZY = {  # within a function: the extra world
    "jepa_lightning/data/files/hdf5.py": ("h5py",),
    "jepa_lightning/data/trajectories/lerobot.py": ("av",),
}
TEST_ONLY = ("pytest",)
PLOTS = ("matplotlib",)
# Reports are drawn by these two files, which nothing imports before a report is written.
DRAWING = [ROOT / "jepa_lightning" / "evaluation" / "report" / name for name in ("plots.py", "theme.py")]

# Wrappers are classes of gymnasium's, of the extra world; nothing else imports them.
WRAPPING = sorted((ROOT / "jepa_lightning" / "rl").glob("*.py"))


def imported(path):
    """Absolute names of all modules that a file imports, anywhere in it."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_there_is_something_to_look_at():
    assert len(CORE) > 30
    assert "image" in [folder.name for folder in MODALITIES]


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_core_imports_no_modality(path):
    found = [name for name in imported(path) if name.split(".")[0] == "modalities"]
    assert not found


def test_the_core_does_not_import_modalities_by_name_either():
    """Modalities come through entry points; the package's front imports by name, but only modules of its own."""
    import jepa_lightning

    names = jepa_lightning._LAZY.items()
    assert all(any((ROOT / "jepa_lightning").glob(f"{(home or name).replace('.', '/')}*")) for name, home in names)
    front = ROOT / "jepa_lightning" / "__init__.py"
    assert front.read_text().count("import_module(") == front.read_text().count('import_module(f"{__name__}.') == 1
    for path in CORE:
        if path == front:
            continue
        text = path.read_text()
        assert "import_module" not in text, path
        assert "__import__" not in text, path


@pytest.mark.parametrize("folder", MODALITIES, ids=lambda folder: folder.name)
def test_a_modality_imports_no_other(folder):
    others = {other.name for other in MODALITIES} - {folder.name}
    for path in folder.rglob("*.py"):
        for name in imported(path):
            parts = name.split(".")
            assert not (parts[0] == "modalities" and len(parts) > 1 and parts[1] in others), (path, name)
            assert parts[0] not in (*TEST_ONLY, *PLOTS), (path, name)


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_core_imports_no_extra(path):
    allowed = LAZY.get(path.relative_to(ROOT).as_posix(), ())
    forbidden = {*EXTRAS, *TEST_ONLY, *(() if path in DRAWING else PLOTS)} - {*allowed}
    assert not [name for name in imported(path) if name.split(".")[0] in forbidden]


def test_pretexts_know_no_modality_and_modalities_no_pretext():
    """How x and y are cut from a batch is one thing, what a batch holds another: neither names the other's package."""
    pretexts = sorted((ROOT / "jepa_lightning" / "pretexts").glob("*.py"))
    assert len(pretexts) >= 3
    for path in pretexts:
        assert not [name for name in imported(path) if name.split(".")[0] == "modalities"], path
    for folder in MODALITIES:
        for path in folder.rglob("*.py"):
            found = [
                name
                for name in imported(path)
                if name.startswith(("jepa_lightning.pretexts", "jepa_lightning.targets"))
            ]
            assert not found, path


def imports_of_ours():
    """Each file of the package and the modalities, with the files that it imports, anywhere in it."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in OURS}
    graph = {}
    for name, path in files.items():
        found = set()
        for imported_name in imported(path):
            module = imported_name if imported_name in files else imported_name.rpartition(".")[0]
            if module in files and module != name:
                found.add(module)
        graph[name] = found
    return graph


def test_no_import_runs_in_a_circle():
    """Neither at the top of a file, nor in a function, nor for types alone."""
    graph = imports_of_ours()
    assert {"jepa_lightning.pretexts", "jepa_lightning.targets.base"} <= graph["jepa_lightning.module"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_nothing_imports_the_wrappers_of_gymnasium():
    assert len(WRAPPING) == 3
    for path in set(OURS) - set(WRAPPING):
        assert not [name for name in imported(path) if name.startswith("jepa_lightning.rl")], path


def test_small_files_and_few_at_the_top():
    top = sorted(path.name for path in (ROOT / "jepa_lightning").glob("*.py"))
    assert len(top) <= 13, top
    long = [path for path in OURS if len(path.read_text().splitlines()) > 300]
    assert not long


def test_what_importing_loads(tmp_path):
    """The package loads no modality and no extra, `jepa-fit` no scikit-learn; all of the core, and then images, import
    without any extra."""
    # Scikit-learn is slow to import. Torchmetrics imports matplotlib where it is installed: it goes first, and then
    # matplotlib is taken away.
    names = ("modalities", "sklearn", "pytest", "tensorboard", *EXTRAS)
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
               for path in CORE if path not in [*DRAWING, *WRAPPING]]  # fmt: skip
    fresh(
        f"""
import importlib, sys
import torchmetrics
for name in [n for n in sys.modules if n.split(".")[0] in {PLOTS}]:
    del sys.modules[name]
for name in {PLOTS}:
    sys.modules[name] = None  # importing it fails from here on
import jepa_lightning
assert not [n for n in {names} if n in sys.modules], [n for n in {names} if n in sys.modules]
for name in {("pytest", *EXTRAS)}:
    sys.modules[name] = None  # importing it fails from here on
import jepa_lightning.cli.lightning_cli
assert "sklearn" not in sys.modules
for name in {modules}:
    importlib.import_module(name)
assert "modalities" not in sys.modules
import modalities.image
""",
        tmp_path,
    )


def test_two_steps_on_images_load_images_alone(tmp_path):
    """Neither another kind of data, nor what only reports and probes of features need."""
    names = ["modalities." + folder.name for folder in MODALITIES if folder.name != "image"]
    names += ["sklearn", "pandas", "torch_geometric", "torchaudio", "av", "h5py"]
    config = ROOT / "configs" / "image.yaml"
    words = ["--config", str(config), "--data.samples=64", "--data.batch_size=16", "--trainer.max_steps=2"]
    words += ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    fresh(
        f"""
import sys
from jepa_lightning.cli.fit import fit
fit({words})
found = [name for name in {names} if name in sys.modules]
assert not found, found
""",
        tmp_path,
    )
    assert (tmp_path / "summary.json").is_file()


def test_every_entry_point_exists():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["jepa_lightning.modalities"]
    assert set(points) == {folder.name for folder in MODALITIES}
    for name, module in points.items():
        assert module == f"modalities.{name}"
