"""Prompts of classes: read them, encode them, and classify samples by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import yaml
from torch import Tensor

from jepa_lightning.config.bounded_yaml import OutOfBounds, load_yaml
from jepa_lightning.data import JEPADataModule
from jepa_lightning.encoders.last_layers import encode_last
from jepa_lightning.encoders.pooling import Pooling, pool_sample
from jepa_lightning.evaluation.features.pooled import Features
from jepa_lightning.evaluation.zero_shot import ZeroShot, zero_shot
from jepa_lightning.loading import Frozen
from jepa_lightning.multimodal.modality import Multimodal

TEXT = "text"  # the key of prompts in a batch

Prompts = Mapping[str, Sequence[str]]
"""One or several prompts of each class, by its name."""


def read_prompts(path: str | Path) -> dict[str, list[str]]:
    """Read prompts from a YAML or JSON file: `class: prompt`, or `class: [prompt, ...]`.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    file = Path(path).expanduser()
    shape = "a YAML or JSON file of `class: prompt` or `class: [prompt, ...]` for two classes or more"
    try:
        found = load_yaml(file.read_text())
    except (OSError, UnicodeDecodeError, OutOfBounds, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"expected prompts as {shape}, cannot read {file}: {reason}") from None
    if not isinstance(found, dict) or len(found) < 2:
        raise ValueError(f"expected prompts as {shape}, got {type(found).__name__} in {file}")
    prompts = {str(name): [of] if isinstance(of, str) else of for name, of in found.items()}
    for name, of in prompts.items():
        if not isinstance(of, list) or not of or not all(isinstance(one, str) and one.strip() for one in of):
            raise ValueError(f"expected prompts as {shape}, got {of!r} for the class {name!r} in {file}")
    return prompts


@torch.no_grad()
def embed_prompts(encoder: Frozen, prompts: Sequence[str], *, pooling: Pooling = "mean", layers: int = 1) -> Tensor:
    """Encode prompts by the text encoder of several modalities: (n, D) float32, as `Multimodal.apart` gives them.

    Raises:
        ValueError: the run has no texts beside another modality.
    """
    modality = encoder.modality
    name = text_part(encoder)
    assert isinstance(modality, Multimodal)
    tokens = modality.tokens_of(name, {TEXT: list(prompts)})
    values = encode_last(encoder.encoder, tokens, layers).float()
    return pool_sample(values, tokens, how=pooling).cpu()


def text_part(encoder: Frozen) -> str:
    """Return the name of the modality whose inputs are texts.

    Raises:
        ValueError: the run has none beside another modality.
    """
    parts = encoder.modality.modalities if isinstance(encoder.modality, Multimodal) else {}
    for name, part in parts.items():
        if part.name == TEXT:
            return name
    raise ValueError(
        f"expected a run of text with another modality to classify by prompts, got {encoder.modality.name}: leave "
        "prompts out"
    )


def in_order(prompts: Prompts, classes: Sequence[str], *, label: str) -> list[list[str]]:
    """Return the prompts of each class, in the order of the classes' numbers.

    Raises:
        ValueError: they are not those of the classes.
    """
    if set(prompts) != set(classes):
        missing, unknown = sorted(set(classes) - set(prompts)), sorted(set(prompts) - set(classes))
        what = f"none of {missing[0]!r}" if missing else f"some of {unknown[0]!r}"
        raise ValueError(f"expected prompts of the classes of {label!r}, {', '.join(classes)}; got {what}")
    return [list(prompts[name]) for name in classes]


def asked_prompts(
    prompts: Prompts, encoder: Frozen, data: JEPADataModule, there: Sequence[str], labels: Sequence[str] | None
) -> tuple[str, list[list[str]]]:
    """Return the label that prompts are about, and those of each of its classes.

    Args:
        prompts: by class.
        encoder: of text with another modality.
        data: with the names of the classes of its own label; those of another are taken to be in the prompts' order.
        there: labels in the data.
        labels: those that are evaluated; None: all.

    Raises:
        ValueError: there are no texts, no labels, or other classes.
    """
    text_part(encoder)  # which says if there is none
    label = labels[0] if labels else data.label if data.label in there else next(iter(there), None)
    if label is None:
        raise ValueError("expected labels to classify by prompts, got none: set data.labels, or leave prompts out")
    classes = data.classes if label == data.label else None
    return label, in_order(prompts, classes or list(prompts), label=label)


def score_prompts(
    encoders: Mapping[str, Frozen],
    features: Mapping[str, Features],
    label: str,
    prompts: Sequence[Sequence[str]],
    *,
    pooling: Pooling,
    layers: int,
) -> dict[str, list[ZeroShot]]:
    """Classify samples by each encoder and each modality that is no text.

    Args:
        encoders: by name.
        features: of the samples, of each encoder.
        label: that is predicted.
        prompts: of each class, in the order of the classes' numbers.
        pooling: how the features were pooled.
        layers: how many layers they hold.
    """
    found: dict[str, list[ZeroShot]] = {}
    for name, encoder in encoders.items():
        assert isinstance(encoder.modality, Multimodal)
        vectors = [embed_prompts(encoder, of, pooling=pooling, layers=layers) for of in prompts]
        classes = features[name].class_label(label)
        found[name] = [
            zero_shot(values, vectors, classes, label=label, query=query)
            for query, values in encoder.modality.apart(features[name].values).items()
            if query != text_part(encoder)
        ]
    return found
