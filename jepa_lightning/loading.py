"""From a checkpoint to a frozen encoder."""

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
from jepa_lightning.evaluation.features.last_layers import encode_last
from jepa_lightning.evaluation.features.pooling import Pooling, pooled_features
from jepa_lightning.modality import Batch, Modality
from jepa_lightning.module import JEPA
from jepa_lightning.pretexts.trajectories import frames
from jepa_lightning.randomness import isolate_rng
from jepa_lightning.run.checkpoints import Which, find_checkpoint, mismatch, read_checkpoint, read_config
from jepa_lightning.tokens import Tokens

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
    """The frozen encoder of a run.

        encoder = jepa_lightning.load("runs/image")
        vectors = encoder.embed({"image": images})

    Nothing that a checkpoint holds is run: tensors and plain values are read, and its configuration names classes of
    jepa_lightning and the installed plug-ins, and modules of torch, timm and torch_geometric, alone (docs/security.md).
    The random state stays as it is.

    Args:
        path: a checkpoint, or the folder of a run.
        encoder: the "target" encoder (of an EMA, the moving average) or the "context" encoder; None for the one that
            the run's target says it is judged by: an EMA's average, otherwise the encoder that was trained.
        which: of a folder, the "last" checkpoint or the "best".
        module: a JEPA built as the one that was trained, for checkpoints of runs made in Python; its weights are
            replaced. Checkpoints of `jepa-fit` say themselves how to build it.
        map_location: device of the result.
        trust: further packages whose classes the configuration may name; their code is imported and run.

    Raises:
        ValueError: there is no such checkpoint, it is damaged, of another version or of something else, or names a
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
    """The whole JEPA of a run, with its predictor and both encoders, in eval mode and float32.

    `load` gives the encoder alone, which is what features come from. As there, nothing that a checkpoint holds is run.
    What only training needs (the optimiser, compilation) is left at its defaults.

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
    """The module with the weights of a checkpoint, and the run's configuration where it was built from that."""
    file = find_checkpoint(path, which)
    content = read_checkpoint(file)
    written_by = content.get("jepa_lightning_version")
    stored = content.get("hyper_parameters")
    config: Config | None = None
    if module is None:
        if not isinstance(stored, dict) or not isinstance(stored.get("modality"), dict):
            raise ValueError(
                f"expected a checkpoint of jepa-fit, got one of a run made in Python, which does not say how its model "
                f"was built: {file}; build it in the same way and give it as load(path, module=...)"
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
    """An encoder that is done with training: in eval mode, in float32, without gradients.

    Args:
        module: the JEPA it comes from; its tokenizer and encoder are copied.
        encoder: "target", "context", or None for the one that the run is judged by.
        config: the run's configuration, as in its config.yaml; None for a JEPA built in Python.
        trust: packages whose classes `config` may name.

    Attributes:
        modality: of the JEPA; its tokenizer and encoder are this one's.
        config: as given. `config["model"]` is what the checkpoint holds, `config["data"]` is there where the run's
            config.yaml lies beside it.
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
        """D, the width of a token's representation."""
        return self.encoder.dim

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.encoder.parameters()).device

    @torch.no_grad()
    def tokens(self, batch: Batch, *, layers: int = 1) -> tuple[Tensor, Tensor | None]:
        """Representations of all tokens, (B, N, D) float32, and which are real: (B, N) bool, or None where all are.

        The batch may lie on any device; of trajectories (B, T, ...) each frame is a sample, B T of them.
        With more `layers` than 1 they are (B, N, layers D): the outputs of the last
        layers side by side. The last has the encoder's own norm, those before it a LayerNorm without affine; see
        `jepa_lightning.evaluation.features.last_layers.encode_last`.

        Raises:
            ValueError: more layers than the encoder has, or an encoder that gives its last one alone.
        """
        tokens = self._tokens(batch)
        return encode_last(self.encoder, tokens, layers).float(), tokens.valid

    def embed(self, batch: Batch, *, pooling: Pooling = "mean", layers: int = 1) -> Tensor:
        """One vector a sample: (B, D) float32, or (B, 2 D) with the pooling "mean+max".

        Of several `layers` the vectors lie side by side, (B, layers D), as in I-JEPA's linear evaluation (Assran et al.
        2023), which takes four; see `tokens` for the norms.
        """
        return pooled_features(self.encoder, self._tokens(batch), pooling=pooling, layers=layers)

    forward = embed

    def _tokens(self, batch: Batch) -> Tokens:
        seen = {key: value for key, value in batch.items() if key != "views"}  # these need not move
        return self.tokenizer(move_data_to_device(frames(seen), self.device))

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever the module around does."""
        return super().train(False)

    def untrained(self, *, seed: int | None = None) -> Frozen:
        """The same encoder before training, with the tokenizer as it is now (its statistics come from the data).

        Args:
            seed: of the weights. None: the run's. A run of `jepa-fit` draws its weights right after seeding, so these
                are the very weights it began with, unless it was told `seed_everything: false`.

        Raises:
            ValueError: there is no configuration to build it from.
        """
        if self.config is None:
            raise ValueError(
                "expected a checkpoint of jepa-fit, got a model built in Python, of which nobody knows how: build a "
                "fresh one in the same way, and wrap it as jepa_lightning.Frozen(module)"
            )
        with seeded(self.config["seed_everything"] if seed is None else seed):
            module = build_model(self.config["model"], pretrained=True, trust=self.trust)
        module.tokenizer.load_state_dict(self.tokenizer.state_dict())
        return Frozen(module, encoder=self.which, config=self.config, trust=self.trust).to(self.device)

    def data(self, **overrides: Any) -> LightningDataModule:
        """The run's data module, with other settings where they are given: `encoder.data(root="photos", samples=64)`.

        A configuration names data sets of this package and its plug-ins alone, unless `trust` lists others: some of
        torchvision's and PyG's unpack archives and read pickles. It still says which files are read, so look at
        `config["data"]` where a stranger wrote it.

        Args:
            **overrides: settings of its class, as in the run's config.yaml.

        Raises:
            ValueError: the run's config.yaml is not beside its checkpoint, or the settings are wrong.
        """
        data = (self.config or {}).get("data")
        if not isinstance(data, dict) or "class_path" not in data:
            raise ValueError(
                "expected the run's config.yaml beside its checkpoints, found none with data in it: load the run's "
                "folder, or build the data module in Python"
            )
        return build_data(data, overrides, self.modality, trust=self.trust)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, all is seeded as by `seed_everything`; afterwards the random state is what it was."""
    with isolate_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield


def _versions(written_by: Any) -> str:
    if written_by == __version__:
        return ""
    return f" (written by jepa-lightning {written_by or 'of a version that is not known'}, this is {__version__})"
