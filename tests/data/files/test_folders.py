"""What folders mean: splits by many names, classes, parts, strays, links that loop, lists, endings not read."""

import logging
import os
import time

import pytest

from jepa_lightning.data import DataError, find_files
from jepa_lightning.data.files.split_names import group_by_split, plain_split_of, split_of


def grow(folder, spec):
    """Files by their paths; `a/#.png*3` is three of them, `a/` an empty folder."""
    for words in spec.split():
        name, _, count = words.partition("*")
        for i in range(int(count or 1)):
            path = folder / name.replace("#", str(i))
            if name.endswith("/"):
                path.mkdir(parents=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
    return folder


def find(folder, **kwargs):
    return find_files(str(folder), kind="image", extensions=(".png",), **kwargs)


def summary(found):
    """By split, files and, where there are classes, the number of files of each."""
    return {
        split: len(files)
        if files.targets is None
        else {
            name: int((files.targets == index).sum())
            for index, name in [*enumerate(files.classes), (-1, "")]
            if (files.targets == index).any()
        }
        for split, files in found.items()
    }


PLAIN = {"a": 3, "b": 3}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        # Strays beside class folders, and folders beside them that are no classes.
        ("a/#.png*3 b/#.png*3 preview.png notes.txt", {"train": PLAIN}),
        ("a/#.png*3 b/#.png*3 annotations/1.xml docs/", {"train": PLAIN}),
        ("a/#.png*3 b/#.png*3 annotations/1.xml", {"train": PLAIN}),
        ("a/#.png*3 b/#.png*3 _background_noise_/#.png*2 @eaDir/1.png .cache/1.png __MACOSX/1.png", {"train": PLAIN}),
        ("a/#.png*3 b/#.png*3 _silence_/1.png", {"train": {**PLAIN, "_silence_": 1}}),
        ("sheet.png data/a/#.png*3 data/b/#.png*3", {"train": PLAIN}),
        ("#.png*9 summer/#.png*2 winter/#.png*2", {"train": 13}),
        ("#.png*2 more/#.png*9", {"train": 11}),
        ("a/#.png*3 b/#.png*3 c/#.heic*3", {"train": PLAIN}),
        # Names of splits.
        ("Training/a/#.png*2 Training/b/1.png Testing/a/1.png", {"train": {"a": 2, "b": 1}, "test": {"a": 1}}),
        ("train2017/#.png*3 val2017/#.png*2 annotations/x.json", {"train": 3, "val": 2}),
        (
            "Train/a/1.png Train/b/1.png Valid/a/1.png Validation/b/1.png TEST/a/1.png",
            {"train": {"a": 1, "b": 1}, "val": {"a": 1, "b": 1}, "test": {"a": 1}},
        ),
        (
            "seg_train/seg_train/a/#.png*2 seg_train/seg_train/b/1.png seg_test/seg_test/b/1.png "
            "seg_pred/seg_pred/#.png*4",
            {"train": {"a": 2, "b": 1}, "test": {"b": 1}},
        ),
        ("training_set/a/1.png training_set/b/1.png test_set/b/1.png", {"train": {"a": 1, "b": 1}, "test": {"b": 1}}),
        (
            "L/train-clean-100/s/1/1.png L/train-clean-100/t/1/1.png L/train-other-500/s/1.png "
            "L/train-other-500/u/2.png L/dev-clean/s/1.png L/test-other/t/1.png",
            {"train": {"s": 2, "t": 1, "u": 1}, "val": {"s": 1}, "test": {"t": 1}},
        ),
        ("trainA/1.png trainB/1.png testA/1.png testB/1.png", {"train": 2, "test": 2}),
        ("archive/images/train/#.png*2 archive/images/val/1.png archive/labels/train/1.txt", {"train": 2, "val": 1}),
        ("train/images/#.png*3 train/labels/#.txt*3 valid/images/1.png", {"train": 3, "val": 1}),
        ("train/a/1.png train/b/1.png unlabeled/#.png*7", {"train": {"a": 1, "b": 1}}),
        ("a/1.png b/1.png test/a/1.png test/b/1.png", {"train": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}}),
        ("val/1.png test/2.png", "expected a folder of training data in .*, got only val, test"),
        # Classes whose names are those of splits.
        ("train/#.png*2 bus/1.png car/1.png", {"train": {"bus": 1, "car": 1, "train": 2}}),
        ("train_station/1.png test_tube/1.png", {"train": {"test_tube": 1, "train_station": 1}}),
        ("valid/1.png invalid/1.png", {"train": {"invalid": 1, "valid": 1}}),
        ("cats/1.png dogs/1.png test/1.png", {"train": {"cats": 1, "dogs": 1, "test": 1}}),
        # Some without class folders keep the labels of the others.
        ("train/a/#.png*3 train/b/#.png*3 test/#.png*4", {"train": PLAIN, "test": {"": 4}}),
        ("train/a/1.png train/b/1.png val/images/#.png*4", {"train": {"a": 1, "b": 1}, "val": {"": 4}}),
        ("train/#.png*3 test/a/1.png test/b/1.png", {"train": {"": 3}, "test": {"a": 1, "b": 1}}),
        ("train/a/1.png train/b/1.png val/a/1.png val/b/", {"train": {"a": 1, "b": 1}, "val": {"a": 1}}),
        # Splits below the classes, as ModelNet has them.
        ("a/train/#.png*2 a/test/1.png b/train/1.png b/test/1.png b/x.png",
         {"train": {"a": 2, "b": 1}, "test": {"a": 1, "b": 1}}),
        # Parts are no classes.
        ("batch_001/#.png*3 batch_002/#.png*2", {"train": 5}),
        ("part1/#.png*3 part2/#.png*2 sheet.png", {"train": 5}),
        ("images_001/images/#.png*3 images_002/images/#.png*2", {"train": 5}),
        ("2024-05-30/1.png 2024-05-31/1.png", {"train": 2}),
        ("fold1/a/1.png fold1/b/1.png fold2/a/1.png fold2/b/1.png", {"train": {"a": 2, "b": 2}}),
        ("0/1.png 1/1.png 10/1.png", {"train": {"0": 1, "1": 1, "10": 1}}),
        ("images/#.png*3 masks/#.png*3", {"train": 3}),
    ],
)  # fmt: skip
def test_layouts(tmp_path, spec, expected):
    folder = grow(tmp_path / "data", spec)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            find(folder)
        return
    found = find(folder)
    assert summary(found) == expected
    ids = [files.sample_id(i) for files in found.values() for i in range(len(files))]
    assert len(set(ids)) == len(ids)
    assert all(os.path.isfile(files.path(i)) for files in found.values() for i in range(len(files)))


