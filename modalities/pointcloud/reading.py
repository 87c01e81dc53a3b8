"""Reading one cloud from a file, whatever its format."""

from __future__ import annotations

import logging
import os
import re
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_lightning.data import DataError

_log = logging.getLogger(__name__)

Cloud = NDArray[np.float32]
"""(n, 3 + F): x, y, z, then further values of each point."""

MESHES = (".ply", ".off", ".obj", ".stl")
ARRAYS = (".npy", ".npz")
TEXTS = (".xyz", ".pts", ".txt", ".asc", ".xyzn", ".xyzrgb")
EXTENSIONS = (*ARRAYS, *MESHES, *TEXTS)
INSTALL = 'pip install "jepa-lightning[pointcloud]"'


def read(path: str, *, surface: int = 4096) -> Cloud:
    """Read the cloud in a file, (n, 3 + F) float32, as it lies there or, if it is a mesh, sampled over its surface.

    Args:
        path: of a .npy (n, 3 + F), .npz (such an array, the only one or named `points`), .xyz, .pts or .txt (a line a
            point, see `read_text`), or .ply, .off, .obj or .stl file. The features
            of a mesh's points are the normals of its faces. The features of a .ply file of points are its normals, then
            its colours in 0-1, as far as it has them.
        surface: number of points on a mesh, drawn uniformly over its area; the same points at each reading.

    Raises:
        OSError: the file is missing, empty or damaged, or not a cloud, or all its points are NaN.
        DataError: the file needs trimesh, which is not installed.
    """
    if not os.path.getsize(path):
        raise OSError("the file is empty")
    suffix = os.path.splitext(path)[1].lower()
    if suffix in MESHES:
        cloud = _mesh(path, suffix, surface)
    elif suffix in ARRAYS:
        cloud = _array(path)
    elif suffix in TEXTS:
        cloud = _text(path)
    else:
        raise OSError(f"files that are read end in {', '.join(EXTENSIONS)}")
    cloud = points_first(cloud)
    if cloud.ndim != 2 or cloud.shape[1] < 3 or cloud.dtype.kind not in "iuf":
        raise OSError(f"expected numbers (n, 3 or more), got {cloud.dtype} {cloud.shape}")
    if not len(cloud):
        raise OSError("there are no points in it")
    found = shifted(cloud)
    if not np.isfinite(found[:, :3]).all(1).any():
        raise OSError("all its points are NaN or infinite")
    return found


def points_first(cloud: NDArray[Any]) -> NDArray[Any]:
    """Move the points of a cloud (3 + F, n), or of clouds (..., 3 + F, n), to the front; others stay as they are.

    Told by the shape: fewer than 16 rows and more than twice as many columns, at least 32. A line says it once.
    """
    if cloud.ndim < 2 or not (3 <= cloud.shape[-2] < 16 and cloud.shape[-1] >= max(32, 2 * cloud.shape[-2])):
        return cloud
    _say_transposed()
    return np.ascontiguousarray(cloud.swapaxes(-1, -2))


@cache
def _say_transposed() -> None:
    _log.warning("clouds are stored (3 + features, points): read as (points, 3 + features)")


def shifted(cloud: NDArray[Any]) -> Cloud:
    """Convert to float32; of more exact numbers the mean is taken off first, for maps count in millions of metres."""
    if cloud.dtype == np.float64:
        xyz = cloud[:, :3]
        finite = np.isfinite(xyz).all(1)
        if finite.any():
            cloud = np.concatenate([xyz - xyz[finite].mean(0), cloud[:, 3:]], axis=1)
    with np.errstate(over="ignore"):  # infinite points are left out later
        return cloud.astype(np.float32)


def _array(path: str) -> NDArray[Any]:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            names = found.files
            if len(names) != 1 and "points" not in names:
                raise OSError(f"expected an array named points, got {', '.join(names[:5]) or 'none'}")
            return found["points" if "points" in names else names[0]]
    except OSError:
        raise
    except Exception as error:  # damaged archives raise what zipfile, zlib and numpy like
        raise OSError(f"not an array: {_short(error)}") from None


def _text(path: str) -> NDArray[np.float64]:
    try:
        return read_text(path)
    except ValueError as error:  # UnicodeDecodeError is one
        raise OSError(f"not rows of numbers: {_short(error)}") from None


