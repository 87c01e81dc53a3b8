"""Folders of safetensors and config.json, as the Hugging Face Hub holds models: written, fetched and read."""

from __future__ import annotations

import json
import tempfile
from abc import abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, device, nn

from jepa_lightning._version import __version__
from jepa_lightning.config.bounded_yaml import load_yaml
from jepa_lightning.run.writing import plain, replacing
from jepa_lightning.weights.formats.sources import is_hub_id

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
LIBRARY = "jepa-lightning"
_SPLITS = ("dataset", "val_dataset", "test_dataset", "csv", "val_csv", "test_csv")
_OF_FILES = ("root", *_SPLITS, "unlabelled", "log_mel_cache", "cache_folder")
"""Settings that say where the data of a run lay."""


class HubModel(nn.Module):
    """A module that lies in a folder of safetensors, or in a repository of the Hugging Face Hub.

    A subclass says what it is built from and builds it.
    """

    @abstractmethod
    def stored_config(self) -> dict[str, Any]:
        """Return what the module is built from, as plain values."""

    def stored_weights(self) -> dict[str, Tensor]:
        """Return what model.safetensors holds, by name."""
        return dict(self.state_dict())

    @classmethod
    @abstractmethod
    def from_folder(cls, weights: dict[str, Tensor], config: dict[str, Any], *, trust: Collection[str] = ()) -> Self:
        """Build the module of what `read_folder` read."""

    @abstractmethod
    def about(self) -> str:
        """Say what it is, in a sentence for its model card."""

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the module to a folder: model.safetensors, config.json and a model card, if there is none.

        Where a run's data lay is not written; how its inputs are read is.

        Raises:
            ValueError: there is no configuration to build it from.
            OSError: it cannot be written.
        """
        card = (
            f"---\nlibrary_name: {LIBRARY}\ntags: [jepa]\n---\n\n{self.about()}\n\n```python\nimport jepa_lightning\n\n"
            f"model = jepa_lightning.{type(self).__name__}.from_pretrained(FOLDER_OR_REPOSITORY)\n```\n"
        )
        return write_folder(folder, self.stored_weights(), self.stored_config(), card=card)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        map_location: str | device = "cpu",
        trust: Collection[str] = (),
    ) -> Self:
        """Load the module from a folder that `save_pretrained` wrote, or from a repository of the Hugging Face Hub.

        Nothing in it is executed: weights are safetensors, and the configuration may only name what that of a run may
        (docs/security.md). The random state is unchanged.

        Args:
            name: the folder, or the repository's id "user/model".
            revision: branch, tag or commit of a repository.
            token: of the Hub; None: the one that is logged in.
            map_location: device of the result.
            trust: further packages whose classes the configuration may name.

        Raises:
            ValueError: there is no such folder, its files are damaged or of another program, or a class is not trusted.
        """
        weights, config = read_folder(fetch(name, revision=revision, token=token))
        return cls.from_folder(weights, config, trust=trust).to(map_location)

    def push_to_hub(self, repository: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Upload what `save_pretrained` writes to a repository of the Hugging Face Hub, and return its address.

        Args:
            repository: "user/model"; it is made if needed.
            private: of a new repository; None: the account's default.
            token: of the Hub; None: the one that is logged in.
        """
        with tempfile.TemporaryDirectory() as folder:
            return push(self.save_pretrained(folder), repository, private=private, token=token)


def write_folder(folder: str | Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], *, card: str) -> Path:
    """Write weights, configuration and a model card; a card that is there stays.

    Args:
        folder: of the files; made if needed.
        weights: by name.
        config: plain values.
        card: the text of README.md.

    Raises:
        OSError: it cannot be written; the error names the file.
    """
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as beside:
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}, beside)
    about = {"library_name": LIBRARY, "jepa_lightning_version": __version__}
    with replacing(folder / CONFIG) as beside:
        beside.write_text(json.dumps(plain({**about, **config}), indent=2) + "\n")
    if not (folder / CARD).exists():
        with replacing(folder / CARD) as beside:
            beside.write_text(card)
    return folder