def said(caplog, folder, spec):
    caplog.clear()
    with caplog.at_level(logging.INFO):
        find(grow(folder, spec))
    return [record.getMessage() for record in caplog.records]


def test_what_was_understood_is_said_in_a_line(tmp_path, caplog):
    lines = said(caplog, tmp_path / "x", "Training/a/#.png*3 Training/b/1.png Testing/#.png*2 a.txt")
    assert lines == [
        f"{tmp_path / 'x'}: 6 images, 4 of them in 2 classes; split by folder (train: Training; test: Testing): "
        "train 4, test 2"
    ]
    lines = said(caplog, tmp_path / "y", "a/#.png*3 b/#.png*3 a.png b/#.heic*4 b/x.dng b/x.xml")
    assert lines == [
        f"{tmp_path / 'y'}: 6 images in 2 classes",
        f"{tmp_path / 'y'}: 5 of 12 files are left out, for their endings are not read: .heic (4), .dng (1)",
        f"{tmp_path / 'y'}: left out: 1 file beside the class folders of y (a.png)",
    ]
    lines = said(caplog, tmp_path / "w", "train/a/1.png train/b/1.png train/c/#.heic*3 train/d/ val/a/1.png val/b/")
    assert lines[1:] == [
        f"{tmp_path / 'w'}: 3 of 6 files are left out, for their endings are not read: .heic (3)",
        f"{tmp_path / 'w'}: left out: the class folders c, d in train, without a readable image; left out: the "
        "class folder b in val, without a readable image",
    ]
    spec = "a/1.png b/1.png .c/1.png __background__/1.png __MACOSX/1.png .git/1.png a/.ipynb_checkpoints/1.png"
    assert said(caplog, tmp_path / "h", spec)[1:] == [
        f"{tmp_path / 'h'}: left out: .c, __background__, which are hidden"
    ]
    assert (
        "taken as parts of the data, not as classes: batch1"
        in said(caplog, tmp_path / "z", "batch1/1.png batch2/1.png")[1]
    )
    assert "taken as classes, not as splits: test" in said(caplog, tmp_path / "t", "a/1.png b/1.png test/1.png")[1]
    with pytest.raises(DataError, match=r"got no image in it: .* end in .png; there are .heic \(2\)"):
        find(grow(tmp_path / "none", "a/#.heic*2"))


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"validation_list.txt": "a/1.png\nb/1.png\n", "testing_list.txt": "a/0.png\nb/0.png\n"}, (4, 2, 2)),
        ({"meta/train.txt": "a/0\na/1\nb/2\nb/3\n", "meta/test.txt": "a/2\na/3\nb/0\nb/1"}, (4, 0, 4)),
        ({"trainlist01.txt": "a/0.png 1\nb/0.png 2\n", "testlist01.txt": "a/1.png\nb/1.png\n"}, (2, 0, 2)),
        ({"train_test_split/shuffled_train_file_list.json": '["x/a/0", "x/b/0", "x/b/1"]',
          "train_test_split/shuffled_test_file_list.json": '["x/a/2"]'}, (3, 0, 1)),
        ({"few_train.txt": "a/0\n", "few_test.txt": "a/1\n", "many_train.txt": "a/0\na/2\n", "many_test.txt": "b/1\n"},
         (2, 0, 1)),
        ({"train.txt": "c/0\nd/0\n", "test.txt": "c/1\n", "val.txt": ""}, (8, 0, 0)),  # of other files
        ({"train.txt": "0 0 0\n1 1 1\n", "test.json": "{", "val.json": '{"a": 1}'}, (8, 0, 0)),
    ],
)  # fmt: skip
def test_lists_of_the_files_of_a_split(tmp_path, lists, expected):
    folder = grow(tmp_path, "a/#.png*4 b/#.png*4")
    for name, text in lists.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    found = find(folder)
    assert tuple(len(found.get(split, ())) for split in ("train", "val", "test")) == expected
    assert all(files.classes == ["a", "b"] for files in found.values())


