"""Does a latent z tell two equally likely futures apart, and is the best of its predictions better than a single one?

    python -m benchmarks.latent --seeds 0 1 2 --threads 1

For each seed: trains recipes/latent_fork (four codes) and the same with one prediction (`Masked`), both on pixels, so
that their errors have one scale, and predicts the second half of 1,000 test clips (`ForkedClips`) from the first. Rows:
the error of the single prediction, of the best of four, and of the mean of four; and how well the best code tells the
future: its class is the more frequent one among clips of the validation split with that code. Chance is 0.5. A table of
codes and futures follows for each seed. `--samples` makes it quick, for a test.

What lies in `--out` is not trained again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.hierarchy import spread
from benchmarks.report import at_least, machine, options, table, write_json
from benchmarks.training import train_missing
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.loading import load_jepa
from modalities.video import ForkedClips

CONFIG = "recipes/latent_fork.yaml"
BATCH = 200
ROWS = ("one prediction", "best of four", "mean of four", "the best code tells the future")


@torch.no_grad()
def predicted(run: Path, clips: ForkedClips) -> tuple[Tensor, Tensor]:
    """Return the mean squared error of each code's prediction, (S, n), and that of their mean, (n,)."""
    jepa = load_jepa(run)
    each, mean = [], []
    for videos in torch.from_numpy(clips.videos).split(BATCH):
        batch = {"video": videos.permute(0, 4, 1, 2, 3)}
        found = jepa.step(batch, torch.Generator()).predictions[0]
        guess = found.predicted if found.predicted.ndim == 5 else found.predicted.unsqueeze(0)
        each.append((guess - found.target).square().mean((-3, -2, -1)))
        mean.append((guess.mean(0) - found.target).square().mean((-3, -2, -1)))
    return torch.cat(each, dim=1), torch.cat(mean)


def counts(errors: Tensor, futures: Tensor) -> Tensor:
    """Count how often each code is the best for each future: (S, 2)."""
    return torch.stack(
        [errors.argmin(0)[futures == future].bincount(minlength=len(errors)) for future in (0, 1)], dim=1
    )


def measure(seed: int, out: Path, samples: int, words: list[str]) -> tuple[dict[str, float], Tensor]:
    """Train with and without z with one seed: the rows, and counts of codes and futures on test clips."""
    runs = {"latent": out / str(seed) / "latent", "single": out / str(seed) / "single"}
    for name, folder in runs.items():
        more = [] if name == "latent" else ["--model.pretext", "Masked", "--model.pretext.norm_targets", "false"]
        train_missing(CONFIG, folder, seed=seed, words=[*more, *words])
    val, test = (ForkedClips(samples, seed=seed, split=split) for split in ("val", "test"))
    errors, mean = predicted(runs["latent"], test)
    single = predicted(runs["single"], test)[0]
    said = counts(predicted(runs["latent"], val)[0], torch.from_numpy(val.targets)).argmax(1)
    futures = torch.from_numpy(test.targets)
    right = (said[errors.argmin(0)] == futures).double().mean()
    values = (single.mean(), errors.amin(0).mean(), mean.mean(), right)
    return {row: float(value) for row, value in zip(ROWS, values, strict=True)}, counts(errors, futures)


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Train and score, print the tables."""
    parser = options(__doc__, "latent")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=1000, help="clips to predict, of each split")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/latent"))
    given, words = parser.parse_known_args(args)
    at_least(parser, given, samples=2, threads=1)
    torch.set_num_threads(given.threads)
    load_plugins()
    measured = [measure(seed, given.out, given.samples, words) for seed in given.seeds]
    results = {"rows": [rows for rows, _ in measured], "counts": [found.tolist() for _, found in measured]}
    write_json(given.json, {**vars(given), **machine()}, results)
    print(table(["", "test clips"], [[row, spread([rows[row] for rows, _ in measured])] for row in ROWS]))
    for seed, (_, found) in zip(given.seeds, measured, strict=True):
        print(
            table(
                [f"seed {seed}: best code", *ForkedClips(2).classes],
                [[f"{i}", *map(str, row)] for i, row in enumerate(found.tolist())],
            )
        )
    return results


if __name__ == "__main__":
    main()
