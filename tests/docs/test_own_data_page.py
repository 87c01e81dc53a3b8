"""The page on one's own data: its table names every file name ending that is read, and no other."""

import re

import pytest
from pages import ROOT

from jepa_lightning.data.trajectories import reading as episodes
from modalities.audio import reading as audio
from modalities.image import reading as image
from modalities.pointcloud import hdf5
from modalities.pointcloud import reading as pointcloud
from modalities.text import reading as text
from modalities.video import files as video

PAGE = (ROOT / "docs" / "own-data.md").read_text()
OPTIONAL = {ending for endings in image._OPTIONAL.values() for ending in endings}  # where Pillow has them
READ = {
    "image": set(image.EXTENSIONS) | OPTIONAL,
    "video": set(video.EXTENSIONS),
    "audio": set(audio.EXTENSIONS),
    "text": set(text.EXTENSIONS),
    "point cloud": {*pointcloud.EXTENSIONS, *hdf5.ENDINGS},
    "episodes (`TrajectoryData`)": set(episodes.ENDINGS),
}


def table():
    """The cells of the table, by column and row."""
    lines = PAGE[PAGE.index("| | image |") :].partition("\n\n")[0].splitlines()
    columns, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert all(len(row) == len(columns) for row in rows)
    return {name: {row[0]: row[place] for row in rows} for place, name in enumerate(columns) if name}


@pytest.mark.parametrize("column", READ)
def test_every_ending_that_is_read(column):
    cells = table()[column]
    named = re.findall(r"`(\.\w+)`", cells["files"])
    if column == "point cloud":
        named += re.findall(r"`(\.\w+)`", cells["arrays"])
    assert sorted(named) == sorted(READ[column])


def test_every_modality_has_a_column():
    folders = {path.name for path in (ROOT / "modalities").iterdir() if (path / "__init__.py").is_file()}
    assert folders <= {name.replace(" ", "") for name in table()}
    for column in table().values():
        assert {"files", "folders", "labels", "other files"} <= column.keys()
        assert all(column.values())
