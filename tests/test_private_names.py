"""Private names of other libraries: which ones are used, what for, and that they are still there."""

import ast
import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jepa_lightning", "modalities")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SELF = ("self", "cls")


@dataclass(frozen=True)
class Private:
    """A name that an upgrade may move.

    Args:
        name: as it is written.
        library: its distribution.
        of: whose it is, in words.
        files: where it is used.
        purpose: what for.
        holder: builds or finds the object that has it.
    """

    name: str
    library: str
    of: str
    files: tuple[str, ...]
    purpose: str
    holder: Callable[[], Any]


def located(path):
    """A module or an object of one, by its path."""

    def find():
        module, _, name = path.rpartition(".")
        try:
            return importlib.import_module(path)
        except ImportError:
            return getattr(importlib.import_module(module), name)

    return find


def trainer():
    from lightning.pytorch import Trainer

    return Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, barebones=True)


def strategy():
    from lightning.pytorch.strategies import DDPStrategy

    return DDPStrategy()


def sharding():
    from lightning.pytorch.strategies import ModelParallelStrategy

    return ModelParallelStrategy()


def loader(workers):
    return torch.utils.data.DataLoader([1, 2], num_workers=workers)


def worked_on():
    return iter(loader(1))


EMA, HALF = "jepa_lightning/targets/ema.py", "jepa_lightning/targets/half.py"
TIMM = "jepa_lightning/encoders/timm_encoder.py"
AUDIO = ("modalities/audio/front_end.py", "modalities/audio/tokenizer.py")
APPLY = ("jepa_lightning/module.py", EMA, "jepa_lightning/pretexts/view_heads.py", *AUDIO)

USED = [
    Private("_common", "jsonargparse", "jsonargparse", ("jepa_lightning/config/trust.py",),
            "the settings that say what a stored configuration may import", located("jsonargparse")),
    Private("_timeout", "lightning", "DDPStrategy", ("jepa_lightning/cli/lightning_cli.py",),
            "process_timeout where a strategy is named by a word", strategy),
    Private("_data_parallel_size", "lightning", "ModelParallelStrategy", ("jepa_lightning/scale/strategies.py",),
            "sharding over all processes, whose number is not known before", sharding),
    Private("_accelerator_connector", "lightning", "Trainer", ("jepa_lightning/data/sampler.py",),
            "use_distributed_sampler, which decides whether the order depends on the ranks", trainer),
    Private("_apply", "torch", "nn.Module", APPLY, "parts that stay in float32", nn.Module),
    Private("_modules", "torch", "nn.Module", ("jepa_lightning/encoders/base.py", "jepa_lightning/predictors/base.py"),
            "layers that a subclass sets under the name of the property", nn.Module),
    Private("_compiled_call_impl", "torch", "nn.Module", (HALF,), "whether a layer was compiled", nn.Module),
    Private("_version", "torch", "Tensor", (HALF,), "whether weights were changed", lambda: torch.zeros(1)),
    Private("_foreach_copy_", "torch", "torch", (EMA, HALF), "copies of many tensors in one kernel", lambda: torch),
    Private("_foreach_lerp_", "torch", "torch", (EMA,), "the moving average in one kernel", lambda: torch),
    Private("_iterator", "torch", "DataLoader", ("jepa_lightning/data/samples.py",),
            "workers of the epoch before, which may hang", lambda: loader(0)),
    Private("_workers", "torch", "a DataLoader's iterator with workers", ("jepa_lightning/data/watch.py",),
            "to kill workers that hang", worked_on),
    Private("_apply_learned_pos_embed", "timm", "NaFlexEmbeds", (TIMM,), "positions of NaFlexVit",
            located("timm.models.naflexvit.NaFlexEmbeds")),
    Private("_apply_factorized_pos_embed", "timm", "NaFlexEmbeds", (TIMM,), "positions of NaFlexVit",
            located("timm.models.naflexvit.NaFlexEmbeds")),
]  # fmt: skip
"""Attributes and modules. Fewer is better: a public name first, a check of our own next, an entry here last."""

SHARDED, PICKLES = ("jepa_lightning/run/sharded.py",), ("modalities/graph/plain_pickles.py",)
METADATA = "torch.distributed.checkpoint"

STORED = [
    Private("_MEM_FORMAT_ENCODING", "torch", f"{METADATA}.metadata", SHARDED, "tables of contents of shards",
            located(f"{METADATA}.metadata")),
    Private("_StorageInfo", "torch", f"{METADATA}.filesystem", SHARDED, "tables of contents of shards",
            located(f"{METADATA}.filesystem")),
    Private("_get_layout", "torch", "torch.serialization", SHARDED, "tables of contents of shards",
            located("torch.serialization")),
    Private("_utils", "torch", "torch", PICKLES, "pickled tensors", located("torch")),
    Private("_rebuild_tensor", "torch", "torch._utils", PICKLES, "pickled tensors", located("torch._utils")),
    Private("_rebuild_tensor_v2", "torch", "torch._utils", PICKLES, "pickled tensors", located("torch._utils")),
    Private("_load_from_bytes", "torch", "torch.storage", PICKLES, "pickled tensors", located("torch.storage")),
    Private("_reconstruct", "numpy", "numpy._core.multiarray", PICKLES, "pickled arrays",
            located("numpy._core.multiarray")),
    Private("_csr", "scipy", "scipy.sparse", PICKLES, "pickled matrices", located("scipy.sparse")),
]  # fmt: skip
"""Names within files that these libraries write: a file is read if what it names is among them."""