@pytest.mark.parametrize(
    ("links", "files"),
    [
        ({"a/again": ".."}, 24), ({"a/self": "."}, 24), ({"a/self": ".", "a/more": "."}, 24), ({"a/b": "../b"}, 24),
        ({"a/root": "/"}, 24), ({"a/above": "../.."}, 24), ({"a/gone": "nowhere"}, 24), ({"a/gone.png": "nowhere"}, 25),
        ({"x": "x"}, 24), ({"a/x": "y", "a/y": "x"}, 24), ({"a/x.png": "x.png"}, 25),
        ({"c": "../elsewhere"}, 30), ({"c": "../elsewhere", "d": "../elsewhere"}, 30), ({"c/x": "../../elsewhere"}, 30),
    ],
)  # fmt: skip
def test_each_folder_is_read_once_whatever_links_lead_to_it(tmp_path, links, files):
    folder = grow(tmp_path / "data", "a/#.png*12 b/#.png*12")
    grow(tmp_path / "elsewhere", "#.png*6")
    for name, target in links.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(target)
    started = time.process_time()
    found = find(folder)["train"]
    assert time.process_time() - started < 20
    assert len(found) == files
    for i in range(len(found)):  # none of b is labelled a
        assert found.classes[found.targets[i]] == found.relative(i).split(os.sep)[0]


def test_a_pipe_is_listed_so_that_it_is_named_when_it_is_read(tmp_path):
    folder = grow(tmp_path, "a/1.png b/1.png")
    os.mkfifo(folder / "a" / "pipe.png")
    found = find(folder)["train"]
    assert len(found) == 3
    with pytest.raises(OSError, match="expected a regular file, got a named pipe"):
        found.regular(1)


def test_names_that_are_not_text_are_written_with_escapes(tmp_path):
    folder = grow(tmp_path, "a/1.png b/1.png")
    os.rename(os.fsencode(folder / "a" / "1.png"), os.fsencode(folder) + b"/a/caf\xe9\x1b[1m.png")
    os.rename(os.fsencode(folder / "b"), os.fsencode(folder) + b"/b\xff")
    found = find(folder)["train"]
    assert found.sample_id(0).endswith(r"/a/caf\xe9\x1b[1m.png")
    assert found.classes == ["a", r"b\xff"]
    assert all(os.path.isfile(found.path(i)) for i in range(2))


def test_which_files_are_samples(tmp_path):
    folder = grow(tmp_path, "a/1.png a/thumb_1.png b/1.png")
    found = find(folder, is_sample=lambda path: "thumb" not in path)["train"]
    assert [found.relative(i) for i in range(len(found))] == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "train2017", "train_set", "trainset")),
        *((name, "val") for name in ("val", "valid", "Validation", "dev", "val-2014")),
        *((name, "test") for name in ("test", "Testing", "TestData", "test1", "eval")),
        *((name, None) for name in ("trained", "contest", "train_station", "train_val", "value", "", "3", "trainable")),
    ],
)  # fmt: skip
def test_names_of_splits(name, split):
    assert plain_split_of(name) == split


def test_names_that_say_more_than_a_split():
    assert split_of("seg_train") == ("train", "seg")
    assert split_of("train-clean-100") == ("train", "clean")
    named = [(name, name) for name in ("seg_test", "seg_train", "seg_pred", "test_tube", "train_station")]
    assert group_by_split(named) == {"train": ["seg_train"], "test": ["seg_test"]}
