"""What data modules pass on to their bases is known to editors, and is what the bases take."""

import inspect
from typing import Any, get_type_hints

import pytest

from jepa_lightning.data import FileDataModule, JEPADataModule, SourcedDataModule, TrajectoryData
from jepa_lightning.data import shared as data_shared
from jepa_lightning.data.shared import DataSettings, FileSettings, SourceSettings
from modalities.audio import AudioData
from modalities.graph import GraphData
from modalities.image import ImageData
from modalities.pointcloud import PointCloudData
from modalities.video import VideoData


def own(kind, leave_out=()):
    """Names and annotations of a constructor's own keywords."""
    parameters = list(inspect.signature(vars(kind)["__init__"]).parameters.values())[1:]
    return {p.name: p.annotation for p in parameters if p.kind == p.KEYWORD_ONLY and p.name not in leave_out}


def annotations(settings):
    """Names and annotations of a TypedDict, those of its bases among them, as they are written."""
    return {name: getattr(hint, "__forward_arg__", hint) for name, hint in settings.__annotations__.items()}


def test_the_settings_are_those_of_the_bases():
    source = own(JEPADataModule) | own(SourcedDataModule, leave_out=["samples"])
    file = source | own(FileDataModule)
    assert annotations(DataSettings) == own(JEPADataModule)
    assert annotations(SourceSettings) == source
    assert annotations(FileSettings) == file


@pytest.mark.parametrize("kind", [ImageData, VideoData, AudioData, PointCloudData, GraphData, TrajectoryData])
def test_a_modality_names_the_settings_of_its_base(kind):
    shared = inspect.signature(kind.__init__).parameters["shared"]
    bases = {FileDataModule: FileSettings, SourcedDataModule: SourceSettings, JEPADataModule: DataSettings}
    settings = next(settings for base, settings in bases.items() if issubclass(kind, base))
    named = getattr(data_shared, shared.annotation.removeprefix("Unpack[").removesuffix("]"))
    own_defaults = own(kind).keys() & annotations(settings).keys()
    assert annotations(named).keys() == annotations(settings).keys() - own_defaults
    assert get_type_hints(kind.__init__)["shared"] is Any  # which jsonargparse sees
