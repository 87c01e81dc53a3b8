"""Finding a run's checkpoint and reading it without running anything that it holds."""

from __future__ import annotations

import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from jepa_lightning.config.bounded_yaml import load_yaml
from jepa_lightning.run.sharded import SHARDS, read_sharded, read_sizes

Which = Literal["last", "best"]
_NAMED = 3  # keys in an error


def find_checkpoint(path: str | Path, which: Which = "last") -> Path:
    """The checkpoint: `path` itself, or `which` of a run's folder; a file, or a folder of shards as FSDP2 writes it.

    Raises:
        ValueError: there is none.
    """
    if which not in ("last", "best"):
        raise ValueError(f"expected which to be last or best, got {which!r}")
    path = Path(path).expanduser()
    if path.is_file() or _in_shards(path):
        return path
    if not path.exists():
        raise ValueError(f"expected a checkpoint file or the folder of a run, got {path}, which does not exist")
    if not path.is_dir():
        raise ValueError(f"expected a checkpoint file or the folder of a run, got {path}, which is neither")
    for folder in (path / "checkpoints", path):
        checkpoint = folder / f"{which}.ckpt"
        if checkpoint.is_file() or _in_shards(checkpoint):
            return checkpoint
    found = sorted(f.relative_to(path).as_posix() for f in path.rglob("*.ckpt") if f.is_file() or _in_shards(f))
    instead = f"; there are {', '.join(found[:5])}: name one of them" if found else ": train first, with jepa-fit"
    raise ValueError(f"expected checkpoints/{which}.ckpt in the folder {path}, found none{instead}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a JEPA's checkpoint, on the CPU. Only tensors and plain values are read, never code.

    Raises:
        ValueError: the file is no such checkpoint, is damaged or holds more than that.
    """
    content = read_content(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        if isinstance(content, dict) and content and all(isinstance(value, torch.Tensor) for value in content.values()):
            raise ValueError(
                f"expected a checkpoint of a run, got a plain state dict in {path}: load it into your JEPA with "
                "load_state_dict and wrap that as jepa_lightning.Frozen(module)"
            )
        raise ValueError(f"expected a checkpoint of a run in {path}, got {_kind(content)}: name the run's folder")
    refuse_older(content, path)
    if not any(key.startswith("encoder.") for key in state):
        raise ValueError(f"expected a checkpoint of a JEPA in {path}, got one of another module: it has no encoder")
    return content


def refuse_older(content: Mapping[str, Any], path: str | Path) -> None:
    """Refuse checkpoints of 0.1, whose modules have other parts.

    Raises:
        ValueError: it is one.
    """
    if any(str(key).startswith("teacher.") for key in content.get("state_dict", ())):
        version = content.get("jepa_lightning_version", "0.1")
        raise ValueError(
            f"{path} was written by jepa-lightning {version}, whose checkpoints this version cannot read: train again, "
            "or use jepa-lightning 0.1"
        )


def _in_shards(path: Path) -> bool:
    return (path / SHARDS).is_file()


def read_config(checkpoint: Path) -> dict[str, Any]:
    """The `config.yaml` that lies beside a run's checkpoints; empty where there is none.

    Raises:
        ValueError: the file is broken, a section holds no settings, or its aliases stand for more than any
            configuration holds.
    """
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        file = folder / "config.yaml"
        if file.is_file():
            try:
                config = load_yaml(file.read_text())
            except (OSError, ValueError, yaml.YAMLError) as error:
                raise ValueError(f"cannot read {file}: {str(error).splitlines()[0]}") from None
            if not isinstance(config, dict):
                raise ValueError(f"expected a run's configuration in {file}, got {_kind(config)}")
            for section in ("model", "data", "trainer"):
                if not isinstance(config.get(section) or {}, dict):
                    raise ValueError(f"expected settings under {section} in {file}, got {_kind(config[section])}")
            return config
    return {}


def read_content(path: Path, *, mapped: bool = False) -> Any:
    """Whatever `torch.save` wrote to a file, or FSDP2 to a folder, on the CPU; nothing that it holds is run.

    Args:
        path: of the checkpoint.
        mapped: leave the tensors of a file on the disk, and in shards only read their sizes.

    Raises:
        ValueError: it cannot be read, is damaged, or holds more than tensors and plain values.
    """
    sharded = _in_shards(path)
    try:
        zipped = not sharded and _check_file(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    try:
        if sharded:
            return read_sizes(path) if mapped else read_sharded(path, only=("state_dict",))
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipped)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|global|class|function) `?([\w.]+\.\w+)`?", str(error))
        what = f" ({named[1]})" if named else ""
        raise ValueError(
            f"expected tensors and plain values, got more{what} in {path}: such a file can run code, so it was not "
            "loaded; make it again with this package, which stores nothing else"
        ) from None
    except (RuntimeError, EOFError, KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(f"expected a whole checkpoint, got a damaged one: {path} ({reason})") from None


def mismatch(own: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """What of a state dict does not fit, in words; empty where all does."""

    def listed(names: list[str]) -> str:
        return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")

    shapes = [
        f"{name} is {tuple(stored[name].shape)} and not {tuple(value.shape)}"
        for name, value in own.items()
        if name in stored and isinstance(value, torch.Tensor) and stored[name].shape != value.shape
    ]
    missing, unexpected = [sorted(a.keys() - b.keys()) for a, b in ((own, stored), (stored, own))]
    found = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    return "; ".join(f"{what}: {listed(names)}" for what, names in found if names)


def _check_file(path: Path) -> bool:
    """Say what is wrong with a file that is no checkpoint, before torch does. Whether it is a zip file, as of today."""
    if path.is_dir():
        raise ValueError(f"expected a checkpoint, got a folder that holds none: {path}")
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise ValueError(f"expected a checkpoint, got an empty file: {path}")
    zipped = start.startswith(b"PK")
    if zipped and not zipfile.is_zipfile(path):
        raise ValueError(f"expected a whole checkpoint, got one that was cut off: {path}; copy it again")
    if zipped:
        try:
            with zipfile.ZipFile(path) as archive:
                names, wrong = archive.namelist(), _first_damaged(archive)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:  # its table of contents
            raise ValueError(f"expected a whole checkpoint, got a damaged one: {path} ({error})") from None
        if not any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
            raise ValueError(f"expected a checkpoint, got a zip file of something else: {path}")
        if wrong is not None:
            raise ValueError(
                f"expected a whole checkpoint, got a damaged one: {path} (the checksum of {wrong} does not fit); copy "
                "it again, or take another checkpoint of the run"
            )
    elif not start.startswith(b"\x80"):  # what a pickle begins with
        raise ValueError(f"expected a checkpoint, got a file that torch.save did not write: {path}")
    return zipped


def _first_damaged(archive: zipfile.ZipFile) -> str | None:
    """The name of the first member whose content does not fit its checksum; None where all do.

    `torch.load` takes tensors with flipped bits as they are. This reads the whole file once more, at about 1 GB a
    second on one core (half of what `torch.load` takes). A file that was saved after
    `torch.serialization.set_crc32_options(False)` has no checksums to go by and is taken for a damaged one.
    """
    for name in archive.namelist():
        try:
            with archive.open(name) as member:
                while member.read(1 << 20):
                    pass
        except (zipfile.BadZipFile, zlib.error, EOFError):
            return name
    return None


def _kind(content: Any) -> str:
    keys = ", ".join(map(str, list(content)[:4])) if isinstance(content, dict) else ""
    name = type(content).__name__
    return f"a dict with the keys {keys}" if keys else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
