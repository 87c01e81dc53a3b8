"""Private names of other libraries: which ones are used, what for, and that they are still there."""

import ast
import importlib
import inspect
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jepa_lightning", "modalities")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SELF = ("self", "cls")


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
        if is_private(node.attr) and of not in (*SELF, *self.classes):  # what is on self is looked up in the class
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


def source(kind):
    try:
        return ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind)))
    except (OSError, TypeError):  # of a class in C
        return ast.Module([], [])


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


if __name__ == "__main__":
    for what in find():
        for name, files in sorted(what.items()):
            print(name, sorted(files))
        print("--")
