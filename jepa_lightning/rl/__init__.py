"""Reinforcement learning on a frozen encoder's states: wrappers of gymnasium. Needs the extra world."""

from jepa_lightning.config.extras import extra

with extra("world", who="wrappers need", packages=("gymnasium",), broken="gymnasium does not load ({})".format):
    from jepa_lightning.rl.wrappers import LatentObservation, LatentVectorObservation, PictureObservation

__all__ = ["LatentObservation", "LatentVectorObservation", "PictureObservation"]
