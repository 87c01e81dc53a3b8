"""A run that is killed again and again, at any moment, and started again each time, ends as if nothing had happened."""

import csv
import os
import random
import signal
import time

import pytest
import torch
from processes import forkserver
from short_runs import IMAGE, SHORT, fit_shortly

WORDS = [
    *("fit", "--config", "image.yaml", *SHORT, *IMAGE, "--trainer.logger", "true", "--trainer.log_every_n_steps", "1"),
    *("--trainer.val_check_interval", "2", "--checkpoint.every_n_train_steps", "1", "--data.samples", "96"),
    *("--collapse.enabled", "false", "--auto_resume", "true", "--trainer.max_epochs", "100"),
]
IGNORED = ("train/samples_per_second",)


def fit_quietly(words):
    from jepa_lightning.cli.fit import fit

    torch.set_num_threads(1)
    out = os.open(os.devnull, os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    fit(words)


def start(folder, steps, more):
    words = [*WORDS, "--trainer.default_root_dir", str(folder), "--trainer.max_steps", str(steps), *more]
    process = forkserver().Process(target=fit_quietly, args=(words,))
    process.start()
    return process


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in IGNORED} for row in csv.DictReader(file)]


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def step_of(folder):
    """The last step in metrics.csv, one more than its number; 0 before there are any."""
    try:
        return int(rows(folder)[-1]["step"]) + 1
    except (OSError, IndexError, KeyError, ValueError):  # not there, or half written
        return 0


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def check(tmp_path, *more, kills, steps):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start(whole, steps, more).join()
    chance, done, reached, ahead = random.Random(0), 0, [], steps // (kills + 1)
    while done < kills:
        process = start(killed, steps, more)
        # After so many more steps, and a part of one; now and then before the first.
        target = (reached[-1] if reached else 0) + chance.randint(1, ahead)
        while process.is_alive() and step_of(killed) < target:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        if not process.is_alive():
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        done += 1
        for path in (killed / "checkpoints").glob("*.ckpt"):
            assert torch.load(path, weights_only=True)["global_step"] <= steps
        if (killed / "checkpoints" / "last.ckpt").exists():
            reached.append(last(killed)["global_step"])
    process = start(killed, steps, more)
    process.join()
    assert process.exitcode == 0
    print(f"killed {done} times, after steps {reached}")
    assert len(set(reached)) >= kills / 2
    assert reached == sorted(reached)
    end, expected = last(killed), last(whole)
    assert end["global_step"] == expected["global_step"] == steps
    assert same(end["state_dict"], expected["state_dict"])
    assert same(end["optimizer_states"], expected["optimizer_states"])
    assert rows(killed) == rows(whole)
    assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_killed_and_started_again(tmp_path):
    check(tmp_path, kills=2, steps=24)


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    check(tmp_path, kills=20, steps=120)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["Online", "Pretrained"])
def test_killed_with_other_targets(tmp_path, target):
    more = ["--model.target", target]
    if target == "Pretrained":
        fit_shortly("image", tmp_path / "source")
        more += ["--model.target.checkpoint", str(tmp_path / "source")]
    check(tmp_path, *more, kills=2, steps=24)