def is_folder(path: str | Path) -> bool:
    """Tell whether a path is such a folder."""
    folder = Path(path).expanduser()
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def read_folder(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights and the configuration of such a folder; nothing that they hold is run.

    Raises:
        ValueError: they are not there, are damaged, or were not written by this library.
    """
    folder = Path(path).expanduser()
    if not is_folder(folder):
        raise ValueError(f"expected a folder with {CONFIG} and {WEIGHTS}, got {path}")
    try:
        config = load_yaml((folder / CONFIG).read_text())
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"cannot read {folder}: {str(error).splitlines()[0]}") from error
    if (
        not isinstance(config, dict)
        or config.get("library_name") != LIBRARY
        or not isinstance(config.get("model"), dict)
    ):
        raise ValueError(f"expected a model of {LIBRARY} in {folder / CONFIG}, got another's configuration")
    return weights, config


def fetch(name: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Return the folder of a model: a local one as it is, a repository of the Hub after its download.

    Args:
        name: a folder, or the id of a repository: "user/model".
        revision: branch, tag or commit of a repository.
        token: of the Hub, for private repositories; None: the one that is logged in.

    Raises:
        ValueError: there is neither.
    """
    if is_folder(name):
        return Path(name).expanduser()
    if Path(name).expanduser().exists() or str(name).count("/") != 1:
        raise ValueError(f"expected a folder with {CONFIG} and {WEIGHTS}, or a repository user/model, got {name}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [CONFIG, WEIGHTS]
    try:
        return Path(snapshot_download(str(name), revision=revision, token=token, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(f"cannot fetch {name} from the Hub: {str(error).strip().splitlines()[0]}") from error


def push(folder: Path, repository: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Upload a folder to a repository of the Hub, which is made if needed, and return its address.

    Args:
        folder: of the files.
        repository: "user/model".
        private: of a new repository; None: the account's default.
        token: of the Hub; None: the one that is logged in.
    """
    from huggingface_hub import HfApi

    hub = HfApi(token=token)
    made = hub.create_repo(repository, private=private, exist_ok=True)
    hub.upload_folder(folder_path=folder, repo_id=made.repo_id, commit_message=f"Model of {LIBRARY} {__version__}")
    return str(made)


def public(data: Any) -> dict[str, Any] | None:
    """Return the data's part of a configuration without where the data lay: what reading an input needs.

    Args:
        data: `class_path` and `init_args`; None, or anything else, where it is not known.
    """
    if not isinstance(data, dict) or "class_path" not in data:
        return None
    settings = dict(data.get("init_args") or {})
    files = any(settings.get(name) is not None for name in ("root", "csv"))
    known = {name: value for name, value in settings.items() if name not in _OF_FILES}
    parts = known.get("modalities")
    if not isinstance(parts, dict):
        return {"class_path": data["class_path"], "init_args": {**known, **({"root": "data"} if files else {})}}
    own = {name: public(part) or {"class_path": part, "init_args": {}} for name, part in parts.items()}  # of pairs
    if any("root" in part["init_args"] for part in own.values()):  # which all have a source of their own
        own = {name: {**part, "init_args": {**part["init_args"], "root": "data"}} for name, part in own.items()}
    known["modalities"] = own
    return {"class_path": data["class_path"], "init_args": {**known, **({"csv": "data.csv"} if files else {})}}


def public_source(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that says what a run began with: a hub's id as it is, of a path its name."""
    source = config.get("init")
    if not source:
        return {name: config[name] for name in ("began_with",) if config.get(name)}
    if is_hub_id(source):
        return {name: config[name] for name in ("init", "init_encoder") if config.get(name)}
    return {"began_with": Path(str(source)).name}


def to_build_again(config: dict[str, Any] | None, *, pretrained: bool) -> dict[str, Any]:
    """Check that a configuration tells how a model was built, and return it.

    Args:
        config: of a run or of a folder.
        pretrained: whether it also has to tell where the weights lie that the run began with, if any.

    Raises:
        ValueError: there is none, or `public_source` left the name alone.
    """
    if config is None:
        raise ValueError(
            "expected a checkpoint of jepa-fit, got a model built in Python without a configuration: build a new one "
            "in the same way, and wrap it as jepa_lightning.Frozen(module)"
        )
    if pretrained and config.get("began_with"):
        raise ValueError(
            f"expected weights that the run began with, got their name alone, {config['began_with']!r}: load the run "
            "itself for the encoder before training; pretrained=False gives random weights"
        )
    return config
