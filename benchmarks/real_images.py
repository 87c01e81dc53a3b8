"""Trains a recipe on real images with several seeds and judges it once, on the test split.

    python -m benchmarks.real_images --recipe ijepa_sign_digits --root data/sign_digits --seeds 0 1 2

For each seed: train, then fit kNN (k 20, cosine, temperature 0.07) and logistic regression (standardised, L2, C chosen
from 0.001 to 10 on a fifth of the training features) on frozen, mean-pooled teacher features of labelled training
images, and score them on the test split; the same for the encoder before training, and for raw pixels. Settings are
chosen on the validation part that the recipe holds out of the training split; the test split is read here alone. A seed
whose result lies in `--out` already is not trained again.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.report import table
from jepa_lightning.callbacks.probe import embedder
from jepa_lightning.cli import JEPACLI
from jepa_lightning.evaluation import extract, probe
from jepa_lightning.modality import Batch
from jepa_lightning.plugins import load_plugins


class Run(JEPACLI):
    """`jepa-fit` that keeps the encoder as it was before training."""

    untrained: nn.Module

    def before_fit(self) -> None:
        """Copy the untrained teacher."""
        super().before_fit()
        self.untrained = copy.deepcopy(self.model.teacher)


def pixels(batch: Batch) -> Tensor:
    """The images themselves as features."""
    return batch["image"].flatten(1)


def judge(recipe: str, root: str, seed: int, labels: int, folder: Path, words: list[str]) -> dict[str, Any]:
    """Train one seed and score it on the test split."""
    start, start_cpu = time.perf_counter(), time.process_time()
    config = ["fit", "--config", f"{recipe}.yaml", "--seed_everything", str(seed), "--data.root", root]
    run = Run([*config, "--trainer.default_root_dir", str(folder), *words])
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    module = run.model.cpu().eval()
    settings = run.config["fit"]["data"]["init_args"].as_dict()
    size, channels = module.modality.image_size, module.modality.channels
    data = type(run.datamodule)(**{**settings, "probe_samples": labels, "image_size": size, "channels": channels})
    encoders = {
        "trained": embedder(module, module.teacher),
        "untrained": embedder(module, run.untrained.cpu().eval()),
        "pixels": pixels,
    }
    result: dict[str, Any] = {"recipe": recipe, "seed": seed, "steps": run.trainer.global_step}
    result |= {"seconds": seconds, "cpu_seconds": cpu_seconds}
    for name, embed in encoders.items():
        train, test = extract(embed, data.probe_dataloader()), extract(embed, data.test_dataloader())
        result[name] = probe(train, test)
        result["labels"], result["test_samples"] = len(train.values), len(test.values)
    return result


def main(args: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the seeds, print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.real_images", description=__doc__)
    parser.add_argument("--recipe", default="ijepa_sign_digits")
    parser.add_argument("--root", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--labels", type=int, default=10_000, help="labelled training images of the probes, at most")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/real_images"))
    given, words = parser.parse_known_args(args)
    if given.threads:
        torch.set_num_threads(given.threads)
    load_plugins()
    results = []
    for seed in given.seeds:
        path = given.out / f"{given.recipe}_{seed}.json"
        if not path.is_file():
            folder = given.out / f"{given.recipe}_{seed}"
            result = judge(given.recipe, given.root, seed, given.labels, folder, words)
            path.write_text(json.dumps(result, indent=2) + "\n")
        results.append(json.loads(path.read_text()))
    rows = []
    for features in ("trained", "untrained", "pixels"):
        for score in ("knn", "linear"):
            values = [result[features][score] for result in results]
            spread = f"{statistics.stdev(values):.3f}" if len(values) > 1 else "-"
            rows.append(
                [features, score, f"{statistics.mean(values):.3f}", spread, " ".join(f"{v:.3f}" for v in values)]
            )
    first = results[0]
    print(f"\n{given.recipe}: {first['labels']} labels, {first['test_samples']} test images, seeds {given.seeds}")
    for clock in ("seconds", "cpu_seconds"):
        print(f"{clock} a seed: " + " ".join(f"{result.get(clock, math.nan):.0f}" for result in results))
    print(table(["features", "probe", "mean", "std", "each seed"], rows))
    return results


if __name__ == "__main__":
    main()
