"""Does the second level of a hierarchy tell the slow variable better than the mean of the first?

    python -m benchmarks.hierarchy --seeds 0 1 2 --threads 1

For each seed: trains recipes/hierarchy_first, then recipes/hierarchy_second on it, on long clips (`SlowClips`),
and probes which way the light goes (kNN, logistic regression) on frozen features of 2,000 training clips, scored on
1,000 test clips. Features of the first level are its pooled segments, averaged over the clip, before and after
training, and side by side, in their order; of the second its tokens, averaged, before its training (on the trained
first level) and after. The settings were chosen on the validation split. `--joint` trains both levels together instead
(hierarchy.yaml).

What lies in `--out` is not trained again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import machine, options, table, write_json
from benchmarks.training import train_missing
from jepa_lightning import load
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.encoders import Encoder
from jepa_lightning.encoders.pooling import evaluating, pooled_features
from jepa_lightning.evaluation import Features, probe
from jepa_lightning.evaluation.probes.protocols import interval
from jepa_lightning.hierarchy import SegmentEncoder, SegmentTokenizer, SegmentTokens
from jepa_lightning.loading import Frozen
from modalities.video import SlowClips

TRAIN, TEST, BATCH = 2000, 1000, 100
WEIGHTS = "--model.modality.level.encoder.weights"
ROWS = (
    "first, mean of segments, untrained",
    "first, mean of segments",
    "first, segments side by side",
    "second, untrained",
    "second",
)


@torch.no_grad()
def features(clips: SlowClips, embed: Callable[[SegmentTokens], Tensor], tokenizer: SegmentTokenizer) -> Features:
    """Embed all clips."""
    found = []
    for videos in torch.from_numpy(clips.videos).split(BATCH):
        found.append(embed(tokenizer({"video": videos.permute(0, 4, 1, 2, 3)})))
    return Features(torch.cat(found), {"way": torch.from_numpy(clips.targets)})


def of_first(first: Encoder, like: SegmentEncoder, *, mean: bool = True) -> Callable[[SegmentTokens], Tensor]:
    """Return what pools each segment as the second level is given it, and averages over segments or joins them."""
    levels = SegmentEncoder(first, like.second, pooling=like.pooling)

    def embed(tokens: SegmentTokens) -> Tensor:
        with evaluating(levels):
            segments = levels.segments(tokens)
        return segments.mean(1) if mean else segments.flatten(1)

    return embed


def measure(seed: int, given: Any, words: list[str]) -> dict[str, float]:
    """Train both levels with one seed and score them: "row probe" to accuracy."""
    out = given.out / str(seed)
    if given.joint:
        second = load(train_missing("hierarchy.yaml", out / "joint", seed=seed, words=words))
        before = second.untrained()
        firsts = [_levels(before).first, _levels(second).first]
    else:
        first = load(train_missing("recipes/hierarchy_first.yaml", out / "first", seed=seed, words=words))
        on_it = [WEIGHTS, str(out / "first"), *words]
        second = load(train_missing("recipes/hierarchy_second.yaml", out / "second", seed=seed, words=on_it))
        before = second.untrained()
        firsts = [first.untrained().encoder, first.encoder]
    levels, tokenizer = _levels(second), second.tokenizer
    assert isinstance(tokenizer, SegmentTokenizer)
    embedders = [of_first(each, levels) for each in firsts] + [of_first(firsts[1], levels, mean=False)]
    embedders += [lambda tokens, of=each.encoder: pooled_features(of, tokens) for each in (before, second)]  # type: ignore[misc]
    train_clips = SlowClips(TRAIN, seed=seed)
    test_clips = SlowClips(TEST, seed=seed, split="test")
    found: dict[str, float] = {}
    for row, embed in zip(ROWS, embedders, strict=True):
        scores = probe(features(train_clips, embed, tokenizer), features(test_clips, embed, tokenizer))
        found |= {f"{row} {name}": scores[name] for name in ("linear", "knn")}
    return found


def _levels(frozen: Frozen) -> SegmentEncoder:
    assert isinstance(frozen.encoder, SegmentEncoder)
    return frozen.encoder


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Train and score what is missing, print the table."""
    parser = options(__doc__, "hierarchy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--joint", action="store_true", help="train both levels together")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/hierarchy"))
    given, words = parser.parse_known_args(args)
    torch.set_num_threads(given.threads)
    load_plugins()
    results = []
    for seed in given.seeds:
        path = given.out / f"{seed}{'_joint' if given.joint else ''}.json"
        if not path.is_file():
            found = measure(seed, given, words)
            path.write_text(json.dumps(found, indent=2) + "\n")
        results.append(json.loads(path.read_text()))
    rows = [
        [row, *(spread([result[f"{row} {name}"] for result in results]) for name in ("linear", "knn"))] for row in ROWS
    ]
    for row in ROWS[:-1]:
        cells = [
            spread([result[f"second {name}"] - result[f"{row} {name}"] for result in results])
            for name in ("linear", "knn")
        ]
        rows.append([f"second - {row}", *cells])
    write_json(given.json, {**vars(given), **machine()}, {"rows": results})
    print(table(["features", "logistic", "kNN"], rows))
    return {"rows": results}


def spread(values: list[float]) -> str:
    """Mean and 95% interval over seeds."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    found = interval(values)  # type: ignore[arg-type]
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    main()
