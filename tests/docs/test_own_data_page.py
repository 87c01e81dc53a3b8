"""The page on one's own data: its table names every file name ending that is read, and no other."""

import re

import pytest
from pages import ROOT

from jepa_lightning.data.files.csv_rows import PATH_COLUMNS
from jepa_lightning.data.files.json_lines import JSON_LINES
from jepa_lightning.data.files.table import LABEL_COLUMNS
from jepa_lightning.data.trajectories import reading as trajectories
from modalities.audio import reading as audio
from modalities.image import reading as image
from modalities.image.files import ArrayImages
from modalities.pointcloud import hdf5
from modalities.pointcloud import reading as pointcloud
from modalities.text import reading as text
from modalities.text.files import TABLES, TEXT_COLUMNS
from modalities.video import files as video

PAGE = (ROOT / "docs" / "own-data.md").read_text()
OPTIONAL = {ending for endings in image._OPTIONAL.values() for ending in endings}  # where Pillow has them
READ = {  # endings of single files, and of archives and tables
    "image": ({*image.EXTENSIONS, *OPTIONAL}, {".npz"}),
    "video": (set(video.EXTENSIONS), {".npz"}),
    "audio": (set(audio.EXTENSIONS), set()),
    "point cloud": (set(pointcloud.EXTENSIONS), set(hdf5.ENDINGS)),
    "graph": (set(), set()),
    "text": (set(text.EXTENSIONS), set(TABLES)),
    "vector": (set(), set()),
    "pairs (`PairedData`)": (set(), set()),
    "trajectories (`TrajectoryData`)": (set(), set(trajectories.ENDINGS)),
}


def table():
    """The cells of the table, by row and column."""
    lines = PAGE[PAGE.index("| | files |") :].partition("\n\n")[0].splitlines()
    (_, *columns), _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {name: dict(zip(columns, cells, strict=True)) for name, *cells in rows}


@pytest.mark.parametrize("row", READ)
def test_every_ending_that_is_read(row):
    cells = table()[row]
    for column, endings in zip(("files", "arrays and tables"), READ[row], strict=True):
        assert sorted(re.findall(r"`(\.\w+)`", cells[column])) == sorted(endings)


def test_every_modality_has_a_row():
    folders = {path.name for path in (ROOT / "modalities").iterdir() if (path / "__init__.py").is_file()}
    assert folders <= {name.replace(" ", "") for name in table()}
    assert table().keys() == READ.keys()
    for cells in table().values():
        assert {"files", "arrays and tables", "folders", "labels", "values"} == cells.keys()
        assert all(cells.values())


def test_every_name_that_is_looked_for():
    for row, names in (("image", ArrayImages.names), ("video", video.ArrayClips.names)):
        assert set(names) <= set(re.findall(r"\w+", table()[row]["arrays and tables"]))
    tables = PAGE[PAGE.index("## A CSV file") : PAGE.index("## Arrays")]
    words = set(re.findall(r"\.?\w+", tables))
    assert words >= {*PATH_COLUMNS, *TEXT_COLUMNS, *LABEL_COLUMNS, *JSON_LINES}
