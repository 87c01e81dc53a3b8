"""Images: I-JEPA on patches, with its data."""

from modalities.image.arrays import ArrayImages
from modalities.image.data import ImageData
from modalities.image.generated import GeneratedImages
from modalities.image.modality import Image
from modalities.image.tokenizer import PatchTokenizer
from modalities.image.views import ImageViews

__all__ = ["ArrayImages", "GeneratedImages", "Image", "ImageData", "ImageViews", "PatchTokenizer"]
