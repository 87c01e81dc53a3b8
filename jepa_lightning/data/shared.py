"""The settings that data modules pass on to their bases, for editors and type checkers.

A modality's data module writes `**shared: Unpack[FileSettings]`: an editor then completes `ImageData(root=..., batch_`,
and a type checker knows the names and types. At run time `Unpack[...]` is `Any`, since with the real one jsonargparse
4.53 does not see the bases' defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from typing import Unpack as Unpack

    from torch.utils.data import Dataset

    from jepa_lightning.data.views import ViewTransform
else:

    class Unpack:
        """Stands in for `typing.Unpack` where annotations are evaluated."""

        def __class_getitem__(cls, settings: type) -> Any:
            return Any


class OtherDataSettings(TypedDict, total=False):
    """What `JEPADataModule` takes but `batch_size`."""

    num_workers: int | None
    timeout: float
    pin_memory: bool | None
    drop_last: bool
    seed: int
    val_fraction: float
    probe_samples: int
    max_unreadable: float
    epoch_samples: int | None
    views: int
    view_transform: ViewTransform | None
    batched: bool | None
    on_device: bool | None


class DataSettings(OtherDataSettings, total=False):
    """What `JEPADataModule` takes."""

    batch_size: int


class OtherSourceSettings(OtherDataSettings, total=False):
    """What `SourcedDataModule` takes but `samples` and `batch_size`: for modalities with a default of their own."""

    root: str | None
    dataset: Dataset | None
    val_dataset: Dataset | None
    test_dataset: Dataset | None


class OtherFileSettings(OtherSourceSettings, total=False):
    """What `FileDataModule` takes but these two."""

    csv: str | None
    labels: list[str] | None


class SourceSettings(OtherSourceSettings, total=False):
    """What `SourcedDataModule` takes but `samples`, whose default is each modality's own."""

    batch_size: int


class FileSettings(OtherFileSettings, total=False):
    """What `FileDataModule` takes but `samples`."""

    batch_size: int