def _mesh(path: str, suffix: str, surface: int) -> NDArray[np.float64]:
    try:
        import trimesh
    except ImportError:
        raise DataError(f"{suffix} files need trimesh, which is not installed: {INSTALL}") from None
    logging.getLogger("trimesh").setLevel(logging.ERROR)  # else a line of warning for each odd file
    try:
        found = trimesh.load(path, file_type=suffix[1:], process=False)
        if isinstance(found, trimesh.Scene):
            found = found.to_mesh()
        if isinstance(found, trimesh.Trimesh) and len(found.faces):
            if not np.isfinite(found.area) or found.area <= 0:
                raise OSError("its faces have no area")
            points, faces = trimesh.sample.sample_surface(found, surface, seed=0)
            return np.concatenate([points, found.face_normals[faces]], axis=1)
        return _points(found)
    except OSError:
        raise
    except Exception as error:  # its parsers raise whatever a damaged file leads to
        raise OSError(f"not in the format {suffix[1:]}, or damaged: {_short(error)}") from None


def _points(found: Any) -> NDArray[np.float64]:
    """Take what trimesh read of a file without faces: points, normals, colours."""
    columns = [np.asarray(found.vertices, dtype=np.float64).reshape(-1, 3)]
    raw = found.metadata.get("_ply_raw", {}).get("vertex", {}).get("data", {})
    names = raw.keys() if isinstance(raw, dict) else raw.dtype.names or ()  # a text file, a binary one
    for group in (("nx", "ny", "nz"), ("red", "green", "blue")):
        if set(group) <= set(names):
            values = np.stack([np.asarray(raw[name]).reshape(-1) for name in group], axis=1)
            columns.append(values / 255 if values.dtype == np.uint8 else values.astype(np.float64))
    return np.concatenate(columns, axis=1)


def _short(error: Exception) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}{f' ({text[0][:100]})' if text else ''}"


_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?|[+-]?[0-9]+")
_LOOKED_AT = 50  # lines that tell how numbers are written


def read_text(path: str) -> NDArray[np.float64]:
    """Read the numbers in a file, a line a point, (n, columns).

    Between them lie blanks, tabs, commas, semicolons or |; with blanks or semicolons, the decimal sign may be a comma.
    Left out are a byte order mark, comments (#, //), a first line of names (x,y,z) and the line with the number of
    points that .pts files begin with.

    Raises:
        OSError: there are no points, or another number of them than the file says.
        ValueError: a line holds something else than numbers, or another number of them.
    """
    with open(path, encoding="utf-8-sig") as file:
        lines = [line for raw in file if (line := raw.split("#")[0].split("//")[0].strip(" \t\r\n\0"))]
    lines = _plain(lines)
    if lines and not any(_NUMBER.fullmatch(word) for word in lines[0].split()):
        del lines[0]  # names of the columns
    if not lines:
        raise OSError("there are no points in it")
    said = lines[0].split()
    if len(said) == 1 and said[0].isdigit() and (len(lines) == 1 or len(lines[1].split()) >= 3):
        del lines[0]
        if int(said[0]) != len(lines):
            raise OSError(f"it says that it holds {said[0]} points, and {len(lines)} are there: it is cut, or damaged")
    return np.loadtxt(lines, ndmin=2)


def _plain(lines: list[str]) -> list[str]:
    """Put blanks between the numbers of lines, and decimal points in them."""
    some = list(islice(lines, _LOOKED_AT))
    separator = next((sign for sign in ";|\t" if any(sign in line for line in some)), None)
    if separator is not None:
        cells = [[cell.strip() for cell in line.strip(separator).split(separator)] for line in some]
    else:
        cells = [re.sub(r",\s+", " ", line).split() for line in some]
    rows = [row for row in cells if any(_DECIMAL_COMMA.fullmatch(cell) or _NUMBER.fullmatch(cell) for cell in row)]
    points = [row for row in rows if len(row) > 1]  # without the number of points
    decimal = (
        any("," in cell for row in points for cell in row)
        and all(len(row) >= 3 for row in points)
        and all(_DECIMAL_COMMA.fullmatch(cell) for row in points for cell in row if cell)
    )
    table = str.maketrans({",": "." if decimal else " ", ";": " ", "|": " ", "\t": " "})
    if decimal and separator is None:
        return [re.sub(r",\s+", " ", line).translate(table) for line in lines]
    return [line.translate(table) for line in lines]
