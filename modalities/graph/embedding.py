"""Graph layers that embed subgraphs, each by itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalities.graph.subgraphs import Subgraphs

ConvFactory = Callable[[int, int], nn.Module]
"""Builds a graph layer from (in_channels, out_channels): most classes of `torch_geometric.nn` do."""
Readout = Literal["mean", "root"]


class GINE(nn.Module):
    """The graph isomorphism layer with edge features (Hu et al. 2020, arXiv:1905.12265).

    Node i becomes MLP(x_i + sum over its neighbours j of ReLU(x_j + W e_ji)), with PyG's GINEConv. Without edge
    features it is GIN (Xu et al. 2019, arXiv:1810.00826), MLP(x_i + sum of x_j), with PyG's GINConv. The MLP has two
    layers with a ReLU between.

    Args:
        in_channels: width of the nodes before.
        out_channels: width of the nodes after.
        edge_dim: numbers of an edge; None without edge features.
        hidden: width between the MLP's layers; None is `out_channels`.

    Examples:
        >>> import torch
        >>> from modalities.graph import GINE
        >>> layer = GINE(4, 16)
        >>> layer(torch.randn(3, 4), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])).shape
        torch.Size([3, 16])
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, edge_dim: int | None = None, hidden: int | None = None
    ) -> None:
        super().__init__()
        from torch_geometric.nn import GINConv, GINEConv  # an extra, and slow to import

        hidden = hidden or out_channels
        mlp = nn.Sequential(nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, out_channels))
        self.conv = GINEConv(mlp, edge_dim=edge_dim) if edge_dim else GINConv(mlp)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """Embed nodes (S, in_channels), with edges (2, E) and their features (E, edge_dim), as (S, out_channels)."""
        return self.conv(x, edge_index) if edge_attr is None else self.conv(x, edge_index, edge_attr)


class PatchGNN(nn.Module):
    """Embeds subgraphs by a small graph network: `Subgraphs` of B samples of K to (B, K, width).

    A node's features and random-walk features go through a linear map; each layer adds ReLU(LayerNorm(conv(x))) to x;
    a token is the mean of its nodes, or its first node. No message passes between subgraphs, so a hidden one cannot
    leak, and an empty one is all zeros. (Graph-JEPA, Skenderi et al. 2023.)

    Deviation: there, BatchNorm follows the convolutions. Its statistics run over the nodes of all patches and samples,
    hidden ones too.

    Args:
        width: channels of a token.
        features: numbers F of a node.
        walk: random-walk features W of a node.
        edge_features: numbers G of an edge; 0 for none. They reach layers whose constructor takes `edge_dim` and whose
            forward takes `edge_attr`; others know nothing of them.
        conv: builds a layer.
        layers: number of layers.
        node_walks: False leaves random-walk features out of the nodes.
        readout: "mean" of a subgraph's nodes; or "root", the first, which hears from the others by the layers alone.

    Raises:
        ValueError: a setting is out of range, or nodes are left with no features; when called: a layer's output has
            another width.
    """

    def __init__(
        self,
        width: int,
        *,
        features: int,
        walk: int,
        edge_features: int = 0,
        conv: ConvFactory = GINE,
        layers: int = 2,
        node_walks: bool = True,
        readout: Readout = "mean",
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        if readout not in ("mean", "root"):
            raise ValueError(f"readout must be mean or root, got {readout!r}")
        channels = features + (walk if node_walks else 0)
        if channels < 1:
            raise ValueError("nodes without features need their random-walk features: set node_walks to true")
        self.node_walks = node_walks
        self.readout = readout
        self.width = width
        given = {"edge_dim": edge_features} if edge_features and _wants(conv, "edge_dim") else {}
        self.first = nn.Linear(channels, width)
        self.convs = nn.ModuleList(conv(width, width, **given) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        takes_edges = "edge_attr" in inspect.signature(self.convs[0].forward).parameters
        self.uses_edges = bool(edge_features) and takes_edges and _accepts(conv, "edge_dim")

    def forward(self, graphs: Subgraphs) -> Tensor:
        """Embed subgraphs."""
        x = graphs.nodes[graphs.members]
        if self.node_walks:
            x = torch.cat([x, graphs.walks[graphs.members].to(x.dtype)], dim=1)
        x = self.first(x.to(self.first.weight.dtype))
        given: dict[str, Tensor] = {}
        if self.uses_edges and graphs.edge_features is not None:
            given["edge_attr"] = graphs.edge_features.to(x.dtype)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            messages = conv(x, graphs.edges, **given)
            if messages.shape != x.shape:
                raise ValueError(
                    f"a layer of {type(conv).__name__} gives {tuple(messages.shape)} for nodes {tuple(x.shape)}: its "
                    "width must not change (of several heads, take the mean: concat: false)"
                )
            x = x + F.relu(norm(messages))
        read = firsts if self.readout == "root" else means
        return read(x, graphs.patch, graphs.size[0] * graphs.size[1]).unflatten(0, graphs.size)


def means(values: Tensor, group: Tensor, count: int) -> Tensor:
    """Average `values` (S, D) by `group` (S,), of `count` groups: (count, D), zeros for empty groups."""
    total = values.new_zeros(count, values.shape[1]).index_add(0, group, values)
    sizes = values.new_zeros(count).index_add(0, group, values.new_ones(group.shape[0]))
    return total / sizes.clamp(min=1).unsqueeze(1)


def firsts(values: Tensor, group: Tensor, count: int) -> Tensor:
    """Take the first of `values` (S, D) of each `group` (S,), ascending, of `count`: (count, D), or zeros."""
    first = F.pad(group, (1, 0), value=-1)[:-1] != group
    return values.new_zeros(count, values.shape[1]).index_add(0, group, values.where(first.unsqueeze(1), 0.0))


def _unwrapped(conv: Any) -> tuple[Any, dict[str, Any]]:
    """Find the class or function behind partials, also those of the command line's parser, and their keywords."""
    keywords: dict[str, Any] = {}
    while isinstance(conv, partial):
        keywords = {**conv.keywords, **keywords}
        conv = next((value for value in conv.args if inspect.isclass(value)), conv.func)
    return conv, keywords


def _accepts(conv: ConvFactory, name: str) -> bool:
    """Tell whether the factory has the parameter `name`."""
    return name in inspect.signature(_unwrapped(conv)[0]).parameters


def _wants(conv: ConvFactory, name: str) -> bool:
    """Tell whether the factory has the parameter `name` and nobody has set it yet."""
    return _accepts(conv, name) and _unwrapped(conv)[1].get(name) is None
