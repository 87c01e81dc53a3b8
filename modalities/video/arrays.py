"""Clips that lie in a NumPy archive, as moving MNIST and its kin come."""

from __future__ import annotations

from jepa_lightning.data import ArchiveSamples


class ArrayClips(ArchiveSamples):
    """Clips and labels from a .npz file (`ArchiveSamples`), uint8 or float."""

    key = "video"
    names = ("video", "videos", "frames", "clips")
    shapes = {4: "(N, T, H, W)", 5: "(N, T, H, W, C)"}  # noqa: RUF012
