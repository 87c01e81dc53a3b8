"""Sounds: JEPA on spectrograms, with its data."""

from modalities.audio.cache import LogMelCache
from modalities.audio.data import AudioData
from modalities.audio.front_end import LogMel
from modalities.audio.generated import GeneratedSounds
from modalities.audio.modality import Audio
from modalities.audio.tokenizer import SpectrogramTokenizer
from modalities.audio.transforms import AudioViews

__all__ = ["Audio", "AudioData", "AudioViews", "GeneratedSounds", "LogMel", "LogMelCache", "SpectrogramTokenizer"]
