"""Several kinds of data in one run, one kind a training batch: images beside clips."""

from __future__ import annotations

from typing import Any, Self

import torch
from lightning.pytorch import Trainer
from torch.utils.data import Dataset

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.loaders import LoadedData
from jepa_lightning.data.mixed_loader import KIND, MixedLoader
from jepa_lightning.data.module import JEPADataModule
from jepa_lightning.data.parts import Parts
from jepa_lightning.data.sampler import ResumableLoader
from jepa_lightning.modality import Modality


class MixedData(JEPADataModule):
    """Training batches of several kinds of data, of one kind each, from a data module of each kind.

    So a model that takes them all is trained on clips and images (V-JEPA 2.1, Mur-Labadia et al. 2026,
    arXiv:2603.14482: `Video(images=True)`). An epoch is one pass through the first kind, and batches of the others are
    put among its batches, in an order drawn from the run's seed and the epoch: a resumed run takes the kinds that it
    would have taken, and all processes take the same kind at a step. Other kinds are passed through at their own pace.

    The first kind is the main one: validation, probes and pictures are of it, and `jepa-probe` and the other commands
    read it when they open the run.

    Deviation: in V-JEPA 2.1's code (docs/faithfulness.md) images and clips are on processes of their own, so that each
    step's gradient is a mean over both kinds. Here each step has one kind, on any number of processes; with
    `accumulate_grad_batches` a step has several batches, each of a kind.

    Args:
        modalities: data module of each kind by name, the main one first. Each has its own settings (batch_size,
            num_workers, ...); those of the main one are the run's where there is one for all.
        shares: of training batches, for each kind but the main one: from 0 to below 1 in all. To the nearest whole
            number of batches an epoch.

    Raises:
        DataError: fewer than two kinds, shares that are not of them or out of range, kinds that are not told apart in a
            batch; from `train_dataloader`: a stream, or a share of less than half a batch an epoch.

    Examples:
        >>> from jepa_lightning.data import MixedData
        >>> from modalities.image import ImageData
        >>> from modalities.video import VideoData
        >>> settings = {"image_size": 32, "channels": 1, "num_workers": 0}
        >>> clips = VideoData(frames=4, samples=96, batch_size=8, **settings)
        >>> images = ImageData(samples=64, batch_size=16, **settings)
        >>> data = MixedData(modalities={"video": clips, "image": images}, shares={"image": 0.25})
        >>> batches = list(data.train_dataloader())
        >>> sum("image" in batch for batch in batches), len(batches)
        (4, 16)
    """

    def __init__(self, *, modalities: dict[str, JEPADataModule], shares: dict[str, float]) -> None:
        if len(modalities) < 2:
            raise DataError(f"expected data of at least two kinds in modalities, got {list(modalities)}")
        keys = [part.name for part in modalities.values()]
        if len(set(keys)) < len(keys):
            raise DataError(f"expected kinds of data with a key each in a batch, got {keys}")
        main, *others = modalities
        if set(shares) != set(others):
            raise DataError(f"expected shares of {others}, and none of the main kind {main}, got {list(shares)}")
        if not all(share > 0 for share in shares.values()) or not sum(shares.values()) < 1:
            raise DataError(f"expected shares above 0 that leave some batches to {main} (below 1 in all), got {shares}")
        views = {name: part.views for name, part in modalities.items()}
        if len(set(views.values())) > 1:
            raise DataError(f"expected as many views of each kind of data, got {views}")
        self.modalities = dict(modalities)
        self.shares = dict(shares)
        self.main = modalities[main]
        self.name = self.main.name
        super().__init__(
            batch_size=self.main.batch_size, num_workers=self.main.num_workers, seed=self.main.seed, views=views[main]
        )

    @property
    def for_evaluation(self) -> JEPADataModule:
        """Return the main kind's data module."""
        return self.main.for_evaluation

    @property
    def trainer(self) -> Trainer | None:
        """The run's trainer, which the data modules of all kinds have, too."""
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        self._trainer = trainer
        for part in self.modalities.values():
            part.trainer = trainer

    def bind(self, modality: Modality) -> Self:
        """Take sizes that are not set from a model's modality, in all kinds; see `ModelSizedData.bind`."""
        super().bind(modality)
        for part in self.modalities.values():
            part.bind(modality)
        return self

    # What is asked of the data as a whole is asked of the main kind.

    def load(self) -> dict[str, Dataset[Any]]:
        """Load the main kind's data sets by split."""
        return self.main.load()

    def transforms(self) -> tuple[Any, Any]:
        """Return the main kind's transforms."""
        return self.main.transforms()

    def setup(self, stage: str | None = None) -> None:
        """Build the splits of the main kind; those of the others are built when training batches are asked for."""
        self.main.setup(stage)

    @property
    def parts(self) -> Parts:
        """Return all parts of the main kind's data."""
        return self.main.parts

    @parts.setter
    def parts(self, parts: Parts) -> None:
        self.main.parts = parts

    def statistics_dataloader(self) -> Any:
        """Training batches of the main kind; see `LoadedData.statistics_dataloader`."""
        return self.main.statistics_dataloader()

    def val_dataloader(self) -> Any:
        """Validation batches of the main kind."""
        return self.main.val_dataloader()

    def test_dataloader(self) -> Any:
        """Test batches of the main kind."""
        return self.main.test_dataloader()

    def probe_dataloader(self) -> Any:
        """The probe's labelled subset of the main kind."""
        return self.main.probe_dataloader()

    def estimated(self) -> dict[str, Any]:
        """Return what the main kind's settings were estimated to be."""
        return self.main.estimated()

    @property
    def unreadable(self) -> dict[str, str]:
        """Return id and reason of every unreadable sample of all kinds so far."""
        return {key: why for part in self.modalities.values() for key, why in part.unreadable.items()}

    # What is trained on.

    def train_dataloader(self) -> MixedLoader:  # type: ignore[override]
        """Training batches of all kinds.

        Raises:
            DataError: a stream, or a share of less than half a batch an epoch; or as each kind's own.
        """
        loaders: dict[str, ResumableLoader] = {}
        for name, part in self.modalities.items():
            loader = part.train_dataloader()
            if not isinstance(loader, ResumableLoader):
                raise DataError(
                    f"expected data with a length and indices as {name} of MixedData, got a stream: download it, or "
                    "read it from a table"
                )
            loaders[name] = loader
        main, *others = self.modalities
        whole = len(loaders[main]) / (1 - sum(self.shares.values()))
        counts = [len(loaders[main]), *(round(self.shares[name] * whole) for name in others)]
        for name, count in zip(others, counts[1:], strict=True):
            if not count:
                raise DataError(
                    f"expected a share of {name} of at least half a batch an epoch, got {self.shares[name]:g} with "
                    f"{counts[0]} batches of {main}: raise the share, or lower the batch_size of {main}"
                )
        return MixedLoader(loaders, counts=counts)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch as its kind's data module does."""
        return self._of(batch).transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment a whole training batch as its kind's data module does."""
        part = self._of(batch)
        if isinstance(batch, dict):
            batch.pop(KIND, None)
        return part.on_after_batch_transfer(batch, dataloader_idx)

    def teardown(self, stage: str) -> None:
        """Let go of what lies on the device, of all kinds."""
        for part in self.modalities.values():
            part.teardown(stage)

    def _of(self, batch: Any) -> LoadedData:
        return self.modalities[batch[KIND]] if isinstance(batch, dict) and KIND in batch else self.main
