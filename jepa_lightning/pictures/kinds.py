"""The kinds of pictures that `jepa_lightning.view` draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from jepa_lightning.evaluation.token_errors import token_errors
from jepa_lightning.names.nearest import nearest_names
from jepa_lightning.pictures.attention import attention_of_probe, find_label
from jepa_lightning.pictures.files import GAP, WIDE, beside, stack
from jepa_lightning.pictures.legend import FEATURES_LEGEND, WIDTH, Legend, with_name
from jepa_lightning.pictures.neighbours import Gallery, chance_of_same, nearest, same_label
from jepa_lightning.pictures.predictions import DifferentTokens, Expected, distances, expected, nearest_samples
from jepa_lightning.pictures.scene import Scene
from jepa_lightning.pictures.tokens import draw_features, draw_heat, draw_masks, tokens_and_features
from jepa_lightning.tokens import Tokens

MASKS = 3  # draws of the masker, each in a file of its own
LINE = 96  # how grey the line between a sample and its neighbours is


def masks(scene: Scene) -> None:
    """Draw context and targets, for three draws of the run's masker."""
    if not scene.hides("masks"):
        return
    for draw in range(MASKS):
        pictures = draw_masks(scene.encoder.modality, scene.batch, seed=scene.seed * MASKS + draw)
        text = f"{scene.encoder.modality.masks_legend} Draw {draw + 1} of {MASKS}."
        scene.write(pictures, f"masks_{draw + 1}", Legend(text))


def features(scene: Scene) -> None:
    """The first three principal components of token features as colours, untrained and trained in one picture."""
    after, untrained = draw_features(scene.encoder, scene.batch), scene.untrained()
    before = None if untrained is None else draw_features(untrained, scene.batch)
    if not after or not before:
        scene.write(after, "features", Legend(f"{FEATURES_LEGEND} After training."))
        return
    narrow = after[0].ndim == 3 and max(picture.shape[-1] for picture in [*before, *after]) <= (WIDTH - WIDE) // 2
    gap = WIDE if narrow or after[0].ndim == 4 else GAP  # a pair under each other is nearer than the next sample
    joined = [(beside if narrow else stack)(list(pair), gap=gap) for pair in zip(before, after, strict=True)]
    where = "Left before training, right after." if narrow else "Above before training, below after."
    scene.write(joined, "features", Legend(f"{FEATURES_LEGEND} {where}"))


def neighbours(scene: Scene) -> None:
    """Each sample, then its nearest neighbours in the split by the cosine of pooled features."""
    samples, encoder, pooling = scene.samples, scene.encoder, scene.settings.pooling
    queries = list(dict.fromkeys(scene.batch["position"]))
    places = sorted({*samples.spread(scene.gallery), *queries})
    untrained = scene.untrained()
    encoders = {"trained": encoder} | ({} if untrained is None else {"untrained": untrained})
    embedders = {name: partial(which.embed, pooling=pooling) for name, which in encoders.items()}
    gallery = Gallery.read(samples.batches(places), embedders, total=len(places))
    if len(gallery.ids) < 2:
        raise ValueError(f"expected at least 2 samples in the split {samples.split} to find neighbours, got 1")
    number = {place: row for row, place in enumerate(gallery.positions)}
    rows = torch.tensor([number[place] for place in queries])
    found = {name: nearest(of.values, k=scene.k) for name, of in gallery.features.items()}
    indices, similarities = (part[rows] for part in found["trained"])
    _draw_neighbours(scene, [[gallery.positions[i] for i in row] for row in indices.tolist()], queries)
    shares: dict[str, dict[str, float]] = {}
    for name, values in gallery.class_labels.items():
        shares[name] = {which: same_label(values, index) for which, (index, _) in found.items()}
        shares[name]["chance"] = chance_of_same(values)
        line = ", ".join(f"{which} {share:.3f}" for which, share in shares[name].items())
        scene.say(f"neighbours of the same {name}: {line}")
    one_of = [
        {
            "id": gallery.ids[row],
            "labels": scene.named(gallery.labels, row),
            "neighbours": [
                {"id": gallery.ids[i], "similarity": s, "labels": scene.named(gallery.labels, i)}
                for i, s in zip(index, similarity, strict=True)
            ],
        }
        for row, index, similarity in zip(rows.tolist(), indices.tolist(), similarities.tolist(), strict=True)
    ]
    said = {"split": samples.split, "gallery": len(gallery.ids), "k": indices.shape[1], "pooling": pooling}
    scene.save("neighbours", {**said, "same_label": shares, "samples": one_of})


