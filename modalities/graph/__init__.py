"""Graphs: JEPA on overlapping subgraphs, with its data."""

from modalities.graph import requirements  # noqa: F401  first: it says what to install
from modalities.graph.data import GraphData
from modalities.graph.embedding import GINE, PatchGNN
from modalities.graph.modality import Graph
from modalities.graph.tables import CsvNetwork
from modalities.graph.tokenizer import GraphTokenizer
from modalities.graph.transforms import GraphViews

__all__ = ["GINE", "CsvNetwork", "Graph", "GraphData", "GraphTokenizer", "GraphViews", "PatchGNN"]
