"""Episodes in LeRobot's folders: tables of numbers, and videos or pictures of cameras."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from jepa_lightning.config.extras import extra
from jepa_lightning.data.arrays import native
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.trajectories.episodes import Episode

_NUMBERING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_CAMERAS = ("video", "image")


def is_lerobot(root: Path) -> bool:
    """Return whether a folder is a data set of LeRobot."""
    return (root / "meta" / "info.json").is_file()


def read_lerobot(
    root: Path,
    *,
    observations: str | None = None,
    actions: str = "action",
    labels: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
) -> list[Episode]:
    """Read all episodes of a data set of LeRobot, versions 2 and 3, from its files alone.

    Args:
        root: the folder, with `meta/info.json`, `data/` and, of cameras that are videos, `videos/`.
        observations: name of a feature, such as observation.images.top or observation.state; None: its only camera.
        actions: name of the actions' feature.
        labels: names of features that are labels; None: all other numbers.
        size: rows and columns that pictures are scaled to, whatever their shape; None: as they are.

    Raises:
        DataError: what was expected and what the folder holds.
    """
    info = _info(root)
    features: dict[str, Any] = info["features"]
    chosen = _chosen(features, observations)
    camera = features[chosen].get("dtype") if features[chosen].get("dtype") in _CAMERAS else None
    if actions not in features:
        raise DataError(f"expected the actions {actions!r} in {root}, it has {sorted(features)}: set data.actions")
    numbers = [name for name, of in features.items() if of.get("dtype") not in (*_CAMERAS, "string")]
    for name in labels or ():
        if name not in numbers:
            raise DataError(f"expected the label {name!r} in {root}, it has {sorted(numbers)}: see data.labels")
    wanted = [name for name in numbers if name not in (chosen, actions, *_NUMBERING)] if labels is None else [*labels]
    columns = list(dict.fromkeys([*wanted, actions, "episode_index", "timestamp"]))
    columns += [chosen] if camera != "video" else []
    rows = _rows(root, columns)
    found = []
    pictures = _Videos(root, info, chosen, size) if camera == "video" else None
    for number, of in rows:
        if pictures is not None:
            seen = pictures.of_episode(number, of["timestamp"])
        elif camera == "image":
            seen = torch.stack([_picture(cell, size, chosen) for cell in of[chosen]])
        else:
            seen = _numbers(of[chosen], chosen)
        told = {name: _numbers(of[name], name) for name in wanted}
        done = _numbers(of[actions], actions).float()
        done = done.unsqueeze(-1) if done.ndim == 1 else done
        found.append(Episode(seen, done[:-1], told, f"{root.name}/episode_{number}"))
    return found


def _info(root: Path) -> dict[str, Any]:
    path = root / "meta" / "info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"expected LeRobot's settings, cannot read {path}: {error}") from error
    features = info.get("features") if isinstance(info, dict) else None
    known = isinstance(features, dict) and all(isinstance(of, dict) for of in features.values())
    if not known or not isinstance(info.get("fps"), int | float) or info["fps"] <= 0:
        raise DataError(
            f"expected features and fps in {path}, it has {sorted(info) if isinstance(info, dict) else info}"
        )
    return info


def _chosen(features: Mapping[str, Any], name: str | None) -> str:
    """The feature that is observed."""
    cameras = [key for key, of in features.items() if of.get("dtype") in _CAMERAS]
    if name is not None and name in features:
        return name
    if name is None and len(cameras) == 1:
        return cameras[0]
    others = [key for key in features if key not in (*cameras, *_NUMBERING)]
    raise DataError(
        f"expected data.observations, the name of one camera of {cameras or 'none'} or of other features {others}, got "
        f"{name!r}"
    )


def _rows(root: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number of each episode and its columns, in order."""
    with extra(
        "world", who="folders of LeRobot need", packages=("pyarrow",), broken="pyarrow does not load ({})".format
    ):
        import pyarrow
        import pyarrow.parquet as parquet
    files = sorted((root / "data").rglob("*.parquet"))
    if not files:
        raise DataError(f"expected .parquet files in {root / 'data'}, found none")
    waiting: dict[str, Any] = {}
    number: int | None = None
    for file in files:
        try:
            table = parquet.read_table(file, columns=list(columns))
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"expected a table of LeRobot, cannot read {file}: {error}") from error
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise DataError(f"expected the columns {missing} in {file}, it has {table.column_names}")
        episode = table.column("episode_index").to_numpy()
        for start, end in _runs(episode):
            part = {name: table.column(name).slice(start, end - start).to_pylist() for name in columns}
            if number is not None and number != int(episode[start]):
                yield number, waiting
                waiting = {}
            number = int(episode[start])
            waiting = {name: [*waiting.get(name, []), *values] for name, values in part.items()}
    if number is not None:
        yield number, waiting


