"""Renumbers a homogeneous DGLGraph with its node and edge data."""

from __future__ import annotations

from typing import Any

import dgl
import torch
from torch import Tensor


def edges(graph: Any, accepted: str) -> tuple[Tensor, int]:
    """Return (edges [2, E], number of nodes) of a graph that can be renumbered.

    The edges are in the order of their ids.

    Args:
        accepted: the accepted kinds of graphs in words, for the error message.

    Raises:
        TypeError: graph is not a homogeneous DGLGraph, or is a block.
        ValueError: graph is a batch of several graphs.
    """
    if not isinstance(graph, dgl.DGLGraph):
        raise TypeError(f"{type(graph).__name__} cannot be renumbered; accepted is {accepted}")
    if graph.is_block:
        raise TypeError(f"the graph is a block, whose sources and destinations are two sets; accepted is {accepted}")
    if not graph.is_homogeneous:
        raise TypeError(
            f"the graph has {len(graph.ntypes)} node types and {len(graph.canonical_etypes)} edge types; accepted is "
            f"{accepted}"
        )
    if graph.batch_size > 1:
        raise ValueError(f"the graph is a batch of {graph.batch_size} graphs; renumber each before batching")
    return torch.stack(graph.edges(order="eid")), graph.num_nodes()


def move(graph: Any, permutation: Tensor, inverse: Tensor, edge_index: Tensor, edge_permutation: Tensor) -> Any:
    """Return a graph of the new edges with all node and edge data moved.

    It has the same id type.

    Args:
        permutation: the old number of each new node, int64 [N].
        inverse: the new number of each old node, int64 [N].
        edge_index: the new edges, int64 [2, E].
        edge_permutation: the old position of each new edge, int64 [E].
    """
    src, dst = edge_index.to(graph.idtype)
    moved = dgl.graph((src, dst), num_nodes=graph.num_nodes(), idtype=graph.idtype, device=graph.device)
    for name, value in graph.ndata.items():
        moved.ndata[name] = value.index_select(0, permutation)
    for name, value in graph.edata.items():
        moved.edata[name] = value.index_select(0, edge_permutation)
    return moved
