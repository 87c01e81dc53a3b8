"""What do tokens know with a loss on context tokens, too (V-JEPA 2.1), beside V-JEPA at equal CPU minutes?

    python -m benchmarks.dense --data data --minutes 2 --seeds 0 1 2 --split test

Trains recipes/vjepa_moving_mnist with the pretext `Masked` and with `Dense` (the loss on context tokens, all layers)
for the same CPU time (see benchmarks.methods), and probes single tokens of the frozen encoder, beside the same encoder
before training and raw tokens: whether a token's patch holds a part of the digit (logistic regression, AUROC), and
where the digit is at that time (ridge regression on a token, R2 of row and column), of tokens that hold a part of it
and of those that do not. Where the digit is, is the centre of brightness of a tubelet's frames. Probes are fitted on 16
random tokens of each training clip; `--split val`, the default, scores on a held-out tenth; `--split test` once.

What lies in `--out` is not trained again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from benchmarks.hierarchy import spread
from benchmarks.methods import measure_missing, train_equally
from benchmarks.report import options, table
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.encoders.pooling import evaluating
from jepa_lightning.evaluation.probes.classification import fit_linear
from jepa_lightning.evaluation.probes.regression import r2
from jepa_lightning.modality import Batch
from jepa_lightning.tokens import Tokens

CONFIG = "recipes/vjepa_moving_mnist.yaml"
METHODS = {
    "V-JEPA": (CONFIG, []),
    "dense": (CONFIG, ["--model.pretext", "Dense", "--model.pretext.layers", "[0,1,2]"]),
}
TOKENS = 16  # of each clip
BRIGHT = 0.5  # a pixel of the digit is brighter, between the darkest and the brightest of its clip
COLUMNS = ("holds the digit", "where it is, tokens on it", "where it is, tokens off it")


def labels(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Whether each token holds a part of the digit, (B, N) bool, and where it is at that time, (B, N, 2) from 0 to 1.

    Args:
        tokens: of clips, with values (B, N, 1, t, h, w) on a grid of time, rows and columns.
    """
    assert isinstance(tokens.values, Tensor)
    assert tokens.grid is not None
    values = tokens.values[:, :, 0]
    low, high = (limit.view(-1, 1, 1, 1, 1) for limit in (values.flatten(1).amin(1), values.flatten(1).amax(1)))
    light = ((values - low) / (high - low).clamp(min=1e-6)).amax(2)  # (B, N, h, w)
    holds = light.flatten(2).amax(2) > BRIGHT
    steps, rows, columns = tokens.grid
    mass = (light * (light > BRIGHT)).unflatten(1, (steps, rows, columns)).movedim(4, 3).flatten(4, 5).flatten(2, 3)
    whole = mass.sum((2, 3)).clamp(min=1e-6)  # (B, steps) of (B, steps, height, width)
    height, width = ((torch.arange(n) + 0.5) / n for n in mass.shape[2:])
    centre = torch.stack([(mass.sum(3) * height).sum(2) / whole, (mass.sum(2) * width).sum(2) / whole], dim=2)
    return holds, centre.repeat_interleave(rows * columns, dim=1)


@torch.no_grad()
def some_tokens(
    batches: Iterable[Batch], tokenizer: Callable[[Batch], Tokens], encode: Callable[[Tokens], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (n, D) of random tokens, always the same, with their labels (n,) and (n, 2)."""
    generator = torch.Generator().manual_seed(0)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in batches:
        tokens = tokenizer(batch)
        chosen = torch.rand(tokens.batch_size, tokens.count, generator=generator).argsort(1)[:, :TOKENS]
        every = (encode(tokens), *labels(tokens))
        row = torch.arange(tokens.batch_size)[:, None]
        found.append(tuple(part[row, chosen].flatten(0, 1) for part in every))  # type: ignore[arg-type]
    features, holds, centre = (torch.cat(parts) for parts in zip(*found, strict=True))
    return features.float(), holds, centre


def score(train: tuple[Tensor, Tensor, Tensor], test: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    """Fit the probes on training tokens, and score them on others."""
    mean, scale = train[0].mean(0), train[0].std(0).clamp(min=1e-6)
    known, asked = ((part[0] - mean) / scale for part in (train, test))
    weight, bias = fit_linear(known, train[1].long(), c=1.0)
    scores = F.linear(asked, weight, bias).diff(dim=1).squeeze(1)
    found = {COLUMNS[0]: float(binary_auroc(scores, test[1].long()))}
    for column, on in zip(COLUMNS[1:], (True, False), strict=True):
        here, there = train[1] == on, test[1] == on
        found[column] = r2(known[here], train[2][here], asked[there], test[2][there])
    return found


def measure(method: str, given: Any, *, seed: int, words: list[str]) -> dict[str, Any]:
    """Train a method with one seed and score it, the untrained encoder and raw tokens."""
    root, folder = given.data / "moving_mnist", given.out / f"{method}_{seed}"
    run = train_equally(METHODS[method], root, folder, seed=seed, minutes=given.minutes, words=words)
    module, data = run.model.cpu().eval(), run.datamodule
    encoders = {method: module.evaluated_encoder, "untrained": run.untrained.cpu().eval()}
    encoded: dict[str, Callable[[Tokens], Tensor]] = {"raw": lambda tokens: tokens.values.flatten(2)}  # type: ignore[union-attr]
    scores = {}
    for name in (*encoders, "raw"):
        encode = encoders.get(name) or encoded[name]
        with evaluating(module):
            parts = [
                some_tokens(loader(), module.tokenizer, encode)
                for loader in (
                    data.probe_dataloader,
                    data.val_dataloader if given.split == "val" else data.test_dataloader,
                )
            ]
        scores[name] = score(*parts)
    return {
        "method": method,
        "seed": seed,
        "cpu_seconds": run.clock.seconds,
        "steps": len(run.clock.ends),
        "scores": scores,
    }


def main(args: list[str] | None = None) -> list[dict[str, Any]]:
    """Train and score what is missing, print the table."""
    parser = options(__doc__, "dense")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder that holds moving_mnist")
    parser.add_argument("--minutes", type=float, default=2.0, help="CPU minutes of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/dense"))
    given, words = parser.parse_known_args(args)
    torch.set_num_threads(given.threads)
    load_plugins()
    results = measure_missing(measure, METHODS, given, words)
    print(table(["tokens of", "CPU minutes", "steps", *COLUMNS], rows_of(results)))
    return results


def rows_of(results: list[dict[str, Any]]) -> list[list[str]]:
    """Make a row a method, then one of the untrained encoder and one of raw tokens: means over seeds."""
    rows = []
    for name in (*METHODS, "untrained", "raw"):
        same = [r for r in results if r["method"] == name] or [r for r in results if r["method"] == next(iter(METHODS))]
        trained = name in METHODS
        cells = [name, f"{sum(r['cpu_seconds'] for r in same) / len(same) / 60:.1f}" if trained else ""]
        cells.append(str(same[0]["steps"]) if trained else "")
        rows.append([*cells, *(spread([r["scores"][name][column] for r in same]) for column in COLUMNS)])
    return rows


if __name__ == "__main__":
    main()
