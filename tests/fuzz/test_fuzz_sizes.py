"""Data of any size, in batches of any size: a run ends with finite numbers, or is refused before its first step."""

import csv
import json
import math
import random
import tempfile
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from fuzz_helpers import FACTOR, fuzz, must_be_ours
from hypothesis import example, given
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from processes import in_two
from torch.utils.data import TensorDataset

from jepa_lightning import JEPA
from jepa_lightning.callbacks import (
    BestCheckpoint,
    CollapseMonitor,
    LastCheckpoint,
    NonFiniteGuard,
    OnlineProbe,
    RunSummary,
)
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import Random
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.regularizers import VICReg
from jepa_lightning.run.folder import AppendingCSVLogger
from modalities.image import Image, ImageData

TINY = {"width": 8, "depth": 1, "heads": 1}


def run(folder, *, size, batch, drop_last, val_fraction=0.1, classes=2, epochs=1, processes=1):
    """The trainer, and why it was refused; None where it was not."""
    torch.manual_seed(size)
    modality = Image(image_size=8, patch_size=4, encoder=partial(ViT, **TINY), masker=Random(target_ratio=0.5))
    model = JEPA(modality, predictor=partial(TransformerPredictor, **TINY), regularizers=[VICReg])
    images = TensorDataset(torch.rand(size, 3, 8, 8), torch.arange(size) % classes)
    watchers = [CollapseMonitor(), OnlineProbe(), NonFiniteGuard(), LastCheckpoint(), BestCheckpoint(), RunSummary()]
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "devices": processes,
        "strategy": "ddp" if processes > 1 else "auto",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(max_epochs=epochs, callbacks=watchers, logger=AppendingCSVLogger(folder), log_every_n_steps=1,
                          default_root_dir=folder, **quiet)  # fmt: skip
        try:
            data = ImageData(dataset=images, batch_size=batch, drop_last=drop_last, val_fraction=val_fraction,
                             num_workers=0)  # fmt: skip
            trainer.fit(model, datamodule=data)
        except ValueError as error:
            must_be_ours(error)
            return trainer, str(error)
    return trainer, None


def check(**sizes):
    with tempfile.TemporaryDirectory() as folder:
        trainer, refused = run(folder, **sizes)
        check_end(Path(folder), trainer, refused)
        return refused


def check_end(folder, trainer, refused):
    """Check that a run was refused before its first step, in words, or has ended with finite numbers."""
    if refused is not None:
        assert trainer.global_step == 0, refused
        assert "expected" in refused or "needs" in refused
        return
    assert trainer.global_step > 0
    if not trainer.is_global_zero:  # the other one writes
        return
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == trainer.global_step
    assert all(value.isfinite().all() for value in state["state_dict"].values() if value.is_floating_point())
    with open(folder / "metrics.csv", newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                assert not value or math.isfinite(float(value)), (name, value)


@pytest.mark.long
@given(
    size=st.integers(1, 80), batch=st.integers(1, 33), drop_last=st.booleans(),
    val_fraction=st.sampled_from([0.1, 0.1, 0.0, 0.5]), classes=st.sampled_from([1, 2, 2, 80]),
)  # fmt: skip
@example(size=1, batch=1, drop_last=False, val_fraction=0.1, classes=2)
@example(size=2, batch=2, drop_last=False, val_fraction=0.1, classes=2)  # one of each
@example(size=3, batch=2, drop_last=False, val_fraction=0.1, classes=2)
@example(size=12, batch=4, drop_last=True, val_fraction=0.1, classes=2)  # one held out
@example(size=10, batch=8, drop_last=False, val_fraction=0.1, classes=2)  # 8 and 1 to train with
@example(size=66, batch=2, drop_last=False, val_fraction=0.5, classes=2)  # 33 held out: 16 batches and 1 sample
@example(size=40, batch=1, drop_last=False, val_fraction=0.1, classes=2)
@fuzz(6)
def test_ends_or_is_refused_before_the_first_step(size, batch, drop_last, val_fraction, classes):
    check(size=size, batch=batch, drop_last=drop_last, val_fraction=val_fraction, classes=classes)


@pytest.mark.slow
@pytest.mark.parametrize("drop_last", [False, True])
def test_every_size_and_batch(drop_last):
    """All of 80 by 33: a quarter of an hour; every seventh pair, or all with JEPA_FUZZ."""
    pairs = [(size, batch) for size in range(1, 81) for batch in range(1, 34)]
    for size, batch in pairs if FACTOR > 1 else pairs[::7]:
        check(size=size, batch=batch, drop_last=drop_last)


def in_two_processes(folder, cases):
    """On each of two ranks: the steps that were made for each case, and why it was refused."""
    found = []
    for number, (size, batch, drop_last) in enumerate(cases):
        trainer, refused = run(folder / str(number), size=size, batch=batch, drop_last=drop_last, processes=2)
        check_end(folder / str(number), trainer, refused)
        found.append([trainer.global_step, refused])
    (folder / f"found-{trainer.global_rank}.json").write_text(json.dumps(found))


def check_two(folder, cases):
    """If one process were refused alone, the other would wait for it for ever."""
    in_two(folder, in_two_processes, folder, cases, limit=60 + 10 * len(cases))
    first, second = (json.loads((folder / f"found-{rank}.json").read_text()) for rank in (0, 1))
    assert len(first) == len(cases)
    assert [[steps, bool(refused)] for steps, refused in first] == [[steps, bool(refused)] for steps, refused in second]
    assert {bool(refused) for _, refused in first} == {True, False}


def test_two_processes_end_or_are_refused_together(tmp_path):
    check_two(tmp_path, [(1, 1, False), (9, 4, True), (14, 8, False)])


@pytest.mark.slow
def test_two_processes_of_many_sizes(tmp_path):
    """44 of 80 by 33 by 2, or more with JEPA_FUZZ."""
    every = [(size, batch, drop) for size in range(1, 81) for batch in range(1, 34) for drop in (False, True)]
    check_two(tmp_path, random.Random(0).sample(every, min(len(every), 44 * FACTOR)))


def test_what_is_refused():
    assert "VICReg needs batches of at least 2 samples on each process, got 1" in check(
        size=40, batch=1, drop_last=True
    )
    assert "at least 2 training samples" in check(size=1, batch=1, drop_last=False)
    assert "lower batch_size, add data" in check(size=8, batch=16, drop_last=True)
    assert check(size=12, batch=4, drop_last=True) is None
