"""Images that lie in a NumPy archive."""

from __future__ import annotations

from jepa_lightning.data import ArchiveSamples


class ArrayImages(ArchiveSamples):
    """Images and labels from a .npz file (`ArchiveSamples`): uint8, or float as it is."""

    key = "image"
    names = ("image", "imgs", "images")
    shapes = {3: "(N, H, W)", 4: "(N, H, W, C)"}  # noqa: RUF012
