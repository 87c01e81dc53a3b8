"""Random folder trees: every file that is taken is there once, labels are folders above it, strays change nothing."""

import logging
import os
import random
import re
from contextlib import contextmanager

import pytest
from fuzz_helpers import FACTOR, bounded, folder, fuzz, must_be_ours
from hypothesis import given
from hypothesis import strategies as st

from jepa_lightning.data import DataError, find_files

NAMES = st.sampled_from(["train", "val", "Testing", "train2017", "a", "b", "cat", "batch_1", "batch_2", "images",
                         "masks", "_x_", "0", "1", "train_b", "test_b", "\udce9", "x y"])  # fmt: skip
FILES = st.sampled_from(["1.png", "2.png", "3.PNG", "x.jpg", "notes.txt", "train.txt", ".hidden.png", "\udcff.png"])
TREES = st.recursive(
    st.lists(FILES, max_size=4, unique=True).map(lambda names: dict.fromkeys(names)),
    lambda inner: st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)


def grow(where, tree):
    for name, inner in tree.items():
        if inner is None:
            (where / name).write_bytes(b"")
        else:
            (where / name).mkdir()
            grow(where / name, inner)


LEFT_OUT = re.compile(r"left out: ([\d,]+) files?\b")


@contextmanager
def heard():
    """What is logged inside."""
    lines, log = [], logging.getLogger("jepa_lightning")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)


def readable(root):
    """How many files end in .png: none in or below hidden folders, and each folder once, whatever links lead to it."""
    seen, waiting, count = set(), [str(root)], 0
    while waiting:
        where = os.path.realpath(waiting.pop())
        if where in seen or not (where + os.sep).startswith(os.path.realpath(root) + os.sep):
            continue
        seen.add(where)
        for name in os.listdir(where):
            if name.startswith((".", "__")):
                continue
            if os.path.isdir(os.path.join(where, name)):
                waiting.append(os.path.join(where, name))
            else:
                count += name.lower().endswith(".png")
    return count


def find(where):
    return find_files(str(where), kind="image", extensions=(".png",))


@fuzz(60)
@given(TREES, st.lists(st.tuples(NAMES, st.sampled_from([".", "..", "a", "../b", "/"])), max_size=2))
def test_any_tree_is_read_or_refused(tree, links):
    with folder() as root, bounded():
        grow(root, tree)
        for name, target in links:
            if not os.path.lexists(root / name):
                (root / name).symlink_to(target)
        try:
            with heard() as lines:
                found = find(root)
        except DataError as error:
            must_be_ours(error)
            return
        assert "train" in found
        left_out = sum(int(count.replace(",", "")) for line in lines for count in LEFT_OUT.findall(line))
        assert sum(map(len, found.values())) + left_out == readable(root), lines
        taken = [os.path.realpath(files.path(i)) for files in found.values() for i in range(len(files))]
        assert len(set(taken)) == len(taken)
        assert all(os.path.isfile(path) and path.lower().endswith(".png") for path in taken)
        for files in found.values():
            assert files.classes == found["train"].classes
            for i in range(len(files)):
                assert files.sample_id(i).isprintable()
                if files.targets is not None and files.targets[i] >= 0:
                    assert files.classes[files.targets[i]] in files.sample_id(i).split(os.sep)


SYNONYMS = {
    "train": ["train", "Training", "train2017", "train_set", "train-clean-100"],
    "val": ["val", "valid", "Validation", "dev", "val_images"],
    "test": ["test", "Testing", "eval", "test2017"],
}


def layout(draw):
    """Which files a folder holds: path to (split, class), as the page on one's own data has it."""
    classes = draw.sample(["cat", "dog", "0", "x y", "n01", "ü"], draw.randint(2, 4))
    splits = draw.choice([["train", "val"], ["train", "test"], ["train", "val", "test"]])
    names = {split: draw.choice(SYNONYMS[split]) for split in splits}
    kind = draw.choice(["splits of classes", "classes of splits", "classes", "splits", "files"])
    if "train" in names and names["train"] == "train-clean-100":  # says more than a split: only beside its like
        names = {split: f"{split}-clean-100" for split in splits}
    if kind == "splits of classes":
        places = {f"{names[split]}/{name}": (split, name) for split in splits for name in classes}
    elif kind == "classes of splits":
        names = {split: split for split in splits}
        places = {f"{name}/{names[split]}": (split, name) for split in splits for name in classes}
    elif kind == "classes":
        places = {name: ("train", name) for name in classes}
    elif kind == "splits":
        places = {names[split]: (split, None) for split in splits}
    else:
        places = {".": ("train", None)}
    found = {}
    for place, what in places.items():
        for number in range(draw.randint(2, 5)):
            deeper = draw.choice(["", "", "deep/", "deep/er/"]) if what[1] and kind != "classes of splits" else ""
            found[os.path.normpath(f"{place}/{deeper}{number}.{draw.choice(['png', 'png', 'PNG'])}")] = what
    return kind, found


def noise(draw, base, kind, held):
    """Put beside the files what changes nothing: hidden ones, other endings, strays, empty folders, links to others."""
    folders = sorted({os.path.dirname(path) for path in held} | {""})
    for _ in range(draw.randint(0, 4)):
        where = base / draw.choice(folders)
        what = draw.choice(
            [".hidden.png", "notes.txt", "x.heic", "Thumbs.db", "__MACOSX", ".git", "link", "stray", "empty"]
        )
        if what in ("__MACOSX", ".git"):
            (where / what).mkdir(exist_ok=True)
            (where / what / "1.png").touch()
        elif what == "empty":
            (where / what).mkdir(exist_ok=True)
            if draw.random() < 0.5:
                (where / what / "1.heic").touch()
        elif what == "link":
            if not os.path.lexists(where / "link"):
                (where / "link").symlink_to(base / draw.choice(folders))
        elif what == "stray":
            if kind in ("splits of classes", "classes"):
                (base / "stray.png").touch()
        else:
            (where / what).touch()


def check_layout(seed):
    draw = random.Random(seed)
    kind, held = layout(draw)
    with folder() as root:
        base = root / draw.choice(["", "archive", "archive/images"])
        for path in held:
            (base / path).parent.mkdir(parents=True, exist_ok=True)
            (base / path).touch()
        noise(draw, base, kind, held)
        with heard() as lines:
            found = find(root)
        read = {}
        for split, files in found.items():
            for number in range(len(files)):
                name = None if files.targets is None else files.classes[files.targets[number]]
                read[os.path.relpath(os.path.realpath(files.path(number)), os.path.realpath(base))] = (split, name)
        assert read == held, kind
        left_out = sum(int(count.replace(",", "")) for line in lines for count in LEFT_OUT.findall(line))
        assert len(read) + left_out == readable(root), lines


def test_documented_layouts():
    for seed in range(80 * FACTOR):
        check_layout(seed)


@pytest.mark.slow
def test_many_documented_layouts():
    for seed in range(1000, 6000):
        check_layout(seed)
