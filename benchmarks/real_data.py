"""Trains a recipe on real data with several seeds and evaluates it once, on the test split.

    python -m benchmarks.real_data --recipe ijepa_sign_digits --root data/sign_digits --seeds 0 1 2
    python -m benchmarks.real_data --recipe vjepa_moving_mnist --root data/moving_mnist --seeds 0 1 2

For each seed: train, then fit kNN (k 20, cosine, temperature 0.07) and logistic regression (standardised, L2, C chosen
from 0.001 to 10 on a fifth of the training features) for each class label, and ridge regression (its penalty chosen
likewise) for each continuous one, on frozen, mean-pooled features of labelled training samples, and score them
on the test split; the same for the encoder before training, and for raw input: pixels of images, the mean frame of
clips, mean and spread over time of an audio clip's mel bands, a cloud's extents, principal variances and the
distribution of distances between its points (D2: Osada et al. 2002), a graph's node types and degrees (each modality's
`raw_features`). Settings are chosen on the validation part that the recipe
holds out of the training split; the test split is read here alone. What lies in `--out` is not trained again.

`--keep-time` pools the features of clips over space alone and probes those of all times side by side: a mean over time
says little of what happened when.

`--each KEY VALUE ...` repeats every seed with each value of a setting, as for leaving one speaker out:

    python -m benchmarks.real_data --recipe audiojepa_fsdd --root data/fsdd --each data.test_groups [george] [theo]
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import table
from jepa_lightning.callbacks.probe import embedder
from jepa_lightning.cli.lightning_cli import JEPACLI
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.encoders import Encoder
from jepa_lightning.evaluation import Features, extract, probe
from jepa_lightning.evaluation.features.pooled import is_class
from jepa_lightning.modality import Batch, Modality
from jepa_lightning.module import JEPA
from jepa_lightning.targets import represent


class Run(JEPACLI):
    """`jepa-fit` that keeps the encoder as it was before training."""

    untrained: Encoder

    def before_fit(self) -> None:
        """Copy the untrained encoder."""
        super().before_fit()
        self.untrained = copy.deepcopy(self.model.evaluated_encoder)

    @property
    def data_settings(self) -> dict[str, Any]:
        """Return what the data module was built from, to build it once more; the transform of views as it is."""
        settings: dict[str, Any] = self.config["data"]["init_args"].as_dict()
        given = settings.get("view_transform") is not None
        return {**settings, "view_transform": self.datamodule.view_transform} if given else settings


def raw_input(module: JEPA) -> Callable[[Batch], Tensor] | None:
    """Features without learning, of the modalities that have any: a batch to (B, D)."""
    modality = module.modality
    has_any = type(modality).raw_features is not Modality.raw_features
    return modality.raw_features if has_any else None  # type: ignore[return-value]


def by_time(module: JEPA, encoder: Encoder) -> Callable[[Batch], Tensor]:
    """Features pooled over all axes of the grid but the first, one after the other: a batch to (B, T D)."""

    @torch.no_grad()
    def embed_times(batch: Batch) -> Tensor:
        tokens = module.tokenizer(batch)
        if tokens.grid is None or tokens.valid is not None:
            raise ValueError("--keep-time needs tokens that fill a grid, without padding: leave it out")
        return represent(encoder, tokens).unflatten(1, (tokens.grid[0], -1)).mean(2).flatten(1)

    return embed_times


def score(train: Features, test: Features) -> dict[str, float]:
    """All probes; those of class labels after the first carry the label's name."""
    classes = [name for name, value in train.labels.items() if is_class(value)]
    scores = probe(train, test)
    for name in classes[1:]:
        found = probe(train, test, label=name)
        scores |= {f"{kind}_{name}": found[kind] for kind in ("knn", "linear")}
    return scores


def evaluate(
    recipe: str, root: str, seed: int, labels: int, folder: Path, words: list[str], *, keep_time: bool = False
) -> dict[str, Any]:
    """Train one seed and score it on the test split."""
    start, start_cpu = time.perf_counter(), time.process_time()
    config = ["fit", "--config", f"{recipe}.yaml", "--seed_everything", str(seed), "--data.root", root]
    run = Run([*config, "--trainer.default_root_dir", str(folder), *words])
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    module = run.model.cpu().eval()
    settings = run.config["data"]["init_args"].as_dict() | {"views": 1, "view_transform": None}
    data = type(run.datamodule)(**{**settings, "probe_samples": labels})
    data.trainer = run.trainer  # which has the model, whose sizes the data takes
    pooled = by_time if keep_time else embedder
    encoders: dict[str, Callable[[Batch], Tensor] | None] = {
        "trained": pooled(module, module.evaluated_encoder),
        "untrained": pooled(module, run.untrained.cpu().eval()),
        "raw": raw_input(module),
    }
    result: dict[str, Any] = {"recipe": recipe, "seed": seed, "steps": run.trainer.global_step}
    result |= {"seconds": seconds, "cpu_seconds": cpu_seconds}
    for name, embed in encoders.items():
        if embed is not None:
            train, test = extract(embed, data.probe_dataloader()), extract(embed, data.test_dataloader())
            result[name] = score(train, test)
            result["labels"], result["test_samples"] = len(train.values), len(test.values)
    return result


def main(args: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the seeds, print the table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.real_data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="ijepa_sign_digits")
    parser.add_argument("--root", required=True, help="folder of the data, or CSV file: the recipe's data.root")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--each", nargs="+", metavar=("KEY", "VALUE"), default=[], help="repeat with each VALUE of KEY")
    parser.add_argument("--labels", type=int, default=10_000, help="labelled training samples of the probes, at most")
    parser.add_argument("--keep-time", action="store_true", help="pool over space alone")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/real_data"))
    given, words = parser.parse_known_args(args)
    if len(given.each) == 1:
        parser.error("--each needs a KEY and at least one VALUE")
    if given.threads:
        torch.set_num_threads(given.threads)
    load_plugins()
    variants = [[f"--{given.each[0]}={value}"] for value in given.each[1:]] or [[]]
    results = []
    for variant in variants:
        for seed in given.seeds:
            name = re.sub(r"[^\w.=]+", "", "_".join([given.recipe, str(seed), *variant]))
            path = given.out / f"{name}.json"
            if not path.is_file():
                arguments = given.recipe, given.root, seed, given.labels, given.out / name, [*words, *variant]
                result = evaluate(*arguments, keep_time=given.keep_time)
                path.write_text(json.dumps(result, indent=2) + "\n")
            results.append(json.loads(path.read_text()))
    show(given.recipe, results)
    return results


def show(recipe: str, results: list[dict[str, Any]]) -> None:
    """Print the table."""
    rows = []
    for features in ("trained", "untrained", "raw"):
        for probe_name in results[0].get(features, ()):
            values = [result[features][probe_name] for result in results]
            spread = f"{statistics.stdev(values):.3f}" if len(values) > 1 else "-"
            each = " ".join(f"{value:.3f}" for value in values)
            rows.append([features, probe_name, f"{statistics.mean(values):.3f}", spread, each])
    labels, tests = ({result[key] for result in results} for key in ("labels", "test_samples"))
    print(f"\n{recipe}: {len(results)} runs, labels {sorted(labels)}, test samples {sorted(tests)}")
    for clock in ("seconds", "cpu_seconds"):
        print(f"{clock} a run: " + " ".join(f"{result[clock]:.0f}" for result in results))
    print(table(["features", "probe", "mean", "std", "each run"], rows))


if __name__ == "__main__":
    main()
