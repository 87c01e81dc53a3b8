"""What all data modules share: the batch contract, splits, loaders, and what happens to unreadable samples."""

from jepa_lightning.data.batch import Collate, Sample, to_sample
from jepa_lightning.data.cache import MemoryCache
from jepa_lightning.data.files.archives import ArchiveSamples, find_archives
from jepa_lightning.data.files.file_set import CachedFileSet, FileSet, cache_sets
from jepa_lightning.data.files.find import FileList, find_files
from jepa_lightning.data.mixed import MixedData
from jepa_lightning.data.module import JEPADataModule
from jepa_lightning.data.paired import PairedData
from jepa_lightning.data.samples import DataError, ReportingLoader, Samples, Unreadable
from jepa_lightning.data.sources.base import FileDataModule, SourcedDataModule
from jepa_lightning.data.sources.hub import HuggingFace
from jepa_lightning.data.sources.records import Encoded, Record, Records
from jepa_lightning.data.sources.shards import Shards
from jepa_lightning.data.split import draw, known_targets
from jepa_lightning.data.streams.base import Stream
from jepa_lightning.data.streams.hub import HuggingFaceStream
from jepa_lightning.data.streams.shards import ShardStream
from jepa_lightning.data.trajectories import TrajectoryData
from jepa_lightning.data.views import PlainViews, ViewTransform, view_seed

__all__ = [
    "ArchiveSamples",
    "CachedFileSet",
    "Collate",
    "DataError",
    "Encoded",
    "FileDataModule",
    "FileList",
    "FileSet",
    "HuggingFace",
    "HuggingFaceStream",
    "JEPADataModule",
    "MemoryCache",
    "MixedData",
    "PairedData",
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
    "TrajectoryData",
    "Unreadable",
    "ViewTransform",
    "cache_sets",
    "draw",
    "find_archives",
    "find_files",
    "known_targets",
    "to_sample",
    "view_seed",
]
