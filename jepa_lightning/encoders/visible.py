"""Convolutional layers that see the visible cells of a masked image only (sparse convolution by masks)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

_MIXING = (nn.MaxPool2d, nn.AvgPool2d, GlobalResponseNorm)  # what looks at several places, besides convolutions
_BY_PLACE = (nn.Identity, nn.ReLU, nn.GELU, nn.SiLU, nn.Linear, nn.LayerNorm, nn.Dropout)


class Visible:
    """The cells that the layers of a net see at the moment; a mask for each resolution.

    Layers share one of these. It is no module: what it holds belongs to one forward pass.
    """

    def __init__(self) -> None:
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._cells: Tensor | None = None

    @contextmanager
    def only(self, cells: Tensor | None) -> Iterator[None]:
        """Show these cells (B, rows, columns) for the time of a block; None: all."""
        before = self._cells, self._masks
        self._cells, self._masks = cells, {}
        try:
            yield
        finally:
            self._cells, self._masks = before

    def at(self, height: int, width: int) -> Tensor | None:
        """The mask (B, 1, height, width), bool, of a map whose size is a multiple of the cells'; None: all visible."""
        cells = self._cells
        if cells is None:
            return None
        if (height, width) not in self._masks:
            rows, columns = cells.shape[1:]
            if height % rows or width % columns:
                raise ValueError(
                    f"a map of {height} x {width} places cannot be masked by {rows} x {columns} cells: use images "
                    "whose sides are multiples of the net's stride"
                )
            fine = cells.repeat_interleave(height // rows, 1).repeat_interleave(width // columns, 2)
            self._masks[height, width] = fine.unsqueeze(1)
        return self._masks[height, width]

    def hide(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Set hidden cells of a layer's input to zero: a forward pre-hook. A bound method, which deepcopy rebinds."""
        x = inputs[0]
        last = isinstance(module, GlobalResponseNorm) and module.channel_dim == -1  # (B, H, W, C)
        mask = self.at(*(x.shape[1:3] if last else x.shape[2:]))
        if mask is None:
            return inputs
        return (torch.where(mask.movedim(1, -1) if last else mask, x, 0.0), *inputs[1:])


class VisibleBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the statistics of the visible places only; without a mask it is `nn.BatchNorm2d`.

    Running statistics follow the visible places, too. What it gives at hidden places is meaningless. Each process has
    the statistics of its own samples; Lightning's `sync_batchnorm` would replace this class and count hidden places.
    """

    visible: Visible

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        mask = self.visible.at(*x.shape[2:]) if self.training else None
        if mask is None:
            return super().forward(x)
        seen = torch.where(mask, x, 0.0)
        wide = torch.promote_types(x.dtype, torch.float32)
        count = mask.sum(dtype=wide).clamp(min=1)
        mean = seen.sum((0, 2, 3), dtype=wide) / count
        centred = torch.where(mask, x - mean.to(x.dtype)[:, None, None], 0.0)
        variance = centred.square().sum((0, 2, 3), dtype=wide) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                share = 0.1 if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean), share)
                unbiased = variance * count / (count - 1).clamp(min=1)
                self.running_var.lerp_(unbiased.to(self.running_var), share)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale.to(x.dtype)[:, None, None] + self.bias.to(x.dtype)[:, None, None]


def see_only_visible(net: nn.Module, visible: Visible) -> None:
    """Change a net in place: every layer that looks at several places gets an input whose hidden cells are zero.

    These are convolutions wider than a pixel, pools, and ConvNeXt V2's global response norm. Batch norms must be
    `VisibleBatchNorm`. Other layers look at one place, so their order does not matter: at visible cells the result is
    that of a sparse convolution (SparK: Tian et al. 2023, arXiv:2301.03580, section 3.1).

    Raises:
        ValueError: there is a layer that is not known to look at one place only.
    """
    for name, module in net.named_modules():
        if isinstance(module, VisibleBatchNorm):
            module.visible = visible
        elif isinstance(module, _MIXING):
            module.register_forward_pre_hook(visible.hide)
        elif isinstance(module, nn.Conv2d):
            if max(module.kernel_size) > 1:
                module.register_forward_pre_hook(visible.hide)
        elif not any(module.children()) and not isinstance(module, _BY_PLACE) and type(module).__name__ not in _NAMED:
            raise ValueError(
                f"the layer {name} ({type(module).__name__}) may mix hidden and visible places: use a ResNet without "
                "attention (resnet50, resnext50_32x4d, ...) or a ConvNeXt (convnext_tiny, convnextv2_atto, ...)"
            )


_NAMED = {"GELU", "GELUTanh", "LayerNorm", "LayerNorm2d", "DropPath", "Dropout"}  # timm's own, of one place each