def _draw_neighbours(scene: Scene, found: list[list[int]], queries: list[int]) -> None:
    """A row a sample: the sample, a line, its neighbours; of moving pictures a GIF, and its middle frame as PNG."""
    wanted = list(dict.fromkeys([*queries, *(place for row in found for place in row)]))
    batch = scene.samples.read(wanted)
    drawn = scene.encoder.modality.draw_samples(batch)
    if not drawn:
        scene.say(f"neighbours: the modality {scene.encoder.modality.name} draws no samples, so there is no picture")
        return
    pictures: dict[int, Tensor] = {}
    for number, (place, picture) in enumerate(zip(batch["position"], drawn, strict=True)):
        label = scene.named(batch["labels"], number).get(scene.data.label or "")
        named = (
            picture if label is None else with_name(picture, f"{label:.4g}" if isinstance(label, float) else str(label))
        )
        pictures.setdefault(place, named)  # of several clips of a video, the first
    rows = []
    for query, row in zip(queries, found, strict=True):
        line = torch.full_like(pictures[query][..., :2], LINE)
        rows.append(beside([pictures[query], line, *(pictures[place] for place in row)], gap=2 * GAP))
    whole = stack(rows, gap=2 * GAP)
    legend = Legend(
        "Each row: a sample, and right of the line its nearest neighbours by the cosine of pooled features."
    )
    scene.draw_one(whole, "neighbours", legend)


def attention(scene: Scene) -> None:
    """Where an attentive probe, fitted on labelled training data, looks to tell a label."""
    encoder = scene.encoder
    loader = scene.data.probe_dataloader()
    if loader is None:
        scene.say("attention: left out, since the data have no labels")
        return
    example = next(iter(loader))
    if scene.label is None:
        try:
            find_label(example)
        except ValueError as error:
            scene.say(f"attention: left out, since there is {error}")
            return
    fitted = attention_of_probe(encoder, loader, label=find_label(example, scene.label), seed=scene.seed)
    tokens, values = tokens_and_features(encoder, scene.batch)
    weight, predicted = fitted.of(values.cpu(), None if tokens.valid is None else tokens.valid.cpu())
    legend = Legend(
        f"Where an attentive probe looks to tell {fitted.label}. Each sample has its own scale.",
        ends=("least", "most"),
    )
    scene.write(draw_heat(encoder.modality, scene.batch, tokens, weight, tokens.valid), "attention", legend)
    guesses = {fitted.label: predicted.squeeze(-1) if predicted.ndim > 1 and predicted.shape[1] == 1 else predicted}
    samples = _scales(scene, tokens, weight)
    for row, sample in enumerate(samples):
        sample["predicted"] = scene.named(guesses, row)[fitted.label]
    scene.save("attention", {"label": fitted.label, "fitted_on": fitted.samples, "samples": samples})


def error(scene: Scene) -> None:
    """How badly each token is predicted where it is hidden: black where best, pale where worst, grey where never."""
    if not scene.hides("error"):
        return
    jepa = scene.jepa()
    found = token_errors(jepa, scene.batch, seed=scene.seed)
    objective = type(jepa.objective).__name__
    legend = Legend(
        f"Prediction error ({objective}) of each token where it is hidden; grey: never. Each sample has its own scale.",
        ends=("small", "large"),
    )
    scene.write(draw_heat(scene.encoder.modality, scene.batch, found.tokens, found.values), "error", legend)
    scene.say(f"mean prediction error: {found.mean:.4f} ({objective} of a token, {found.draws} draws of masks)")
    scene.save(
        "error",
        {
            "objective": objective,
            "draws": found.draws,
            "mean": found.mean,
            "samples": _scales(scene, found.tokens, found.values),
        },
    )


