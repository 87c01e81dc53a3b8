"""Trained encoders back from checkpoints, folders of safetensors and the Hugging Face Hub."""

from jepa_lightning.loading.from_runs import load, load_jepa, load_jepa_and_config
from jepa_lightning.loading.frozen import Frozen, WhichEncoder
from jepa_lightning.loading.part import part_of

__all__ = ["Frozen", "WhichEncoder", "load", "load_jepa", "load_jepa_and_config", "part_of"]
