"""The point cloud modality: groups of points, Point-JEPA's masks and a ViT."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from jepa_lightning.encoders import MLPPositions, TokenSpec, ViT
from jepa_lightning.maskers import Masker, OrderedRuns
from jepa_lightning.modality import Batch, EncoderFactory, Modality
from jepa_lightning.pictures.drawing import role_colours, roles
from jepa_lightning.tokens import Masks, Tokens, take
from modalities.pointcloud import pictures
from modalities.pointcloud.embedding import MiniPointNet
from modalities.pointcloud.geometry import nearest
from modalities.pointcloud.tokenizer import PointTokenizer

_DARK = 0.15


class PointCloud(Modality):
    """Clouds of points as groups of neighbours, without a grid (Point-JEPA, Saito et al. 2024, arXiv:2404.16432).

    Batches hold `points` (B, N, 3 + F): xyz, then the further features of each point. A token is a group, which
    `MiniPointNet` embeds; its position is its centre, which an MLP embeds, one of the encoder's and one of the
    predictor's own. With the encoder's `positions_at: every_layer` they are added at each block, as in the paper.

    Args:
        points: number N of points of a cloud; the data module samples to it.
        features: numbers F of a point besides its coordinates: normals are 3, normals and colours 6.
        groups: number of tokens.
        group_size: points in a group.
        radius: what is length one inside a group; None leaves coordinates as they are. See `PointTokenizer`.
        encoder: builds the encoder from the token spec: `ViT` or your own `Encoder`.
        masker: draws contexts and targets; Point-JEPA's runs of neighbouring groups by default.

    Raises:
        ValueError: a setting is out of range, or clouds are too small for the groups.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning.encoders import ViT
        >>> from modalities.pointcloud import PointCloud
        >>> encoder = partial(ViT, width=32, depth=1, heads=2, positions_at="every_layer")
        >>> cloud = PointCloud(points=128, groups=16, group_size=8, encoder=encoder)
        >>> tokens = cloud.tokenizer({"points": torch.randn(2, 128, 3)})
        >>> tokens.values.shape, cloud.encoder(tokens).shape
        (torch.Size([2, 16, 8, 3]), torch.Size([2, 16, 32]))
    """

    name = "pointcloud"
    masks_legend = (
        "Each row: a cloud from two sides. Blue: context. Orange, red, yellow, purple: target blocks. Grey: neither."
    )

    def __init__(
        self,
        *,
        points: int = 1024,
        features: int = 0,
        groups: int = 64,
        group_size: int = 32,
        radius: float | None = None,
        encoder: EncoderFactory = ViT,
        masker: Masker | None = None,
    ) -> None:
        self.tokenizer: PointTokenizer = PointTokenizer(
            groups=groups, group_size=group_size, features=features, radius=radius
        )
        if points < max(groups, group_size):
            raise ValueError(
                f"points must be at least {max(groups, group_size)} for {groups} groups of {group_size}, got {points}: "
                "use more points, or fewer or smaller groups"
            )
        self.points = points
        self.features = features
        channels = 3 + features
        self.spec = TokenSpec(
            shape=(group_size, channels),
            grid=None,
            positions=partial(MLPPositions, axes=3),
            axes=3,
            embed=partial(MiniPointNet, channels=channels),
        )
        self.masker = masker or OrderedRuns()
        self.encoder = encoder(self.spec)

    @torch.no_grad()
    def draw_masks(self, batch: Batch, masks: list[Masks]) -> list[Tensor]:
        """A row a sample, for each draw two views: the context in blue, target blocks in warm colours, the rest grey.

        Each point has the colour of the nearest group's centre.
        """
        tokens = self.tokenizer(batch)
        colours = [role_colours(mask.targets.shape[1])[roles(mask, tokens.count).cpu()] for mask in masks]
        return pictures.clouds(batch["points"], [_of_points(batch, tokens, colour) for colour in colours])

    @torch.no_grad()
    def draw_features(self, batch: Batch, tokens: Tokens, colours: Tensor) -> list[Tensor]:
        """A row a sample: two views of the cloud, each point in the colour of the nearest group's centre."""
        return pictures.clouds(batch["points"], [_of_points(batch, tokens, colours)])

    def example(self, count: int, generator: torch.Generator) -> Batch:
        """Noise."""
        return {"points": torch.randn(count, self.points, 3 + self.tokenizer.features, generator=generator)}

    def draw_samples(self, batch: Batch) -> list[Tensor]:
        """Two views of each cloud, dark."""
        points = batch["points"]
        return pictures.clouds(points, [torch.full((*points.shape[:2], 3), _DARK)])

    @torch.no_grad()
    def raw_features(self, batch: Batch) -> Tensor:
        """A cloud's extents, principal variances and 32 bins of the distances between its points: (B, 38).

        The distances are the shape distribution D2 (Osada et al. 2002) of N pairs of points; the points of a cloud are
        in random order.
        """
        points = batch["points"][..., :3]
        far = points.roll(points.shape[1] // 2, dims=1)
        distance = (points - far).norm(dim=-1)
        edges = torch.linspace(0, 2, 33, device=points.device)[1:-1]
        counts = points.new_zeros(len(points), 32).scatter_add_(
            1, torch.bucketize(distance, edges), torch.ones_like(distance)
        )
        spread = torch.linalg.eigvalsh((points.mT @ points) / points.shape[1])
        extent = points.amax(1) - points.amin(1)
        return torch.cat([extent, spread, counts / points.shape[1]], dim=1)


def _of_points(batch: Batch, tokens: Tokens, colours: Tensor) -> Tensor:
    """Colours (B, N, 3) of points from the colours (B, G, 3) of their nearest centres."""
    xyz = batch["points"][..., :3].to(tokens.positions.dtype)
    return take(colours.to(xyz.device), nearest(tokens.positions, xyz, 1).squeeze(2)).float()
