"""Tables of features on disk: written in parts, joined into one file, without ever holding the whole in memory.

Columns of a table: `features` (n, D) float32, `id` and `split` (text), and `labels.NAME` (n, ...) for each label.
"""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jepa_lightning.run.writing import replacing

Columns = dict[str, NDArray[Any]]

FORMATS = (".npz", ".safetensors", ".parquet")
TEXT = ("id", "split")  # columns of text: str in npz and parquet; in safetensors, which has none, UTF-8, zero-padded

_DTYPES = {"float32": "F32", "int64": "I64", "uint8": "U8"}


def check_format(path: Path) -> None:
    """See that a table can be written to `path`, before anything is computed.

    Raises:
        ValueError: its ending names no format, or one whose library is missing; or it exists.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"expected a file that ends in {', '.join(FORMATS)}, got {path.name!r}: rename it")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError("parquet needs pyarrow, which is not installed: pip install pyarrow, or write .npz")
    if path.exists():
        raise ValueError(f"expected a new file, but {path} exists: remove it, or name another")


def read_features(path: str | Path) -> Columns:
    """The columns of an .npz or .safetensors file, texts as str."""
    path = Path(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    if path.suffix != ".safetensors":
        raise ValueError(
            f"expected an .npz or .safetensors file, got {path.name!r}: read parquet with pandas or pyarrow"
        )
    return {name: _to_text(value) if name in TEXT else value for name, value in load_file(path).items()}


class Parts:
    """The folder in which a table grows, beside the file that it will become: `OUT.parts`.

    A run that was killed is gone on with where it stopped, if it is the same one.

    Args:
        out: the file.
        plan: what says that it is the same run, JSON-able.

    Raises:
        ValueError: there are parts of another run.
    """

    def __init__(self, out: Path, plan: Mapping[str, Any]) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".parts")
        file = self.folder / "plan.json"
        text = json.dumps(plan, indent=2, sort_keys=True, default=str)
        if file.is_file() and file.read_text() != text:
            before = json.loads(file.read_text())
            changed = [key for key in {**before, **plan} if before.get(key) != json.loads(text).get(key)]
            raise ValueError(
                f"{self.folder} holds the beginning of a run with other {', '.join(changed)}: remove it to start "
                "again, or name another file"
            )
        if not file.is_file():
            shutil.rmtree(self.folder, ignore_errors=True)  # killed before it had begun
            self.folder.mkdir(parents=True)
            with replacing(file) as beside:
                beside.write_text(text)

    @property
    def files(self) -> list[Path]:
        """The finished parts, in order."""
        return sorted(self.folder.glob("[0-9]*.safetensors"))

    @property
    def unreadable(self) -> dict[str, dict[str, str]]:
        """By split, id and reason of the samples that are missing from the parts."""
        found: dict[str, dict[str, str]] = {}
        for file in self.files:
            with safe_open(file, framework="np") as part:
                metadata = part.metadata()
            found.setdefault(metadata["split"], {}).update(json.loads(metadata["unreadable"]))
        return found

    def append(self, columns: Columns, *, split: str, unreadable: Mapping[str, str]) -> None:
        """Write the next part; it is there as a whole or not at all. `columns` is empty where nothing was readable."""
        stored = {name: _to_bytes(value) if name in TEXT else value for name, value in columns.items()}
        stored = {name: np.ascontiguousarray(value) for name, value in stored.items()}
        metadata = {"split": split, "unreadable": json.dumps(dict(unreadable))}
        file = self.folder / f"{len(self.files):06d}.safetensors"
        with replacing(file) as beside:
            save_file(stored, beside, metadata=metadata)

    def join(self) -> dict[str, tuple[int, ...]]:
        """Write the file, remove the folder, and return the columns' shapes.

        Labels that some parts lack are filled (`filled`); those that have another shape in some are left out.
        """
        shapes = self._shapes()
        write = {".npz": self._write_npz, ".safetensors": self._write_safetensors, ".parquet": self._write_parquet}
        with replacing(self.out) as beside:
            write[self.out.suffix](beside, shapes)
        shutil.rmtree(self.folder)
        return {name: shape for name, (shape, _) in shapes.items()}

    def _shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type of the whole of each column; a text's second size is its longest value's."""
        found: dict[str, list[tuple[tuple[int, ...], str]]] = {}
        for file in self.files:
            with safe_open(file, framework="np") as part:
                for name in part.keys():  # noqa: SIM118  no dict
                    piece = part.get_slice(name)
                    found.setdefault(name, []).append((tuple(piece.get_shape()), piece.get_dtype()))
        whole: dict[str, tuple[tuple[int, ...], str]] = {}
        total = sum(shape[0] for shape, _ in found.get("features", ()))
        for name, pieces in found.items():
            kinds = {(shape[1:], dtype) for shape, dtype in pieces}
            if name in TEXT:
                whole[name] = ((total, max(shape[1] for shape, _ in pieces)), "U8")
            elif len(kinds) == 1:
                whole[name] = ((total, *pieces[0][0][1:]), pieces[0][1])
        if "features" not in whole:
            raise ValueError("expected at least one readable sample, found none: check the data and their format")
        return whole

    def _pieces(self, name: str, width: int | None = None) -> Iterator[NDArray[Any]]:
        """A column, part by part; texts as bytes of one width, labels that are missing filled."""
        example: NDArray[Any] | None = None
        for file in self.files:
            with safe_open(file, framework="np") as part:
                if name in part.keys():  # noqa: SIM118  no dict
                    example = part.get_slice(name)[:1]
                    break
        for file in self.files:
            with safe_open(file, framework="np") as part:
                if name in part.keys():  # noqa: SIM118  no dict
                    piece = part.get_tensor(name)
                    yield piece if width is None else np.pad(piece, ((0, 0), (0, width - piece.shape[1])))
                elif "features" in part.keys() and example is not None:  # noqa: SIM118
                    yield filled(part.get_slice("features").get_shape()[0], example)

    def _write_npz(self, path: Path, shapes: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
            for name, (shape, kind) in shapes.items():
                dtype = np.dtype(next(dtype for dtype, known in _DTYPES.items() if known == kind))
                if name in TEXT:
                    longest = max((_to_text(piece).dtype.itemsize // 4 for piece in self._pieces(name)), default=1)
                    dtype, shape = np.dtype(f"<U{max(1, longest)}"), shape[:1]
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array_header_1_0(file, header)
                    for piece in self._pieces(name):
                        file.write((_to_text(piece) if name in TEXT else piece).astype(dtype).tobytes())

    def _write_safetensors(self, path: Path, shapes: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        """By the format's specification: the library writes only what lies in memory as a whole."""
        header: dict[str, Any] = {}
        end = 0
        for name, (shape, kind) in shapes.items():
            size = int(np.prod(shape)) * np.dtype(next(d for d, known in _DTYPES.items() if known == kind)).itemsize
            header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name, (shape, _) in shapes.items():
                for piece in self._pieces(name, width=shape[1] if name in TEXT else None):
                    file.write(np.ascontiguousarray(piece).tobytes())

    def _write_parquet(self, path: Path, shapes: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        import pyarrow
        from pyarrow import parquet

        def column(name: str, values: NDArray[Any]) -> Any:
            if name in TEXT:
                return pyarrow.array(_to_text(values).tolist(), pyarrow.string())
            flat = pyarrow.array(values.reshape(-1))
            width = int(np.prod(values.shape[1:]))
            return flat if values.ndim == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, width)

        writer = None
        for pieces in zip(*(self._pieces(name) for name in shapes), strict=True):
            arrays = [column(name, values) for name, values in zip(shapes, pieces, strict=True)]
            table = pyarrow.Table.from_arrays(arrays, names=list(shapes))
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()


def filled(rows: int, one: NDArray[Any]) -> NDArray[Any]:
    """A label column of samples without that label: -1, or NaN where it is no class, in the type and shape of `one`."""
    none = np.nan if np.issubdtype(one.dtype, np.floating) else -1
    return np.full((rows, *one.shape[1:]), none, dtype=one.dtype)


def _to_bytes(texts: NDArray[Any]) -> NDArray[np.uint8]:
    """Texts (n,) as UTF-8 (n, L), zero-padded."""
    encoded = np.char.encode(np.asarray(texts, dtype=str), "utf-8")
    width = max(1, encoded.dtype.itemsize)
    return encoded.astype(f"S{width}").view(np.uint8).reshape(len(encoded), width)


def _to_text(encoded: NDArray[np.uint8]) -> NDArray[Any]:
    """The reverse."""
    return np.char.decode(np.ascontiguousarray(encoded).view(f"S{encoded.shape[1]}")[:, 0], "utf-8")
