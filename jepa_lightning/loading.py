"""Load the frozen encoder of a run."""

from __future__ import annotations

import copy
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from jepa_lightning._version import __version__
from jepa_lightning.config.rebuild import Config, build_data, build_model
from jepa_lightning.encoders import Encoder
from jepa_lightning.encoders.last_layers import encode_last
from jepa_lightning.encoders.pooling import Pooling, pooled_features
from jepa_lightning.modality import Batch, Modality
from jepa_lightning.module import JEPA
from jepa_lightning.pretexts.trajectories import frames
from jepa_lightning.randomness import isolate_rng
from jepa_lightning.run.checkpoints import Which, find_checkpoint, mismatch, read_checkpoint, read_config
from jepa_lightning.tokens import Tokens
from jepa_lightning.weights.start import initialise

WhichEncoder = Literal["target", "context"]


def load(
    path: str | Path,
    *,
    encoder: WhichEncoder | None = None,
    which: Which = "last",
    module: JEPA | None = None,
    map_location: str | torch.device = "cpu",
    trust: Collection[str] = (),
) -> Frozen:
    """Load the frozen encoder of a run.

        encoder = jepa_lightning.load("runs/image")
        vectors = encoder.embed({"image": images})

    Nothing in a checkpoint is executed: only tensors and plain values are read, and its configuration may only name
    classes of jepa_lightning and installed plug-ins, and modules of torch, timm and torch_geometric
    (docs/security.md). The random state is unchanged.

    Args:
        path: a checkpoint, or the folder of a run.
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
        with isolate_rng():
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


class Frozen(nn.Module):
    """A frozen encoder: in eval mode, in float32, without gradients.

    Args:
        module: JEPA to copy tokenizer and encoder from.
        encoder: "target", "context", or None for the run's evaluated encoder.
        config: the run's configuration, as in its config.yaml; None for a JEPA built in Python.
        trust: packages whose classes `config` may name.

    Attributes:
        modality: the JEPA's modality, with this object's tokenizer and encoder.
        config: as given. `config["model"]` comes from the checkpoint; `config["data"]` exists if the run's
            config.yaml is beside it.
    """

    def __init__(
        self,
        module: JEPA,
        *,
        encoder: WhichEncoder | None = None,
        config: Config | None = None,
        trust: Collection[str] = (),
    ) -> None:
        super().__init__()
        if encoder not in (None, "target", "context"):
            raise ValueError(f"expected the encoder target or context, got {encoder!r}")
        self.config = config
        self.which = encoder
        self.trust = tuple(trust)
        self.tokenizer = copy.deepcopy(module.tokenizer)
        chosen = {None: module.evaluated_encoder, "target": module.target.encoder, "context": module.encoder}[encoder]
        self.encoder: Encoder = copy.deepcopy(chosen)
        self.modality: Modality = copy.copy(module.modality)
        self.modality.tokenizer, self.modality.encoder = self.tokenizer, self.encoder  # no second encoder in memory
        self.float().requires_grad_(False).train(False)

    @property
    def dim(self) -> int:
        """Return D, the width of a token's representation."""
        return self.encoder.dim

    @property
    def device(self) -> torch.device:
        """Return the device of the encoder."""
        return next(self.encoder.parameters()).device

    @torch.no_grad()
    def tokens(self, batch: Batch, *, layers: int = 1) -> tuple[Tensor, Tensor | None]:
        """Encode all tokens: (B, N, D) float32, and a mask of the real ones, (B, N) bool, or None if all are real.

        The batch may be on any device; of trajectories (B, T, ...) each frame is a sample. With `layers` above 1 the
        result is (B, N, layers D): the outputs of the last layers, concatenated. The last has the encoder's own norm,
        those before it a LayerNorm without affine; see `jepa_lightning.encoders.last_layers.encode_last`.

        Raises:
            ValueError: more layers than the encoder has, or an encoder that returns its last layer only.
        """
        tokens = self._tokens(batch)
        return encode_last(self.encoder, tokens, layers).float(), tokens.valid

    def embed(self, batch: Batch, *, pooling: Pooling = "mean", layers: int = 1) -> Tensor:
        """Encode and pool a batch: (B, D) float32, or (B, 2 D) with the pooling "mean+max".

        With several `layers` the vectors are concatenated, (B, layers D), as in I-JEPA's linear evaluation (Assran et
        al. 2023), which uses four; see `tokens` for the norms.
        """
        return pooled_features(self.encoder, self._tokens(batch), pooling=pooling, layers=layers)

    forward = embed

    def _tokens(self, batch: Batch) -> Tokens:
        seen = {key: value for key, value in batch.items() if key != "views"}  # not needed on the device
        return self.tokenizer(move_data_to_device(frames(seen), self.device))

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    def untrained(self, *, seed: int | None = None) -> Frozen:
        """Return the same encoder before training, with the current tokenizer (its statistics come from the data).

        Args:
            seed: seed of the weights. None: the run's. A run of `jepa-fit` draws its weights right after seeding, so
                these are exactly its initial weights, unless it ran with `seed_everything: false`. What a run began
                with (`init`, `weights`, `pretrained`) is loaded again.

        Raises:
            ValueError: there is no configuration to build it from.
        """
        if self.config is None:
            raise ValueError(
                "expected a checkpoint of jepa-fit, got a model built in Python without a configuration: build a "
                "new one in the same way, and wrap it as jepa_lightning.Frozen(module)"
            )
        with seeded(self.config["seed_everything"] if seed is None else seed):
            module = build_model(self.config["model"], pretrained=True, trust=self.trust)
        if self.config.get("init"):
            initialise(module, self.config["init"], encoder=self.config.get("init_encoder"), predictor=False)
        module.tokenizer.load_state_dict(self.tokenizer.state_dict())
        return Frozen(module, encoder=self.which, config=self.config, trust=self.trust).to(self.device)

    def data(self, **overrides: Any) -> LightningDataModule:
        """Build the run's data module, with other settings if given: `encoder.data(root="photos", samples=64)`.

        A configuration may only name datasets of this package and its plug-ins, unless `trust` lists others: some of
        torchvision's and PyG's unpack archives and read pickles. It still determines which files are read, so check
        `config["data"]` of an untrusted run.

        Args:
            **overrides: settings of the data module, as in the run's config.yaml.

        Raises:
            ValueError: the run's config.yaml is not beside its checkpoint, or the settings are wrong.
        """
        data = (self.config or {}).get("data")
        if not isinstance(data, dict) or "class_path" not in data:
            raise ValueError(
                "expected the run's config.yaml beside its checkpoints, found none with a data section: load the run's "
                "folder, or build the data module in Python"
            )
        return build_data(data, overrides, self.modality, trust=self.trust)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed as `seed_everything` does, without its environment variables, and restore the random state at the end."""
    with isolate_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield


def _versions(written_by: Any) -> str:
    if written_by == __version__:
        return ""
    return f" (written by jepa-lightning {written_by or 'of an unknown version'}, this is {__version__})"
