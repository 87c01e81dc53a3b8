"""Audio: JEPA on spectrograms, with its data."""

from modalities.audio.cache import LogMelCache
from modalities.audio.data import AudioData
from modalities.audio.front_end import LogMel
from modalities.audio.generated import GeneratedAudio
from modalities.audio.modality import Audio
from modalities.audio.tokenizer import SpectrogramTokenizer
from modalities.audio.transforms import AudioViews

__all__ = ["Audio", "AudioData", "AudioViews", "GeneratedAudio", "LogMel", "LogMelCache", "SpectrogramTokenizer"]