WORDS = {
    *(
        "_instantiator",
        "_class_path",
    ),  # keys that LightningCLI adds to hyperparameters; tests/loading
    *("_codecs", "_core", "_local"),  # modules of Python and NumPy that pickles name
    "_mask",  # of PyG's Data, after train, val and test
    "_ply_raw",  # a key of trimesh's metadata; tests/modalities/pointcloud/test_pointcloud_files.py
    *("_silence_", "_unknown_", "_graph_indicator", "_graph_labels"),  # folders and files of data sets
    *("_untrained", "_files", "_Item"),  # ours
}


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and len(name) > 1


def words(value):
    """The private names in a string that is a name or a dotted path."""
    return [part for part in value.split(".") if is_private(part)] if re.fullmatch(r"[\w.]+", value) else []


def is_ours(module):
    return module is not None and module.split(".")[0] in PACKAGES


class Found(ast.NodeVisitor):
    """The private names that a file takes from others: attributes of objects, imports, strings."""

    def __init__(self, tree):
        self.names, self.strings = set(), set()
        self.docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        self.classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        self.visit(tree)

    def visit_Attribute(self, node):
        of = node.value.id if isinstance(node.value, ast.Name) else None
        documented = (of, node.attr) == ("os", "_exit")  # in Python's library reference
        if (
            is_private(node.attr) and not documented and of not in (*SELF, *self.classes)
        ):  # what is on self is looked up in the class
            self.names.add(node.attr)
        self.generic_visit(node)

    def visit_Import(self, node):
        for alias in node.names:
            if not is_ours(alias.name):
                self.names |= set(words(alias.name))

    def visit_ImportFrom(self, node):
        if not is_ours(node.module) and not node.level:
            self.names |= set(words(node.module))
            self.names |= {alias.name for alias in node.names if is_private(alias.name)}

    def visit_Constant(self, node):
        if isinstance(node.value, str) and id(node) not in self.docs:
            self.strings |= set(words(node.value))


def own_names(tree):
    """Private names that a class (or module) sets or defines: methods, class attributes, those of self."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in SELF:
                yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def used_names(tree):
    """Private names on self that a class reads, sets or defines."""
    yield from own_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in SELF:
            yield node.attr


@cache  # Python parses the whole file of a class to find it, and most classes have the same bases
def source(kind):
    try:
        return ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind)))
    except (OSError, TypeError):  # of a class in C
        return ast.Module([], [])


@cache
def foreign_names(kind):
    """Private names of a class of another library, in its source and in itself."""
    mangled = re.compile(r"_[A-Za-z]\w*__")
    return {name for name in {*own_names(source(kind)), *vars(kind)} if is_private(name) and not mangled.match(name)}


def inherited(kind):
    """Private names of the other libraries' bases of a class that it uses, sets or defines anew; or nobody's."""
    used = {name for name in used_names(source(kind)) if is_private(name)}
    ours = [base for base in kind.__mro__ if is_ours(base.__module__)]
    own = {name for base in ours for name in own_names(source(base))}
    theirs = {name for base in kind.__mro__ if base not in ours for name in foreign_names(base)}
    return (used & theirs) | (used - own)


def find():
    """Files by name: (names that are taken from others, private words in strings)."""
    names, strings = defaultdict(set), defaultdict(set)
    for path in FILES:
        file = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text())
        found = Found(tree)
        kinds = []
        try:
            module = importlib.import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        except ImportError:  # an extra that is not installed
            assert path.parts[-3] == "modalities", path
        else:
            kinds = [k for k in vars(module).values() if inspect.isclass(k) and k.__module__ == module.__name__]
        for name in found.names.union(*map(inherited, kinds)):
            names[name].add(file)
        for name in found.strings:
            strings[name].add(file)
    return names, strings


def by_file(entries):
    names = defaultdict(set)
    for entry in entries:
        names[entry.name] |= set(entry.files)
    return dict(names)


@pytest.mark.long
def test_the_list_is_complete_and_true():
    names, strings = find()
    for name in [name for name in strings if name in by_file(USED)]:  # getattr(object, "_name")
        names[name] |= strings.pop(name)
    assert names == by_file(USED)
    assert {name: files for name, files in strings.items() if name not in WORDS} == by_file(STORED)
    assert not WORDS - strings.keys()


def test_there_are_few():
    assert len(by_file(USED)) < 15


@pytest.mark.parametrize("entry", [*USED, *STORED], ids=lambda entry: entry.name)
def test_it_is_still_there(entry):
    holder = entry.holder()
    assert hasattr(holder, entry.name), (
        f"{entry.library} {version(entry.library)} no longer has {entry.name} ({entry.of}), used by "
        f"{' and '.join(entry.files)} for {entry.purpose}"
    )


EXAMPLE = """
import torch._inductor
from lightning._private import thing
from jepa_lightning import _version
class Mine(torch.nn.Module):
    def __init__(self):
        self._own = 1
    def f(self, x):
        '_docstring_'
        return self._own + x._theirs + getattr(x, "_word") + Mine._own
"""


def test_what_is_found():
    found = Found(ast.parse(EXAMPLE))
    assert found.names == {"_inductor", "_private", "_theirs"}
    assert found.strings == {"_word"}


class Child(nn.Module):
    def __init__(self):
        super().__init__()
        self._buffers = {}
        self._own = self._nobodys

    def _apply(self, fn):
        return self


def test_what_a_class_takes_from_its_bases_is_found(monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGES", (Child.__module__,))
    assert inherited(Child) == {"_buffers", "_nobodys", "_apply"}
