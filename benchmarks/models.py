"""The JEPA that is timed, from a few words: an image model by size or by its name in timm."""

from __future__ import annotations

from functools import partial

from jepa_lightning import JEPA
from jepa_lightning.encoders import TimmEncoder, ViT
from jepa_lightning.maskers import MultiBlock
from jepa_lightning.modality import EncoderFactory
from jepa_lightning.predictors import PredictorSpec, TransformerPredictor
from modalities.image import Image

SIZES = {  # width, depth, heads
    "vit_mini": (192, 4, 3),
    "vit_tiny": (192, 12, 3),
    "vit_small": (384, 12, 6),
    "vit_base": (768, 12, 12),
    "vit_large": (1024, 24, 16),
    "vit_huge": (1280, 32, 16),
}
HEAD = 32  # channels of a predictor's head: 12 heads at a width of 384, as in the paper


def build(
    name: str,
    *,
    image_size: int,
    patch_size: int,
    predictor_width: int = 384,
    predictor_depth: int | None = None,
    fixed_size: bool = False,
    compile: bool = False,
    cuda_graphs: bool = False,
    shared_context: bool = False,
) -> JEPA:
    """A JEPA on square RGB images with I-JEPA's masks.

    Args:
        name: a size of `SIZES`, or any model that `TimmEncoder` runs.
        image_size: side in pixels.
        patch_size: side of a patch in pixels.
        predictor_width: a multiple of 32.
        predictor_depth: None is I-JEPA's: 6 up to an encoder 768 wide (ViT-B), else 12.
        fixed_size: the same token counts at each step.
        compile: compile every block.
        cuda_graphs: record the step; see `JEPA`.
        shared_context: the predictor encodes the context once for all blocks; see `TransformerPredictor`.
    """
    if predictor_width < HEAD or predictor_width % HEAD:
        raise ValueError(f"the predictor's width must be a multiple of {HEAD}, got {predictor_width}")
    encoder: EncoderFactory = partial(TimmEncoder, name=name)
    if name in SIZES:
        width, depth, heads = SIZES[name]
        encoder = partial(ViT, width=width, depth=depth, heads=heads)

    def predictor(spec: PredictorSpec) -> TransformerPredictor:
        depth = predictor_depth or (6 if spec.dim <= 768 else 12)
        heads = predictor_width // HEAD
        return TransformerPredictor(
            spec, width=predictor_width, depth=depth, heads=heads, shared_context=shared_context
        )

    masker = MultiBlock(fixed_size=fixed_size)
    modality = Image(image_size=image_size, patch_size=patch_size, encoder=encoder, masker=masker)
    return JEPA(modality, predictor=predictor, compile=compile, cuda_graphs=cuda_graphs)
