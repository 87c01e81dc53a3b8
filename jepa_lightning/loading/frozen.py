"""A trained encoder as it is used: frozen, from files to vectors, or with gradients where they are asked for."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any, Literal, Self

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from jepa_lightning.config.rebuild import Config, build_data, build_model
from jepa_lightning.config.stored import building_from
from jepa_lightning.data import JEPADataModule
from jepa_lightning.data.inputs import batch_of, is_batch
from jepa_lightning.encoders import Encoder
from jepa_lightning.encoders.last_layers import encode_last, encode_layers
from jepa_lightning.encoders.pooling import Pooling, pool_sample, train_unfrozen
from jepa_lightning.loading import hub
from jepa_lightning.loading.untrained import untrained_jepa
from jepa_lightning.modality import Batch, Modality
from jepa_lightning.module import JEPA
from jepa_lightning.precision import autocast_in_half
from jepa_lightning.pretexts.trajectories import frames
from jepa_lightning.randomness import isolate_rng
from jepa_lightning.run.checkpoints import mismatch
from jepa_lightning.tokens import Tokens

WhichEncoder = Literal["target", "context"]
_AT_ONCE = 64  # inputs that are encoded together
_STORED = ("model", "seed_everything", "estimated")  # of the configuration, beside the data


class Frozen(hub.HubModel, nn.Module):
    """A trained encoder: in float32, in eval mode and without gradients, until `requires_grad_(True)` unfreezes it.

        encoder = jepa_lightning.load("runs/image")
        vector = encoder("photo.jpg")  # (D,); of a list of inputs (B, D), and of a batch of a loader's, too

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
        self.modality: Modality = module.modality.using(self.tokenizer, self.encoder)  # one encoder in memory
        self._reading: JEPADataModule | None = None
        self.float().requires_grad_(False).train(False)

    @property
    def dim(self) -> int:
        """Return D, the width of a token."""
        return self.encoder.dim

    @property
    def device(self) -> torch.device:
        """Return the encoder's device."""
        return next(self.encoder.parameters()).device

    @property
    def frozen(self) -> bool:
        """Return whether no parameter requires a gradient."""
        return not any(parameter.requires_grad for parameter in self.parameters())

    # From inputs to features.

    def forward(self, inputs: Any, *, pooling: Pooling = "mean", layers: int = 1) -> Tensor:
        """Encode one input, a list of inputs, or a batch.

        Args:
            inputs: one input: (D,). A list of them: (B, D); forms may be mixed. A batch dict: (B, D), see `embed`. What
                an input may be, the modality's data module says: a file's path, an image of Pillow, an array, a
                tensor, a graph; see `preprocess`. Of several modalities it is a dict of them, in a list where none
                of them is a text or a path.
            pooling: how an input's tokens are pooled.
            layers: number of last layers to concatenate.
        """
        if is_batch(inputs):
            return self.embed(inputs, pooling=pooling, layers=layers)
        if not isinstance(inputs, list):
            return self.forward([inputs], pooling=pooling, layers=layers)[0]
        found = []
        for start in range(0, max(1, len(inputs)), _AT_ONCE):
            some = inputs[start : start + _AT_ONCE]
            vectors = self.embed(self.preprocess(some), pooling=pooling, layers=layers)
            found.append(vectors.unflatten(0, (len(some), -1)).mean(1))  # over the clips of a video
        return torch.cat(found)

    def preprocess(self, inputs: Any) -> Batch:
        """Make a batch of one input or a list of inputs, as the run's data are read for evaluation.

        Crop, resampling and normalisation are the run's. Images: a file, an image of Pillow, an array (H, W, C) or a
        tensor (C, H, W), of 8 bits or of fractions from 0 to 1. Clips: a file, an array (T, H, W, C) or a tensor (C, T,
        H, W). Audio: a file, a waveform (L,) or (channels, L) at the model's rate, or a tuple (waveform, sample_rate).
        Clouds: a file, an array or tensor (n, 3 + F). Graphs: `torch_geometric.data.Data`. A sample dict of a dataset
        in a list does as well. The data of the run are not read.

        Returns:
            A batch dict on the CPU, for `embed`, `tokens` and `feature_maps`.

        Raises:
            ValueError: an input cannot be read, or how the run's data are read is not known.
        """
        if self._reading is None:
            self._reading = self._data_to_read_by()
        with isolate_rng():
            return batch_of(self._reading, inputs if isinstance(inputs, list) else [inputs])

    def tokens(self, batch: Batch, *, layers: int = 1) -> tuple[Tensor, Tensor | None]:
        """Encode all tokens: (B, N, D) float32, and a mask of the real ones, (B, N) bool, or None if all are real.

        The batch may be on any device; of trajectories (B, T, ...) each frame is a sample. With `layers` above 1 the
        result is (B, N, layers D): the outputs of the last layers, concatenated. The last has the encoder's own norm,
        those before it a LayerNorm without affine; see `jepa_lightning.encoders.last_layers.encode_last`.

        Raises:
            ValueError: more layers than the encoder has or returns.
        """
        with self._gradients():
            tokens = self._tokens(batch)
            return encode_last(self.encoder, tokens, layers).float(), tokens.valid

    def embed(self, batch: Batch, *, pooling: Pooling = "mean", layers: int = 1) -> Tensor:
        """Encode and pool a batch: (B, D) float32, or (B, 2 D) with the pooling "mean+max".

        With "quarters" (B, 4 D) for images: the means of the four quarters, which say where things are. With "segments"
        (B, 4 D) for audio and texts: the means of four segments of time, which say when.

        With several `layers`, (B, layers D), as in I-JEPA's linear evaluation (Assran et al. 2023), which uses four.
        """
        return self.encode(batch, pooling=pooling, layers=layers)[2]

    def encode(
        self, batch: Batch, *, pooling: Pooling = "mean", layers: int = 1
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Encode a batch: its tokens and which are real, as `tokens`, and the features of `embed`."""
        with self._gradients(), autocast_in_half(self.device):
            tokens = self._tokens(batch)
            values = encode_last(self.encoder, tokens, layers).float()
            return values, tokens.valid, pool_sample(values, tokens, how=pooling)

    def feature_maps(self, inputs: Any, *, layers: int | Sequence[int] = -1) -> Any:
        """Encode tokens on a grid as maps, for detectors and segmenters: (B, D, rows, columns) float32.

        With the axis of time before them for clips, (B, D, T, rows, columns); bands and time for spectrograms. The last
        layer's map has the encoder's own norm, those before it a LayerNorm without affine; padding is 0.

        Args:
            inputs: a batch dict, or what `preprocess` takes.
            layers: index of a layer, negative ones from the end; or several of them.

        Returns:
            One map; for a sequence of layers, a list.

        Raises:
            ValueError: the tokens lie on no grid, or there is no such layer.
        """
        batch = inputs if is_batch(inputs) else self.preprocess(inputs)
        wanted = [layers] if isinstance(layers, int) else list(layers)
        with self._gradients(), autocast_in_half(self.device):
            tokens = self._tokens(batch)
            if tokens.grid is None:
                raise ValueError(
                    f"expected tokens on a grid, got those of the modality {self.modality.name}: use `tokens`"
                )
            maps = []
            for values in encode_layers(self.encoder, tokens, wanted):
                if tokens.valid is not None:
                    values = values.masked_fill(~tokens.valid.unsqueeze(-1), 0)
                maps.append(values.float().mT.unflatten(2, tokens.grid))
        return maps[0] if isinstance(layers, int) else maps

    def _tokens(self, batch: Batch) -> Tokens:
        seen = {key: value for key, value in batch.items() if key != "views"}  # not needed on the device
        return self.tokenizer(move_data_to_device(frames(seen), self.device))

    def _gradients(self) -> Any:
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen)

    def train(self, mode: bool = True) -> Self:
        """Put the parts of the encoder that have something to train in training mode; the rest stays in eval mode."""
        super().train(False)
        if mode and not self.frozen:
            train_unfrozen(self.encoder)
        return self

    # What it was made of.

    def untrained(self, *, seed: int | None = None, pretrained: bool = True) -> Frozen:
        """Return the same encoder before training, with the current tokenizer (its statistics come from the data).

        Args:
            seed: seed of the weights. None: the run's. A run of `jepa-fit` draws its weights right after seeding, so
                these are exactly its initial weights, unless it ran with `seed_everything: false`.
            pretrained: load again what the run began with (`init`, `weights`, `pretrained`); False: random weights.

        Raises:
            ValueError: there is no configuration to build it from, or a saved folder does not hold what it began with.
        """
        how: dict[str, Any] = {"seed": seed, "pretrained": pretrained, "predictor": False, "trust": self.trust}
        module = untrained_jepa(self.config, self.tokenizer, encoder=self.encoder, **how)
        return Frozen(module, encoder=self.which, config=self.config, trust=self.trust).to(self.device)

    def data(self, **overrides: Any) -> LightningDataModule:
        """Build the run's data module, with other settings if given: `encoder.data(root="photos", samples=64)`.

        A configuration may only name datasets of this package and its plug-ins, unless `trust` lists others: some of
        torchvision's and PyG's unpack archives and read pickles. It still determines which files are read, so check
        `config["data"]` of an untrusted run.

        Raises:
            ValueError: the run's config.yaml is not beside its checkpoint, or the settings are wrong.
        """
        return build_data(self._data_config(), overrides, self.modality, trust=self.trust)

    def _data_config(self) -> Config:
        data = (self.config or {}).get("data")
        if not isinstance(data, dict) or "class_path" not in data:
            raise ValueError(
                "expected the run's config.yaml beside its checkpoints, found none with a data section: load the run's "
                "folder, or build the data module in Python; an encoder also takes batch dicts, as loaders give them"
            )
        return data

    def _data_to_read_by(self) -> JEPADataModule:
        """Build the data module without datasets, with the settings that were estimated from them."""
        config = self._data_config()
        settings = {k: value for k, value in (config.get("init_args") or {}).items() if not k.endswith("dataset")}
        settings |= (self.config or {}).get("estimated") or {}
        data = build_data({**config, "init_args": settings}, {}, self.modality, trust=self.trust)
        if not isinstance(data, JEPADataModule):
            raise ValueError(
                f"expected a JEPADataModule to read inputs by, got {type(data).__name__}: give a batch dict"
            )
        return data

    # Folders of safetensors; see `HubModel`.

    def stored_config(self) -> Config:
        """Return what the encoder is built from, and how its inputs are read; not where the run's data lay.

        Raises:
            ValueError: there is no configuration.
        """
        if self.config is None:
            raise ValueError(
                "expected an encoder of a run of jepa-fit, got one built in Python, without a configuration"
            )
        stored = {name: self.config[name] for name in _STORED if self.config.get(name) is not None}
        began = hub.public_source(self.config)
        return {"encoder": self.which, **stored, **began, "data": hub.public(self.config.get("data"))}

    @classmethod
    def from_folder(cls, weights: dict[str, Tensor], config: Config, *, trust: Collection[str] = ()) -> Self:
        """Build the encoder of what `read_folder` read, which may hold a head beside it.

        Raises:
            ValueError: the weights do not fit, or a class is not trusted.
        """
        with isolate_rng(), building_from(weights):
            module = build_model(config["model"], pretrained=False, trust=trust)
        frozen = cls(module, encoder=config.get("encoder"), config=config, trust=trust)
        own = {name: value for name, value in weights.items() if name.startswith(("tokenizer.", "encoder."))}
        found = mismatch(frozen.state_dict(), own)
        if found:
            raise ValueError(f"the weights do not fit the model: {found}")
        frozen.load_state_dict(own)
        return frozen

    def about(self) -> str:
        """Say what it is, in a sentence for its model card."""
        return f"An encoder of the modality {self.modality.name}: {self.encoder.depth} layers, {self.dim} wide."
