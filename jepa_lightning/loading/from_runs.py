"""Load the frozen encoder of a run."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from jepa_lightning._version import __version__
from jepa_lightning.config.rebuild import Config, build_model
from jepa_lightning.config.stored import building_from
from jepa_lightning.loading import hub
from jepa_lightning.loading.frozen import Frozen, WhichEncoder
from jepa_lightning.module import JEPA
from jepa_lightning.randomness import isolate_rng
from jepa_lightning.run.checkpoints import Which, find_checkpoint, mismatch, read_checkpoint, read_config
from jepa_lightning.weights.formats.sources import is_released
from jepa_lightning.weights.importing import from_source


def load(
    path: str | Path,
    *,
    encoder: WhichEncoder | None = None,
    which: Which = "last",
    module: JEPA | None = None,
    map_location: str | torch.device = "cpu",
    trust: Collection[str] = (),
) -> Frozen:
    """Load the frozen encoder of a run, or of released weights.

        encoder = jepa_lightning.load("runs/image")
        vector = encoder("photo.jpg")  # (D,); or encoder([...]), or encoder.embed(batch)

    Nothing in a checkpoint is executed: only tensors and plain values are read, and its configuration may only name
    classes of jepa_lightning and installed plug-ins, and modules of torch, timm and torch_geometric
    (docs/security.md). The random state is unchanged.

    Args:
        path: a checkpoint, the folder of a run, or one that `Frozen.save_pretrained` wrote; released weights that say
            their sizes: an official file, transformers' folder, "hf-hub:owner/name" (docs/released-weights.md).
        encoder: the "target" encoder (for an EMA, the moving average) or the "context" encoder; None: the run's
            evaluated encoder (`Target.evaluated`): the average for an EMA, otherwise the trained encoder.
        which: checkpoint of a folder, "last" or "best".
        module: a JEPA built like the trained one, for checkpoints of runs in Python; its weights are
            replaced. Checkpoints of `jepa-fit` contain how to build it.
        map_location: device of the result.
        trust: further packages whose classes the configuration may name; their code is imported and run.

    Raises:
        ValueError: the checkpoint does not exist, is damaged, is from another version or program, or names a
            class that is not trusted. The message says what to do.
    """
    if module is None and is_released(path):
        built, settings, _ = from_source(path, encoder=encoder, trust=trust)
        return Frozen(built, config=settings, trust=trust).to(map_location)
    if hub.is_folder(path):
        if encoder is not None or module is not None:
            raise ValueError(f"expected no encoder and no module with {path}, which holds one encoder: leave them out")
        return Frozen.from_pretrained(path, map_location=map_location, trust=trust)
    module, config = _load(path, which, module, trust)
    return Frozen(module, encoder=encoder, config=config, trust=trust).to(map_location)


def load_jepa(
    path: str | Path,
    *,
    which: Which = "last",
    module: JEPA | None = None,
    map_location: str | torch.device = "cpu",
    trust: Collection[str] = (),
) -> JEPA:
    """Load the whole JEPA of a run, with its predictor and both encoders, in eval mode and float32.

    Use `load` for the encoder only. As there, nothing in a checkpoint is executed.
    Settings that only training needs (the optimiser, compilation) have their defaults.

    Args:
        path: a checkpoint, or the folder of a run.
        which: as in `load`.
        module: likewise.
        map_location: likewise.
        trust: likewise.

    Raises:
        ValueError: as `load`.
    """
    return _load(path, which, module, trust)[0].float().train(False).to(map_location)


def load_jepa_and_config(
    path: str | Path, *, which: Which = "last", trust: Collection[str] = ()
) -> tuple[JEPA, Config | None]:
    """The module of a run of `jepa-fit` with its weights, and the run's configuration; see `load`."""
    return _load(path, which, None, trust)


def _load(path: str | Path, which: Which, module: JEPA | None, trust: Collection[str]) -> tuple[JEPA, Config | None]:
    """Return the module with the weights of a checkpoint, and the run's configuration if it was built from it."""
    file = find_checkpoint(path, which)
    content = read_checkpoint(file)
    written_by = content.get("jepa_lightning_version")
    stored = content.get("hyper_parameters")
    config: Config | None = None
    if module is None:
        if not isinstance(stored, dict) or not isinstance(stored.get("modality"), dict):
            raise ValueError(
                f"expected a checkpoint of jepa-fit, got one of a run in Python, which does not contain how its model "
                f"was built: {file}; build it in the same way and pass it as load(path, module=...)"
            )
        config = {**read_config(file), "model": stored, "seed_everything": content.get("run_seed", 0)}
        data_class = str((config.get("data") or {}).get("class_path", "")).rpartition(".")[2]
        config["estimated"] = content.get(data_class) or {}  # where Lightning keeps the data module's state
        with isolate_rng(), building_from(content["state_dict"]):
            try:
                module = build_model(stored, pretrained=False, trust=trust)
            except ValueError as error:
                raise ValueError(f"cannot build the model of {file}{_versions(written_by)}: {error}") from error
    found = mismatch(module.state_dict(), content["state_dict"])
    if found:
        raise ValueError(f"the weights in {file} do not fit the model{_versions(written_by)}: {found}")
    module.load_state_dict(content["state_dict"])
    module.run_seed = content.get("run_seed", module.run_seed)
    return module, config


def _versions(written_by: Any) -> str:
    if written_by == __version__:
        return ""
    return f" (written by jepa-lightning {written_by or 'of an unknown version'}, this is {__version__})"
