"""Any timm ResNet or ConvNeXt on a masked image (CNN-JEPA), or on the tubelets of a clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder, TokenSpec
from jepa_lightning.encoders.visible import Visible, VisibleBatchNorm, see_only_visible
from jepa_lightning.names.nearest import nearest_names
from jepa_lightning.patches import unpatchify
from jepa_lightning.tokens import Tokens, take

_MODULES = "timm.models.resnet", "timm.models.convnext"
_STEM = 4  # stride of timm's ResNet stems, with their pool


class Stage(nn.Module):
    """Part of a net, run with the cells that are visible given beside its input, so that it can be recomputed."""

    def __init__(self, net: nn.Module, visible: Visible) -> None:
        super().__init__()
        self.net = net
        self._visible = visible

    def forward(self, x: Tensor, cells: Tensor | None = None) -> Tensor:
        """Run the part on (B, C, H, W), of which `cells` (B, rows, columns) are visible; None: all."""
        with self._visible.only(cells):
            return self.net(x)


class TimmConvNet(Encoder):
    """A timm ResNet or ConvNeXt on images, masked or whole: `{class_path: TimmConvNet, init_args: {name: resnet50}}`.

    As in CNN-JEPA (Kalapos and Gyires-Toth 2024, arXiv:2408.07514, section III): tokens are put back in their places of
    the image, those that are not kept stay zero, and they are set to zero again before every layer that looks at
    several places, so that the mask keeps its form through all layers; batch norms use the statistics of the visible
    places. A token's representation is the net's output at its place. With all tokens visible, the output is that of
    timm's model before its pooling.

    A patch must be as large as the net's stride, or a multiple of it (representations within a patch are then
    averaged): 32 for a ResNet or ConvNeXt of four stages, 16 for three.

    Clips: the frames of a tubelet are channels of one image (early fusion: Karpathy et al. 2014, "Large-scale video
    classification with convolutional neural networks", section 3.1), first those of frame 1, then those of frame 2; the
    images of the grid's times are encoded one by one. With a tubelet of all frames the net sees the whole clip.

    Deviations: in CNN-JEPA, layers set their outputs to zero instead of their inputs, which is the same at visible
    places. Its convolutions of the official code run on all places, as here.

    There are no outputs of inner layers, since stages differ in width. An EMA copy normalises by the running statistics
    of the context encoder, which are those of visible places.

    Args:
        spec: the tokens' shape (C, patch height, patch width) and grid (rows, columns), given by the modality; of
            clips (C, frames, patch height, patch width) and (times, rows, columns).
        name: a ResNet or ConvNeXt in `timm.list_models()`, with or without a pretrained tag.
        stages: number of stages to use, from the first; None for all.
        stem_stride: replace a ResNet's stem (a convolution of stride 2 and a pool) by one convolution of 3 pixels with
            this stride, for small images (SimCLR: Chen et al. 2020, appendix B.9, has 1); None for the model's stem.
        pretrained: load timm's weights for `name`, which needs the network or timm's cache.
        drop_path: stochastic depth of the last layer.
        options: more keyword arguments for `timm.create_model`, such as `layers` and `channels` of a ResNet.

    Raises:
        ValueError: the tokens are neither image patches nor tubelets, timm has no such model or it may not be masked,
            an option is wrong, or patches are no multiple of the stride.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning.encoders import TimmConvNet
        >>> from modalities.image import Image
        >>> small = {"layers": [1, 1], "channels": [16, 32]}
        >>> encoder = partial(TimmConvNet, name="resnet18", stages=2, stem_stride=2, options=small)
        >>> image = Image(image_size=32, patch_size=4, encoder=encoder)
        >>> tokens = image.tokenizer({"image": torch.randn(2, 3, 32, 32)})
        >>> keep = torch.tensor([[0, 1, 9], [2, 3, 63]])
        >>> image.encoder(tokens).shape, image.encoder(tokens, keep).shape
        (torch.Size([2, 64, 32]), torch.Size([2, 3, 32]))
    """

    def __init__(
        self,
        spec: TokenSpec,
        *,
        name: str,
        stages: int | None = None,
        stem_stride: int | None = None,
        pretrained: bool = False,
        drop_path: float = 0.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if spec.grid is None or (len(spec.shape), len(spec.grid)) not in ((3, 2), (4, 3)):
            raise ValueError(
                "TimmConvNet takes image patches, tokens of shape (C, height, width) on a grid (rows, columns), or "
                "tubelets, (C, frames, height, width) on a grid (times, rows, columns); these "
                f"have shape {spec.shape} and grid {spec.grid}: use another encoder, for example ViT"
            )
        self.shape = tuple(spec.shape)
        patch, channels = self.shape[-2:], math.prod(self.shape[:-2])
        net = _create(
            name,
            stages=stages,
            pretrained=pretrained,
            in_chans=channels,
            drop_path_rate=drop_path,
            **(options or {}),
        )
        self.dim = int(net.feature_info.channels()[-1])
        parts = dict(net.named_children())
        if stem_stride is not None:
            _replace_stem(parts, channels, stem_stride)
        visible = Visible()
        for part in parts.values():
            see_only_visible(part, visible)
        stem = [part for key, part in parts.items() if not key.startswith(("layer", "stages"))]
        rest = [part for key, part in parts.items() if key.startswith(("layer", "stages"))]
        self.layers = nn.ModuleList(Stage(part, visible) for part in (nn.Sequential(*stem), *rest))  # type: ignore[misc]
        # Convolutions on CPUs and tensor cores are quicker so.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        stride = int(net.feature_info.reduction()[-1])
        stride = stride if stem_stride is None else stride // _STEM * stem_stride
        if any(side % stride for side in patch):
            raise ValueError(
                f"{name} with these settings has a stride of {stride} pixels, and patches are of {patch}: set "
                f"patch_size to {stride} or a multiple, or use fewer stages or a smaller stem_stride"
            )

    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
    ) -> Tensor:
        """Encode all tokens, or the kept ones: (B, N or K, D); see `Encoder.forward`."""
        if layers:
            raise ValueError("TimmConvNet gives its last layer alone, since stages differ in width: leave layers out")
        values, grid = tokens.values, tokens.grid
        axes = len(self.shape) - 1
        if not isinstance(values, Tensor) or grid is None or (values.shape[2:], len(grid)) != (self.shape, axes):
            raise ValueError(
                f"expected all patches of an image or a clip, of shape {self.shape} on a grid, got "
                f"{tuple(values.shape)} and the grid {grid}: give all patches (and `keep` for a subset)"
            )
        seen, batch, places = visible_tokens(tokens, keep, keep_valid), len(values), tuple(grid[-2:])
        if seen is not None:
            values = torch.where(seen.view(*seen.shape, *[1] * len(self.shape)), values, 0.0)
            seen = seen.reshape(-1, *places)  # a grid of cells for each image: of a clip, those of all times
        if axes == 3:  # times become samples, and the frames of a tubelet channels
            values = values.transpose(2, 3).flatten(2, 3).unflatten(1, (grid[0], -1)).flatten(0, 1)
        x = unpatchify(values, places).to(self.dtype).contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            x = layer(x, seen)
        if tuple(x.shape[2:]) != places:
            x = F.avg_pool2d(x, (x.shape[2] // places[0], x.shape[3] // places[1]))
        encoded = x.flatten(2).transpose(1, 2).reshape(batch, -1, self.dim)
        return encoded if keep is None else take(encoded, keep)

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the weights."""
        return next(self.parameters()).dtype


def visible_tokens(tokens: Tokens, keep: Tensor | None, keep_valid: Tensor | None) -> Tensor | None:
    """Which tokens are real and kept: (B, N) bool; None: all."""
    if keep is None:
        return tokens.valid
    count = tokens.count
    index = keep if keep_valid is None else keep.masked_fill(~keep_valid, count)  # filler goes to an extra slot
    seen = torch.zeros(len(keep), count + 1, dtype=torch.bool, device=keep.device).scatter(1, index, True)[:, :count]
    return seen if tokens.valid is None else seen & tokens.valid


def _create(name: str, *, stages: int | None, **options: Any) -> Any:
    """The stages of a timm model one after the other, without head."""
    architecture = name.split(".", 1)[0]
    if not timm.is_model(architecture):
        near = nearest_names(architecture, timm.list_models(), count=3)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists them"
        raise ValueError(f"timm {timm.__version__} has no model {name!r}: {hint}")
    module = timm.model_entrypoint(architecture).__module__
    if module not in _MODULES:
        raise ValueError(
            f"{name} is no ResNet or ConvNeXt ({module}): use resnet50 or convnext_tiny, or TimmEncoder for a ViT"
        )
    resnet = module == _MODULES[0]
    if resnet:
        options["norm_layer"] = VisibleBatchNorm
    last = -1 if stages is None else stages if resnet else stages - 1
    if stages is not None and stages < 1:
        raise ValueError(f"stages must be at least 1, got {stages}")
    try:
        return timm.create_model(name, features_only=True, out_indices=(last,), **options)
    except Exception as error:  # timm, the hub and torch have their own kinds
        first = " ".join(str(error).split()) or "no message"
        raise ValueError(
            f"timm cannot create {name} with these options: {type(error).__name__}: {first[:200]}"
        ) from None


def _replace_stem(parts: dict[str, nn.Module], channels: int, stride: int) -> None:
    """Replace a ResNet's stem by one convolution of 3 pixels."""
    if "conv1" not in parts or "bn1" not in parts:
        raise ValueError("stem_stride is for ResNets: set options {patch_size: ...} for the stem of a ConvNeXt")
    if stride < 1:
        raise ValueError(f"stem_stride must be at least 1, got {stride}")
    norm: Any = parts["bn1"]
    conv = nn.Conv2d(channels, norm.num_features, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    parts["conv1"] = conv
    parts.pop("maxpool", None)
