"""Videos: V-JEPA on tubelets, with its data; images beside clips."""

from modalities.video.data import VideoData
from modalities.video.embedding import ClipImageEmbedding
from modalities.video.files import ArrayClips
from modalities.video.forked import ForkedClips
from modalities.video.generated import GeneratedClips
from modalities.video.modality import Video
from modalities.video.slow import SlowClips
from modalities.video.tokenizer import TubeletTokenizer
from modalities.video.transforms import VideoViews

__all__ = [
    "ArrayClips",
    "ClipImageEmbedding",
    "ForkedClips",
    "GeneratedClips",
    "SlowClips",
    "TubeletTokenizer",
    "Video",
    "VideoData",
    "VideoViews",
]
