"""The graph modality: METIS patches, Graph-JEPA's masks, a small graph network and a ViT."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from jepa_lightning.encoders import LinearPositions, TokenSpec, ViT
from jepa_lightning.maskers import Masker, RandomCount
from jepa_lightning.modality import Batch, EncoderFactory, Modality
from jepa_lightning.pictures.drawing import role_colours, roles
from jepa_lightning.tokens import Masks, Tokens
from modalities.graph import pictures
from modalities.graph.embedding import GINE, ConvFactory, PatchGNN, Readout
from modalities.graph.graphs import RawGraph, once
from modalities.graph.tokenizer import GraphTokenizer

_DEGREES = 16  # bins of the raw features' histogram


class Graph(Modality):
    """Graphs as overlapping subgraphs (Graph-JEPA, Skenderi et al. 2023, arXiv:2309.16014).

    Batches hold `graph`, see `GraphTokenizer`. A token is a patch, which `PatchGNN` embeds; its position is the pooled
    random-walk features of its nodes, which a linear map embeds, one of the encoder's and one of the predictor's own.

    Args:
        features: numbers F of a node; 0 for none.
        edge_features: numbers G of an edge; 0 for none, or to leave out those that the data have.
        patches: METIS patches of a graph; one of fewer nodes gets one patch a node.
        hops: neighbourhood that enlarges a patch.
        walk: number W of random-walk features: of returning after 1, 2, ... W steps.
        positions: how a patch pools its nodes' random-walk features, "max" or "mean"; the same in training and
            evaluation.
        layers: graph layers.
        conv: builds a graph layer from (in_channels, out_channels): `GINE`, or a class of `torch_geometric.nn`.
        node_walks: whether nodes have their random-walk features beside their own.
        readout: what a patch's nodes become: their "mean"; or "root", the first of them, for samples that are about one
            node (`data.radius`), with one patch.
        standardize: each number of nodes and of edges less its mean and by its standard deviation, which come from
            the training set; types and words, which are 0 or 1, stay as they are. For measurements (ages, lengths):
            those on the largest scale would drown the others.
        encoder: builds the encoder from the token spec: `ViT` or your own `Encoder`.
        masker: draws contexts and targets; one patch and four others by default.

    Raises:
        ValueError: a setting is out of range.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from torch_geometric.data import Data
        >>> from jepa_lightning.encoders import ViT
        >>> from modalities.graph import Graph
        >>> graph = Graph(features=4, patches=3, walk=8, encoder=partial(ViT, width=32, depth=1, heads=2))
        >>> ring = torch.stack([torch.arange(6), torch.arange(1, 7) % 6])
        >>> data = Data(x=torch.randn(6, 4), edge_index=torch.cat([ring, ring.flip(0)], dim=1))
        >>> tokens = graph.tokenizer({"graph": [data, data]})
        >>> tokens.positions.shape, graph.encoder(tokens).shape
        (torch.Size([2, 3, 8]), torch.Size([2, 3, 32]))
    """

    name = "graph"
    masks_legend = (
        "Blue: nodes of the context. Orange, red, yellow, purple: nodes of target blocks only. Grey: neither."
    )

    def __init__(
        self,
        *,
        features: int = 0,
        edge_features: int = 0,
        patches: int = 32,
        hops: int = 1,
        walk: int = 16,
        positions: Literal["max", "mean"] = "max",
        layers: int = 2,
        conv: ConvFactory = GINE,
        node_walks: bool = True,
        readout: Readout = "mean",
        standardize: bool = False,
        encoder: EncoderFactory = ViT,
        masker: Masker | None = None,
    ) -> None:
        if readout == "root" and patches != 1:
            raise ValueError(
                f"readout root reads the one node that a sample is about: expected patches 1, got {patches}"
            )
        self.tokenizer: GraphTokenizer = GraphTokenizer(
            features=features,
            edge_features=edge_features,
            patches=patches,
            hops=hops,
            walk=walk,
            positions=positions,
            standardize=standardize,
        )
        self.features = features
        self.edge_features = edge_features
        self.patches = patches
        self.hops = hops
        self.walk = walk
        self.standardize = standardize
        self.spec = TokenSpec(
            shape=(features,),
            grid=None,
            positions=partial(LinearPositions, axes=walk),
            axes=walk,
            embed=partial(
                PatchGNN,
                features=features,
                walk=walk,
                edge_features=edge_features,
                conv=conv,
                layers=layers,
                node_walks=node_walks,
                readout=readout,
            ),
        )
        self.masker = masker or RandomCount()
        self.encoder = encoder(self.spec)

    @torch.no_grad()
    def draw_masks(self, batch: Batch, masks: list[Masks]) -> list[Tensor]:
        """A row a sample, a graph for each draw: context nodes in blue, those of targets in warm colours.

        A node in patches of several kinds counts as context first, then as target.
        """
        graphs = self.tokenizer.joined(batch)
        shown = []
        for mask in masks:
            of_member = roles(mask, graphs.tokens).cpu().flatten()[graphs.patch.cpu()]
            strongest = torch.zeros(len(graphs.nodes), dtype=torch.int64)
            strongest.scatter_reduce_(0, graphs.members.cpu(), of_member, "amax")
            shown.append(role_colours(mask.targets.shape[1])[strongest])
        return pictures.graphs(graphs, shown)

    @torch.no_grad()
    def draw_features(self, batch: Batch, tokens: Tokens, colours: Tensor) -> list[Tensor]:
        """A row a sample: the graph, each node in the mean colour of its patches."""
        graphs = self.tokenizer.joined(batch)
        of_member = colours.detach().float().cpu().flatten(0, 1)[graphs.patch.cpu()]
        summed = torch.zeros(len(graphs.nodes), 3).index_add(0, graphs.members.cpu(), of_member)
        times = graphs.members.cpu().bincount(minlength=len(graphs.nodes)).clamp(min=1)
        return pictures.graphs(graphs, [summed / times[:, None]])

    @torch.no_grad()
    def example(self, count: int, generator: torch.Generator) -> Batch:
        """Rings with chords, of different sizes."""
        graphs = []
        for number in range(count):
            nodes = 24 + 5 * number
            ring = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
            chords = torch.randint(nodes, (2, nodes // 2), generator=generator)
            edges = torch.cat([ring, chords[:, chords[0] != chords[1]]], dim=1)
            edges = torch.cat([edges, edges.flip(0)], dim=1)
            features = torch.randn(edges.shape[1], self.tokenizer.edge_features, generator=generator)
            graphs.append(
                RawGraph(
                    nodes=torch.randn(nodes, self.features, generator=generator),
                    edges=edges,
                    edge_features=features if self.tokenizer.edge_features else None,
                )
            )
        return {"graph": graphs}

    def draw_samples(self, batch: Batch) -> list[Tensor]:
        """Each graph, its nodes coloured by their type where their features are one (a single 1), else grey."""
        graphs = self.tokenizer.joined(batch)
        return pictures.graphs(graphs, [pictures.type_colours(graphs.nodes)])

    @torch.no_grad()
    def raw_features(self, batch: Batch) -> Tensor:
        """The sum of the nodes' features (of types: how many nodes have each) and a histogram of degrees: (B, F + 16).

        Degrees of 15 and more are counted together. Without `hops`, edges between patches are not there to be counted.
        """
        graphs = self.tokenizer.joined(batch)
        nodes = graphs.nodes.float()
        graph_of = torch.zeros(len(nodes), dtype=torch.int64, device=nodes.device)
        graph_of[graphs.members] = graphs.patch // graphs.tokens
        edges = once(graphs.members[graphs.edges], len(nodes))  # an edge is in every patch that has both its ends
        degrees = edges[0].bincount(minlength=len(nodes)).clamp(max=_DEGREES - 1)
        types = nodes.new_zeros(len(graphs), nodes.shape[1]).index_add(0, graph_of, nodes)
        counts = (graph_of * _DEGREES + degrees).bincount(minlength=len(graphs) * _DEGREES)
        return torch.cat([types, counts.view(-1, _DEGREES).float()], dim=1)
