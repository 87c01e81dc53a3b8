"""What all data modules share: the batch contract, splits, loaders, and what happens to unreadable samples."""

from jepa_lightning.data.archives import ArchiveSamples, find_archives
from jepa_lightning.data.batch import Collate, Sample, to_sample
from jepa_lightning.data.cache import MemoryCache
from jepa_lightning.data.files import FileList, find_files
from jepa_lightning.data.hub import HuggingFace, HuggingFaceStream
from jepa_lightning.data.module import JEPADataModule
from jepa_lightning.data.records import Encoded, Record, Records
from jepa_lightning.data.samples import DataError, ReportingLoader, Samples, Unreadable
from jepa_lightning.data.shards import Shards, ShardStream
from jepa_lightning.data.sources import FileDataModule, SourcedDataModule
from jepa_lightning.data.split import draw, known_targets
from jepa_lightning.data.streams import Stream
from jepa_lightning.data.views import PlainViews, ViewTransform, view_seed

__all__ = [
    "ArchiveSamples",
    "Collate",
    "DataError",
    "Encoded",
    "FileDataModule",
    "FileList",
    "HuggingFace",
    "HuggingFaceStream",
    "JEPADataModule",
    "MemoryCache",
    "PlainViews",
    "Record",
    "Records",
    "ReportingLoader",
    "Sample",
    "Samples",
    "ShardStream",
    "Shards",
    "SourcedDataModule",
    "Stream",
    "Unreadable",
    "ViewTransform",
    "draw",
    "find_archives",
    "find_files",
    "known_targets",
    "to_sample",
    "view_seed",
]