def _runs(values: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Where runs of equal numbers begin and end."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return ((a, b) for a, b in itertools.pairwise(edges) if b > a)


def _numbers(values: Sequence[Any], name: str) -> Tensor:
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iufb":
            raise ValueError(f"not numbers of one shape, such as {values[0]!r}")
    except ValueError as error:
        raise DataError(f"expected numbers of {name}, got {error}") from error
    array = array.astype(np.int64) if array.dtype.kind in "bu" else array
    return torch.from_numpy(np.array(native(array)))


def _picture(cell: Any, size: tuple[int, int] | None, name: str) -> Tensor:
    """A picture (3, H, W) uint8 of a cell with an encoded one."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes):
        raise DataError(f"expected pictures of {name} as bytes in the table, got {type(content).__name__}")
    try:
        with Image.open(io.BytesIO(content)) as opened:
            shown = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"expected a picture of {name}, cannot read it: {error}") from error
    if size is not None:
        shown = shown.resize((size[1], size[0]), Image.Resampling.BOX)
    return torch.from_numpy(np.array(shown)).movedim(-1, 0).contiguous()


@dataclass
class _Videos:
    """The videos of a camera; the one that was decoded last is kept, since version 3 has many episodes in each.

    Attributes:
        root: of the data set.
        info: its settings.
        camera: name of the feature.
        size: of a picture.
    """

    root: Path
    info: Mapping[str, Any]
    camera: str
    size: tuple[int, int] | None
    decoded: tuple[Path, NDArray[np.float64], list[Tensor]] | None = None
    places: dict[int, dict[str, Any]] = field(default_factory=dict)

    def of_episode(self, number: int, times: Sequence[float]) -> Tensor:
        """The frames (T, 3, H, W) uint8 at the times of an episode, in seconds from its start."""
        path, begins = self._file(number)
        if self.decoded is None or self.decoded[0] != path:
            self.decoded = None  # before another one is decoded
            self.decoded = (path, *_decode(path, self.size))
        _, there, frames = self.decoded
        asked = np.asarray(times, dtype=np.float64) + begins
        nearest = np.abs(there[None] - asked[:, None]).argmin(1)
        off = float(np.abs(there[nearest] - asked).max())
        if off > 0.6 / float(self.info["fps"]):
            raise DataError(
                f"expected a frame at each of the {len(asked)} times of episode {number} in {path}, the nearest is "
                f"{off:.3f} s away"
            )
        return torch.stack([frames[i] for i in nearest])

    def _file(self, number: int) -> tuple[Path, float]:
        """The file that holds an episode, and the second at which it begins there."""
        known: dict[str, Any] = {"video_key": self.camera, "episode_index": number}
        known["episode_chunk"] = number // int(self.info.get("chunks_size") or 1000)
        begins = 0.0
        template = str(self.info.get("video_path"))
        if "{file_index" in template:
            self.places = self.places or _places(self.root, self.camera)
            if number not in self.places:
                raise DataError(f"expected episode {number} in {self.root / 'meta' / 'episodes'}, it is not there")
            place = self.places[number]
            begins = float(place["from_timestamp"])
            known |= {name: int(place[name]) for name in ("chunk_index", "file_index")}
        fields = re.findall(r"{([^{}]*)}", template)
        if not fields or any(
            not re.fullmatch(r"\w+(:0?\d+d)?", part) or part.split(":")[0] not in known for part in fields
        ):
            raise DataError(f"expected a video_path of LeRobot in {self.root / 'meta' / 'info.json'}, got {template!r}")
        name = PurePosixPath(template.format(**known))
        if name.is_absolute() or ".." in name.parts:
            raise DataError(f"expected videos inside {self.root}, got {name}")
        return self.root / name, begins


def _places(root: Path, camera: str) -> dict[int, dict[str, Any]]:
    """Where version 3 keeps each episode's video: chunk_index, file_index, from_timestamp."""
    import pyarrow
    import pyarrow.parquet as parquet

    wanted = ("chunk_index", "file_index", "from_timestamp")
    columns = ["episode_index", *(f"videos/{camera}/{name}" for name in wanted)]
    found: dict[int, dict[str, Any]] = {}
    for file in sorted((root / "meta" / "episodes").rglob("*.parquet")):
        try:
            rows = parquet.read_table(file, columns=columns).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"expected a table of episodes, cannot read {file}: {error}") from error
        for row in rows:
            found[int(row["episode_index"])] = {name: row.get(f"videos/{camera}/{name}") for name in wanted}
    return found


def _decode(path: Path, size: tuple[int, int] | None) -> tuple[NDArray[np.float64], list[Tensor]]:
    """The times of all frames of a video in seconds, and the frames (3, H, W) uint8."""
    with extra("world", who="videos of LeRobot need", packages=("av",), broken="PyAV does not load ({})".format):
        import av
    times, frames = [], []
    try:
        with av.open(str(path)) as opened:
            for frame in opened.decode(video=0):
                shape = {} if size is None else {"width": size[1], "height": size[0]}
                shown = frame.reformat(**shape, format="rgb24", interpolation="AREA").to_ndarray()
                times.append(float(frame.time or 0.0))
                frames.append(torch.from_numpy(shown).movedim(-1, 0).contiguous())
    except (OSError, ValueError, av.FFmpegError) as error:
        raise DataError(f"expected a video, cannot read {path}: {error}") from error
    if not frames:
        raise DataError(f"expected frames in {path}, got none")
    return np.asarray(times), frames
