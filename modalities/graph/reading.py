"""From what a dataset gives, PyG's `Data` most often, to a `RawGraph` and its labels."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.data import DataError
from modalities.graph.graphs import RawGraph

if TYPE_CHECKING:
    from torch_geometric.data import Data


def to_graph(data: Data | RawGraph, *, features: int, edge_features: int) -> RawGraph:
    """Give a graph the features that a model wants.

    Float columns are taken as they are; a single column of integers, (n,) or (n, 1), holds types, which become one-hot
    columns (ZINC: 28 atoms, 4 bonds), unless one feature is wanted. Features that are not wanted are left out.

    Args:
        data: PyG's, with `x`, `edge_index`, `edge_attr` and `num_nodes` as far as it has them; or a `RawGraph`.
        features: F, numbers of a node; 0 leaves them out.
        edge_features: G, numbers of an edge; 0 leaves them out.

    Raises:
        DataError: the graph has other features than wanted; the message names the setting.
        ValueError: a broken graph: features that are not finite, edges that name no node.
    """
    if isinstance(data, RawGraph):
        x, edges, attributes, nodes = data.nodes, data.edges, data.edge_features, len(data.nodes)
    elif hasattr(data, "edge_index") and hasattr(data, "edge_attr"):
        x, edges, attributes, nodes = data.x, data.edge_index, data.edge_attr, _count(data)
    else:
        raise DataError(
            f"expected graphs as torch_geometric.data.Data from the dataset, got {type(data).__name__}: "
            "have it return Data, or (Data, label)"
        )
    edges = torch.zeros(2, 0, dtype=torch.int64) if edges is None else edges.long()
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise ValueError(f"expected edges (2, E), got {tuple(edges.shape)}")
    if edges.numel() and not (edges.min() >= 0 and edges.max() < nodes):
        raise ValueError(f"expected edges between nodes 0 to {nodes - 1}, got {int(edges.min())} to {int(edges.max())}")
    return RawGraph(
        nodes=_columns(x, rows=nodes, wanted=features, what="node", setting="features"),
        edges=edges.contiguous(),
        edge_features=_columns(
            attributes, rows=edges.shape[1], wanted=edge_features, what="edge", setting="edge_features"
        )
        if edge_features
        else None,
    )


def labels_of(data: Data | RawGraph) -> dict[str, Tensor]:
    """Find the label of PyG's `Data`, under the name label: `y` as int64 (a class) or float32, a number or k of them.

    Without a `y`, or with the class -1, there is none.

    Raises:
        DataError: `y` holds several classes.
    """
    y = getattr(data, "y", None)
    if y is None:
        return {}
    y = torch.as_tensor(y)
    if y.numel() == 1:
        y = y.reshape(())
    elif y.ndim == 2 and y.shape[0] == 1:
        y = y[0]
    if y.is_floating_point():
        return {"label": y.float()}
    if y.ndim:
        raise DataError(
            f"expected y of a graph to be one class or float numbers, got integers of shape {tuple(y.shape)}: "
            "give the dataset a transform that makes it one class, or floats"
        )
    return {} if y == -1 else {"label": y.long()}


def _count(data: Data) -> int:
    """Number of nodes, also where only the edges tell."""
    if "num_nodes" not in data and data.x is not None:
        return len(data.x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it was inferred
        return data.num_nodes or 0


def _columns(values: Any, *, rows: int, wanted: int, what: str, setting: str) -> Tensor:
    """Convert features to (rows, wanted) float32."""
    if wanted == 0:
        return torch.zeros(rows, 0)
    option = f"--model.modality.{setting}"
    if values is None:
        if what == "edge" and rows == 0:
            return torch.zeros(0, wanted)
        raise DataError(f"expected {wanted} {what} features, got graphs without any: set {option} 0")
    if len(values) != rows:
        raise ValueError(f"expected features of {rows} {what}s, got {len(values)}")
    if values.ndim == 1:
        values = values[:, None]
    types = not values.is_floating_point() and values.shape[1:] == (1,)
    if types and wanted > 1:
        highest = int(values.max()) if rows else 0
        if rows and values.min() < 0:
            raise ValueError(f"expected {what} types from 0 on, got {int(values.min())}")
        if highest >= wanted:
            raise DataError(
                f"expected {what} types from 0 to {wanted - 1}, got {highest}: set {option} to the number of types, at "
                f"least {highest + 1}"
            )
        return F.one_hot(values[:, 0].long(), wanted).float()
    if values.ndim != 2 or values.shape[1] != wanted:
        have = values.shape[1] if values.ndim == 2 else 0
        if not have and values.ndim == 2:
            if what == "edge" and rows == 0:
                return torch.zeros(0, wanted)
            raise DataError(f"expected {wanted} {what} features, got graphs without any: set {option} 0")
        raise DataError(
            f"expected {wanted} {what} features, got features of shape {tuple(values.shape)}: set {option} {have}"
        )
    values = values.float()
    if not values.isfinite().all():
        raise ValueError(f"expected finite {what} features, got NaN or infinite ones")
    return values
