"""Pictures of something said of each token: masks, features, numbers. All are drawn on the CPU."""

from __future__ import annotations

from dataclasses import replace

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor

from jepa_lightning.evaluation.pca import pca_colours
from jepa_lightning.loading import Frozen
from jepa_lightning.modality import Batch, Modality
from jepa_lightning.pictures.drawing import heat
from jepa_lightning.tokens import Tokens


@torch.no_grad()
def draw_masks(modality: Modality, batch: Batch, *, seed: int = 0) -> list[Tensor] | None:
    """Pictures of one draw of the masker, as `Modality.draw_masks` gives them.

    Args:
        modality: on the CPU, as that of `load` is.
        batch: likewise.
        seed: of the draw.
    """
    masks = modality.masker(modality.tokenizer(batch), torch.Generator().manual_seed(seed))
    return modality.draw_masks(batch, masks)


@torch.no_grad()
def draw_features(encoder: Frozen, batch: Batch) -> list[Tensor] | None:
    """The first three principal components of the samples' token features as colours; see `pca_colours`."""
    tokens, features = tokens_and_features(encoder, batch)
    return encoder.modality.draw_features(batch, on_cpu(tokens), pca_colours(features, tokens.valid))


def draw_heat(
    modality: Modality, batch: Batch, tokens: Tokens, values: Tensor, valid: Tensor | None = None
) -> list[Tensor] | None:
    """A number for each token as its colour, each sample on a scale of its own: from black to pale yellow.

    Args:
        modality: on the CPU, as that of `load` is.
        batch: likewise.
        tokens: of the batch.
        values: (B, N); tokens of a value that is not finite are grey.
        valid: (B, N) bool; where it is False, they are grey too.
    """
    return modality.draw_features(batch, on_cpu(tokens), heat(values, valid))


@torch.no_grad()
def tokens_and_features(encoder: Frozen, batch: Batch) -> tuple[Tokens, Tensor]:
    """The tokens of a batch and their features (B, N, D), on the encoder's device."""
    tokens = encoder.tokenizer(move_data_to_device(batch, encoder.device))
    return tokens, encoder.encoder(tokens).float()


def on_cpu(tokens: Tokens) -> Tokens:
    """The tokens with positions, which pictures look at, on the CPU."""
    valid = None if tokens.valid is None else tokens.valid.cpu()
    return replace(tokens, positions=tokens.positions.cpu(), valid=valid)
