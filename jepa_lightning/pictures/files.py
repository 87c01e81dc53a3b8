"""Laying out pictures and writing them, uint8 (3, H, W) as PNG, moving ones (F, 3, H, W) as GIF and PNG; and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.io import encode_png

from jepa_lightning.pictures.legend import Legend, with_legend
from jepa_lightning.run.checkpoints import Which, find_checkpoint
from jepa_lightning.run.writing import named

GAP = 4  # pixels between the frames of a strip, and between moving samples
WIDE = 4 * GAP  # pixels between samples under each other
STRIP = 8  # frames in a strip, at most
STRIPS = 3  # samples that get a strip, at most
FRAME = 125  # milliseconds that a frame of a GIF is shown
SEEN = 2**15  # pixels whose colours a GIF is written in


def write_pictures(
    pictures: Sequence[Tensor] | None, folder: Path, name: str, legend: Legend | None = None
) -> list[Path]:
    """Write one picture a sample into `folder`, with a legend below: under each other as NAME.png.

    Moving ones side by side as NAME.gif, and as NAME.png the strips of the first three.

    Returns:
        The files; none where there are no pictures.
    """
    if not pictures:
        return []
    moving = pictures[0].ndim == 4
    if not moving:
        return write_picture(stack(pictures, gap=WIDE), folder, name, legend)
    strips = stack([strip(picture) for picture in pictures[:STRIPS]], gap=WIDE)
    return [*write_picture(beside(pictures), folder, name, legend), *write_picture(strips, folder, name, legend)]


def write_picture(picture: Tensor, folder: Path, name: str, legend: Legend | None = None) -> list[Path]:
    """Write one picture into `folder`: (3, H, W) as NAME.png, (F, 3, H, W) as NAME.gif. Returns the file in a list."""
    picture = picture if legend is None else with_legend(picture, legend)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{'gif' if picture.ndim == 4 else 'png'}"
    with named(path):
        if picture.ndim == 4:
            write_gif(picture, path)
        else:
            path.write_bytes(encode_png(picture.contiguous()).numpy().tobytes())
    return [path]


def stack(pictures: Sequence[Tensor], *, gap: int = GAP) -> Tensor:
    """Pictures under each other on white: (3, sum of H, largest W), or (F, 3, ...) of moving ones."""
    return _joined(pictures, dim=-2, gap=gap)


def beside(pictures: Sequence[Tensor], *, gap: int = GAP) -> Tensor:
    """Pictures side by side on white: (3, largest H, sum of W), or (F, 3, ...) of moving ones."""
    return _joined(pictures, dim=-1, gap=gap)


def strip(picture: Tensor) -> Tensor:
    """Frames (F, 3, H, W), at most eight of them, evenly spaced, side by side on white: (3, H, ...)."""
    kept = torch.linspace(0, len(picture) - 1, min(len(picture), STRIP)).round().long()
    return beside(list(picture[kept]))


def write_gif(frames: Tensor, path: Path) -> None:
    """Write (F, 3, H, W) uint8 as an endless GIF, its 256 colours those of all frames: each pixel's nearest."""
    pixels = frames.permute(0, 2, 3, 1).reshape(-1, 3)
    some = pixels[:: max(1, len(pixels) // SEEN)].contiguous()  # to choose among all takes a second
    colours = Image.fromarray(some.unsqueeze(0).numpy()).quantize(256)
    table = colours.getpalette() or []
    palette = torch.tensor(table).view(-1, 3)
    codes, index = (pixels.int() * torch.tensor([65536, 256, 1])).sum(1).unique(return_inverse=True)
    each = torch.stack([codes // 65536, codes // 256 % 256, codes % 256], dim=1)
    nearest = torch.cat([torch.cdist(part.float(), palette.float()).argmin(1) for part in each.split(SEEN)])
    images = []
    for frame in nearest[index].to(torch.uint8).view(len(frames), *frames.shape[2:]):
        image = Image.fromarray(frame.numpy())
        image.putpalette(table)
        images.append(image)
    images[0].save(path, save_all=True, append_images=images[1:], duration=FRAME, loop=0)


def _joined(pictures: Sequence[Tensor], *, dim: int, gap: int) -> Tensor:
    """In a row or a column, padded with white to one size across; moving ones stop at their last frame.

    Beside a moving picture a still one is one of a single frame.
    """
    if any(picture.ndim == 4 for picture in pictures):
        pictures = [picture if picture.ndim == 4 else picture.unsqueeze(0) for picture in pictures]
    across = -1 if dim == -2 else -2
    size = max(picture.shape[across] for picture in pictures)
    padded = []
    for picture in pictures:
        missing = size - picture.shape[across]
        sides = (0, gap, 0, missing) if dim == -1 else (0, missing, 0, gap)
        padded.append(F.pad(picture, sides, value=255))
    if padded[0].ndim == 4:
        frames = max(len(picture) for picture in padded)
        padded = [torch.cat([picture, picture[-1:].expand(frames - len(picture), -1, -1, -1)]) for picture in padded]
    whole = torch.cat(padded, dim=dim)
    return whole.narrow(dim, 0, whole.shape[dim] - gap)


def pictures_folder(checkpoint: str | Path, out: str | Path | None, *, which: Which = "last") -> Path:
    """Where pictures go: `out`, or else `view` in the folder of the run.

    Raises:
        ValueError: there is no such folder, or `out` is a file.
    """
    if out is None:
        path = Path(checkpoint).expanduser()
        file = find_checkpoint(path, which)
        if file == path and file.parent.name != "checkpoints":
            raise ValueError("expected out, a folder, with a checkpoint that lies in no run's folder: it has no place")
        return (file.parent.parent if file.parent.name == "checkpoints" else path) / "view"
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"expected a folder for out, got the file {folder}")
    return folder