def predictions(scene: Scene) -> None:
    """What is expected of the hidden part: for each prediction, the samples whose hidden part is nearest to it."""
    if not scene.hides("predictions"):
        return
    jepa, samples = scene.jepa(), scene.samples
    own = scene.batch["position"]
    places = sorted({*samples.spread(scene.gallery), *own})
    try:
        found = expected(jepa, scene.batch, seed=scene.seed)
        apart, positions, ids = distances(jepa, found, samples.batches(places))
    except DifferentTokens as error:
        scene.say(f"predictions: left out, since {error}")
        return
    if len(positions) < 2:
        raise ValueError(f"expected at least 2 samples in the split {samples.split} to compare predictions with, got 1")
    indices, values = nearest_samples(apart, positions, own, k=scene.k)
    _draw_predictions(scene, found, [[[positions[i] for i in row] for row in code] for code in indices.tolist()])
    objective = type(jepa.objective).__name__
    best, codes = found.errors.argmin(0).tolist(), len(found.errors)
    mean = f"mean prediction error: {float(found.errors.amin(0).mean()):.4f} ({objective} of a token)"
    if codes > 1:
        single = float(found.errors.mean(1).min())
        mean += f" of the best of {codes} codes, {single:.4f} of the one code that is best on average"
    scene.say(mean)
    of_samples = [
        {
            "id": name,
            "labels": scene.named(scene.batch["labels"], row),
            "best": best[row],
            "predictions": [
                {
                    "error": float(found.errors[code, row]),
                    "nearest": [
                        {"id": ids[i], "distance": distance}
                        for i, distance in zip(indices[code, row].tolist(), values[code, row].tolist(), strict=True)
                    ],
                }
                for code in range(codes)
            ],
        }
        for row, name in enumerate(scene.batch["id"])
    ]
    scene.save(
        "predictions", {"objective": objective, "gallery": len(ids), "split": samples.split, "samples": of_samples}
    )


def _draw_predictions(scene: Scene, found: Expected, nearest: list[list[list[int]]]) -> None:
    """A block a sample: its masks, a line, and a row of nearest samples for each prediction, the best one first."""
    modality = scene.encoder.modality
    masked = modality.draw_masks(scene.batch, [found.masks])
    batch = scene.samples.read(list(dict.fromkeys(place for code in nearest for row in code for place in row)))
    drawn = modality.draw_samples(batch)
    if not masked or not drawn:
        scene.say(f"predictions: the modality {modality.name} draws no samples, so there is no picture")
        return
    pictures = dict(reversed(list(zip(batch["position"], drawn, strict=True))))
    blocks = []
    for row, left in enumerate(masked):
        errors = found.errors[:, row]
        rows = []
        for code in errors.argsort().tolist():
            line = beside([pictures[place] for place in nearest[code][row]], gap=GAP)
            name = (
                f"code {code}: error {float(errors[code]):.3f}" if len(errors) > 1 else f"error {float(errors[0]):.3f}"
            )
            rows.append(with_name(line, name))
        right = stack(rows, gap=GAP)
        height = max(left.shape[-2], right.shape[-2])
        line = torch.full((*right.shape[:-2], height, 2), LINE, dtype=torch.uint8)
        blocks.append(beside([left, line, right], gap=2 * GAP))
    several = len(found.errors) > 1
    legend = Legend(
        f"{modality.masks_legend} Right of the line, "
        + ("a row for each code of z, the best one first: " if several else "")
        + "the other samples whose hidden part is nearest to what is predicted."
    )
    scene.draw_one(stack(blocks, gap=WIDE), "predictions", legend, at=found.middle)


KINDS: dict[str, Callable[[Scene], None]] = {
    "masks": masks,
    "features": features,
    "neighbours": neighbours,
    "attention": attention,
    "error": error,
    "predictions": predictions,
}


def chosen_kinds(names: Sequence[str]) -> list[Callable[[Scene], None]]:
    """The functions that draw the kinds of these names, each once, in the order of `KINDS`.

    Raises:
        ValueError: there is no such kind, with the nearest name.
    """
    for name in names:
        if name not in KINDS:
            close = nearest_names(name, KINDS)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"expected pictures among {', '.join(KINDS)}, got {name!r}{hint}")
    return [draw for kind, draw in KINDS.items() if kind in names]


def _scales(scene: Scene, tokens: Tokens, values: Tensor) -> list[dict[str, Any]]:
    """What the darkest and the brightest colour of each sample's picture stand for, and the mean of its tokens."""
    values = values.cpu()
    real = values.isfinite() if tokens.valid is None else values.isfinite() & tokens.valid.cpu()
    found = []
    for row, name in enumerate(scene.batch["id"]):
        known = values[row][real[row]] if real[row].any() else torch.tensor([math.nan])
        sample: dict[str, Any] = {"id": name, "labels": scene.named(scene.batch["labels"], row)}
        found.append({**sample, "min": float(known.min()), "max": float(known.max()), "mean": float(known.mean())})
    return found
