"""Pictures of graphs: nodes as discs where a layout of springs puts them, edges as thin lines, on white."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.pictures.drawing import CONTEXT, PANEL, TARGETS, UNUSED, panels
from modalities.graph.graphs import GraphBatch, once

SIDE = 2 * PANEL  # pixels of a graph's picture
_FINE = 2  # drawn so many times larger, for smooth edges
_MARGIN = 12
_EDGE = 0.8  # how light a line is
_RIM = 0.25  # how light a disc's rim is
_MANY = 300  # nodes; of more, springs are too slow
_STEPS = 200
_SHADE = 0.7  # of colours that are used again, for further types


def graphs(batch: GraphBatch, colours: Sequence[Tensor]) -> list[Tensor]:
    """Draw each graph in each colouring, in a row: one uint8 (3, H, W) a sample. A graph always looks the same.

    The node that a sample is about, if it is about one, has a larger disc.

    Edges that lie in no patch are not known and not drawn.

    Args:
        batch: the graphs.
        colours: panels, (V, 3) in 0-1 each: the colours of the batch's nodes.
    """
    batch = batch.to("cpu")
    drawn: list[list[Tensor]] = [[] for _ in colours]
    owner = torch.zeros(len(batch.nodes), dtype=torch.int64)
    owner[batch.members] = batch.patch // max(batch.tokens, 1)
    edges = once(batch.members[batch.edges].sort(dim=0).values, len(batch.nodes))  # undirected, once
    for sample in range(len(batch)):
        nodes = torch.nonzero(owner == sample).squeeze(1)
        mine = torch.searchsorted(nodes, edges[:, owner[edges[0]] == sample])
        places = _places(len(nodes), tuple(mine.flatten().tolist()))
        for panel, colour in zip(drawn, colours, strict=True):
            panel.append(_paint(places, mine, colour.detach().float().cpu()[nodes], rooted=batch.rooted))
    return panels([torch.stack(panel) for panel in drawn])


def type_colours(nodes: Tensor) -> Tensor:
    """Colour nodes (V, F) as (V, 3): by type where every node has exactly one (a single 1), else grey."""
    nodes = nodes.detach().float().cpu()
    one_hot = nodes.shape[1] > 1 and bool(((nodes == 0) | (nodes == 1)).all() & (nodes.sum(1) == 1).all())
    kind = nodes.argmax(1) if one_hot else torch.zeros(len(nodes), dtype=torch.int64)
    table = torch.tensor([CONTEXT, *TARGETS]) if one_hot else torch.tensor([UNUSED])
    return table[kind % len(table)] * _SHADE ** (kind // len(table)).unsqueeze(1)


@lru_cache(maxsize=64)
def _places(count: int, edges: tuple[int, ...]) -> Tensor:
    """The layout of one graph, which several pictures of it share."""
    return layout(count, torch.tensor(edges, dtype=torch.int64).view(2, -1))


def layout(count: int, edges: Tensor) -> Tensor:
    """Place `count` nodes joined by `edges` (2, E): (count, 2) in [-1, 1], the same at every call."""
    edges = edges[:, edges[0] != edges[1]]
    places = _springs(count, edges) if count <= _MANY else _spectral(count, edges)
    places = places - (places.amax(0) + places.amin(0)) / 2
    return places / places.abs().amax().clamp(min=1e-6)


def _springs(count: int, edges: Tensor) -> Tensor:
    """Lay out as Fruchterman and Reingold (1991): edges pull, nodes push, steps shrink; all are drawn to the middle.

    The pull to the middle, which is ours, keeps parts of a graph that no edge joins in one picture.
    """
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(count, 2, generator=generator) - 0.5
    joined = torch.zeros(count, count)
    joined[edges[0], edges[1]] = joined[edges[1], edges[0]] = 1.0
    spacing = (1 / max(count, 1)) ** 0.5
    for step in range(_STEPS):
        away = places[:, None] - places  # (n, n, 2)
        distance = away.norm(dim=2).clamp(min=1e-4)
        push = spacing**2 / distance**2 - joined * distance / spacing
        move = (away * push.unsqueeze(2)).sum(1) - places
        longest = 0.1 * (1 - step / _STEPS)
        places = places + F.normalize(move) * move.norm(dim=1, keepdim=True).clamp(max=longest)
    return places


def _spectral(count: int, edges: Tensor) -> Tensor:
    """Find the two slowest modes of a lazy random walk on the graph, about, by subspace iteration."""
    generator = torch.Generator().manual_seed(0)
    both = torch.cat([edges, edges.flip(0)], dim=1)
    degree = torch.ones(count).index_add(0, both[0], torch.ones(both.shape[1])).sqrt()
    weight = 1 / (degree[both[0]] * degree[both[1]])
    modes = torch.cat([degree[:, None], torch.randn(count, 2, generator=generator)], dim=1)
    for _ in range(_STEPS):
        modes = torch.linalg.qr(modes).Q  # the first, the degrees, is the mode that does not move
        spread = modes[both[1]] * weight[:, None]
        modes = (modes + modes / degree[:, None] ** 2).index_add(0, both[0], spread)
    return torch.linalg.qr(modes).Q[:, 1:] / degree[:, None]


def _paint(places: Tensor, edges: Tensor, colours: Tensor, *, rooted: bool) -> Tensor:
    """Paint one picture, (3, SIDE, SIDE) in 0-1."""
    side = SIDE * _FINE
    canvas = torch.ones(3, side, side)
    pixels = ((places * torch.tensor([1.0, -1.0])) * (0.5 - _MARGIN / SIDE) + 0.5) * side  # x and y of (n, 2)
    along = torch.linspace(0, 1, side)[:, None, None]
    if edges.shape[1]:
        line = (pixels[edges[0]] * (1 - along) + pixels[edges[1]] * along).long().flatten(0, 1)
        canvas[:, line[:, 1], line[:, 0]] = _EDGE
        canvas[:, line[:, 1], line[:, 0] + 1] = _EDGE
        canvas[:, line[:, 1] + 1, line[:, 0]] = _EDGE
    radius = _FINE * (5 if len(places) <= 60 else 3 if len(places) <= _MANY else 2)
    rim = _FINE // 2 if len(places) <= _MANY else 0
    centre = pixels.long()
    _discs(canvas, centre, colours, radius=radius, rim=rim)
    if rooted:
        _discs(canvas, centre[:1], colours[:1], radius=2 * radius, rim=rim + _FINE)
    return F.avg_pool2d(canvas, _FINE)


def _discs(canvas: Tensor, centre: Tensor, colours: Tensor, *, radius: int, rim: int) -> None:
    """Paint discs with a dark rim at `centre` (n, 2) on a canvas (3, H, W), in place."""
    for reach, colour in ((radius + rim, torch.full_like(colours, _RIM)), (radius, colours.clamp(0, 1))):
        offset = torch.arange(-reach, reach + 1)
        down, right = (grid.flatten() for grid in torch.meshgrid(offset, offset, indexing="ij"))
        disc = down**2 + right**2 <= reach**2
        rows, columns = centre[:, 1:] + down[disc], centre[:, :1] + right[disc]
        canvas[:, rows, columns] = colour.T[:, :, None].expand(-1, -1, rows.shape[1])
