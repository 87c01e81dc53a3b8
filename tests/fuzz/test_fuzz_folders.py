"""Random folder trees: every file that is taken is there once, labels are folders above it, strays change nothing."""

import os

from fuzz_helpers import bounded, folder, fuzz, must_be_ours
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
CLASSES = st.dictionaries(
    st.sampled_from(["a", "b", "cat", "dog", "0", "train_b", "x y"]), st.integers(2, 5), min_size=2, max_size=5
)


def grow(where, tree):
    for name, inner in tree.items():
        if inner is None:
            (where / name).write_bytes(b"")
        else:
            (where / name).mkdir()
            grow(where / name, inner)


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
            found = find(root)
        except DataError as error:
            must_be_ours(error)
            return
        assert "train" in found
        taken = [os.path.realpath(files.path(i)) for files in found.values() for i in range(len(files))]
        assert len(set(taken)) == len(taken)
        assert all(os.path.isfile(path) and path.lower().endswith(".png") for path in taken)
        for files in found.values():
            assert files.classes == found["train"].classes
            for i in range(len(files)):
                assert files.sample_id(i).isprintable()
                if files.targets is not None and files.targets[i] >= 0:
                    assert files.classes[files.targets[i]] in files.sample_id(i).split(os.sep)


@fuzz(30)
@given(
    CLASSES,
    st.sampled_from([None, ("train", "test"), ("Training", "Testing"), ("train2017", "val2017"), ("x_train", "x_val")]),
    st.lists(
        st.sampled_from(["preview.png", "notes.txt", "train.txt", "x.heic", "Thumbs.db"]), unique=True, max_size=3
    ),
    st.sampled_from(["", "archive", "archive/images"]),
)
def test_class_folders_are_classes_whatever_lies_beside_them(classes, splits, strays, wrapper):
    with folder() as root, bounded():
        base = root / wrapper
        for split in splits or [""]:
            for name, count in classes.items():
                (base / split / name).mkdir(parents=True)
                for i in range(count):
                    (base / split / name / f"{i}.png").write_bytes(b"")
        for stray in strays:
            (base / stray).write_bytes(b"no list")
        found = find(root)
        assert len(found) == (2 if splits else 1)
        for files in found.values():
            assert files.classes == sorted(classes)
            assert [int((files.targets == i).sum()) for i in range(len(classes))] == [
                classes[n] for n in sorted(classes)
            ]
