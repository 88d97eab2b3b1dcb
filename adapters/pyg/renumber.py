"""Renumbers a PyG Data. PyG's conventions for batching say which attributes belong to nodes, which belong to edges, and
which hold node numbers.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data


def edges(data: Any, accepted: str) -> tuple[Tensor, int]:
    """Return (edge_index [2, E], number of nodes) of a Data that can be renumbered.

    Args:
        accepted: the accepted kinds of graphs in words, for the error message.

    Raises:
        TypeError: data is not a Data.
        ValueError: data is a batch, contains a sparse matrix, or has no edge_index [2, E].
    """
    if not isinstance(data, Data):
        raise TypeError(f"{type(data).__name__} cannot be renumbered; accepted is {accepted}")
    if isinstance(data, Batch):
        raise ValueError(
            f"the graph is a {type(data).__name__} of {data.num_graphs} graphs; renumber each before batching"
        )
    sparse = [key for key, value in data if _is_sparse(value)]
    if sparse:
        raise ValueError(
            f"data.{sparse[0]} is a sparse matrix; renumber the graph with its edge_index, then convert it"
        )
    if not isinstance(data.edge_index, Tensor) or data.edge_index.dim() != 2 or data.edge_index.size(0) != 2:
        raise ValueError("the data has no edge_index [2, E] to renumber by")
    return data.edge_index.as_subclass(Tensor), int(data.num_nodes)


def _is_sparse(value: Any) -> bool:
    return type(value).__name__ == "SparseTensor" or (isinstance(value, Tensor) and value.layout != torch.strided)


def move(data: Data, permutation: Tensor, inverse: Tensor, edge_index: Tensor, edge_permutation: Tensor) -> Data:
    """Return a copy of data with all attributes renumbered or moved.

    Args:
        permutation: the old number of each new node, int64 [N].
        inverse: the new number of each old node, int64 [N].
        edge_index: the new edges, int64 [2, E].
        edge_permutation: the old position of each new edge, int64 [E].
    """
    # Determined before anything changes, because PyG compares attributes with the numbers of nodes and edges.
    of_nodes = {key for key in data.keys() if data.is_node_attr(key)}
    of_edges = {key for key in data.keys() if data.is_edge_attr(key)}
    moved = copy.copy(data)
    moved.num_nodes = data.num_nodes  # nodes without edges or features stay nodes
    for key, value in data:
        if key == "edge_index":
            moved[key] = edge_index.to(value.dtype)
        elif isinstance(value, Tensor) and _holds_nodes(key, value):
            moved[key] = _renumbered(key, value, inverse)
        elif key in of_nodes:
            moved[key] = _picked(value, permutation, data.__cat_dim__(key, value))
        elif key in of_edges:
            moved[key] = _picked(value, edge_permutation, data.__cat_dim__(key, value))
    return moved


def _holds_nodes(key: str, value: Tensor) -> bool:
    """Return whether an attribute holds node numbers.

    PyG offsets these when it batches graphs (Data.__inc__).
    """
    integral = not value.is_floating_point() and value.dtype != torch.bool
    return integral and ("index" in key or key == "face") and "batch" not in key


def _renumbered(key: str, value: Tensor, inverse: Tensor) -> Tensor:
    if value.numel() and not 0 <= int(value.min()) <= int(value.max()) < inverse.numel():
        raise ValueError(f"data.{key} holds node numbers from {int(value.min())} to {int(value.max())}; valid are 0 to "
                         f"{inverse.numel() - 1}")  # fmt: skip
    return inverse[value.long()].to(value.dtype)


def _picked(value: Any, places: Tensor, dim: int) -> Any:
    if isinstance(value, Tensor):
        return value.index_select(dim, places.to(value.device))
    at = places.tolist()
    return value[at] if hasattr(value, "dtype") else type(value)(value[i] for i in at)  # an array, or a list
