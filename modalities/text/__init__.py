"""Text: JEPA on tokens of a vocabulary, with its data."""

from modalities.text import requirements  # noqa: F401  first: it says what to install
from modalities.text.data import TextData
from modalities.text.embedding import TokenEmbedding
from modalities.text.generated import GeneratedText
from modalities.text.hf_encoder import HFTextEncoder
from modalities.text.modality import Text
from modalities.text.tokenizer import TextTokenizer
from modalities.text.transforms import TextViews

__all__ = ["GeneratedText", "HFTextEncoder", "Text", "TextData", "TextTokenizer", "TextViews", "TokenEmbedding"]
