"""Images: I-JEPA on patches, with its data."""

from modalities.image.captions import CaptionedImages
from modalities.image.data import ImageData
from modalities.image.files import ArrayImages
from modalities.image.generated import GeneratedImages
from modalities.image.modality import Image
from modalities.image.tokenizer import PatchTokenizer
from modalities.image.transforms import ImageViews

__all__ = ["ArrayImages", "CaptionedImages", "GeneratedImages", "Image", "ImageData", "ImageViews", "PatchTokenizer"]
