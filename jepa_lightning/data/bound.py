"""Where data take the sizes from that are not set: the modality of the model that they are for."""

from __future__ import annotations

from typing import Any, Self

from lightning.pytorch import LightningDataModule

from jepa_lightning.data.errors import DataError
from jepa_lightning.modality import Modality


class ModelSizedData(LightningDataModule):
    """A data module that is bound to a model's modality."""

    _modality: Modality | None = None

    def bind(self, modality: Modality) -> Self:
        """Take the sizes that are not set (`image_size: null`) from a model's modality; call it before data are loaded.

        `Trainer.fit` needs no such call: data that are bound to nothing take them from the model that is trained.
        """
        self._modality = modality
        return self

    @property
    def modality(self) -> Modality | None:
        """What the data are bound to; None where there is no model.

        A plain Trainer sets up the data before the model has its turn, so the model that it trains is asked for here.
        """
        if self._modality is None and self.trainer is not None:
            return getattr(self.trainer.lightning_module, "modality", None)
        return self._modality

    def or_model(self, name: str, value: Any) -> Any:
        """A setting's value, or where it is None, the modality's attribute of that name.

        Raises:
            DataError: it is None, and there is no model that has it.
        """
        value = getattr(self.modality, name, None) if value is None else value
        if value is None:
            raise DataError(f"expected {name}, got none and there is no model to take it from: set data.{name}")
        return value
