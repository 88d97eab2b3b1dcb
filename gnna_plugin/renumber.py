"""renumber(): moves a graph's nodes so that communities are neighbours, with all that belongs to them. This file owns
the choice of the order and of the framework; what a framework's graph carries is known to its adapter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnna_plugin.frameworks import framework_of
from gnna_plugin.orders import degree_order, inverse, rabbit_order

_ACCEPTED = "a homogeneous graph: torch_geometric.data.Data, or a DGLGraph of one node type and one edge type"


class Renumbered(NamedTuple):
    """graph: a new graph of the same type. permutation [N] int64: the old number of each new node, so that
    `new_x = old_x[permutation]`. inverse [N] int64: the new number of each old node, so that a result for the new graph
    is `result[inverse]` in the old order. edge_permutation [E] int64: the old position of each new edge.
    """

    graph: Any
    permutation: Tensor
    inverse: Tensor
    edge_permutation: Tensor


def renumber(graph: Any, order: str | Tensor = "rabbit") -> Renumbered:
    """Renumbers the nodes of a graph and moves features, labels, masks, edges and edge attributes along; the argument
    stays as it is. Edges are sorted by their new destination, then by source.

    A plan's schedule gives most of the gain without touching anything, and is found on its own; renumbering serves what
    else walks over neighbours (the framework's own operations, samplers, other tools), and costs the bookkeeping below.

    Args:
        graph: torch_geometric.data.Data, or a homogeneous DGLGraph.
        order: "rabbit" (communities, gnna_plugin.orders.rabbit_order), "degree" (descending in-degree), or the nodes in
            their new order, a permutation int64 [N].

    Raises:
        TypeError: another kind of graph, such as HeteroData or a heterogeneous DGLGraph.
        ValueError: a graph without edges to go by, one that is a batch of graphs or holds its edges as a sparse matrix;
            an unknown order, or one that is no permutation.

    >>> import torch, gnna_plugin
    >>> from torch_geometric.data import Data
    >>> data = Data(x=torch.arange(4.0).view(4, 1), edge_index=torch.tensor([[0, 2, 1, 3], [2, 0, 3, 1]]))
    >>> new, permutation, inverse, _ = gnna_plugin.renumber(data)
    >>> new.x.flatten(), new.x[inverse].equal(data.x)
    (tensor([2., 0., 3., 1.]), True)
    """
    framework = framework_of(graph)
    if framework is None:
        raise TypeError(f"{type(graph).__name__} cannot be renumbered; accepted is {_ACCEPTED}")
    adapter = framework.load("renumber")
    edge_index, num_nodes = adapter.edges(graph, _ACCEPTED)
    permutation = find_order(order, edge_index, num_nodes)
    places = inverse(permutation)
    src, dst = places[edge_index.long()]
    by_source = torch.argsort(src, stable=True)
    edge_permutation = by_source[torch.argsort(dst[by_source], stable=True)]
    moved = adapter.move(graph, permutation, places, torch.stack([src, dst])[:, edge_permutation], edge_permutation)
    return Renumbered(moved, permutation, places, edge_permutation)


def find_order(order: str | Tensor, edge_index: Tensor, num_nodes: int) -> Tensor:
    """The nodes in the order asked for, int64 [N] on edge_index's device."""
    if isinstance(order, Tensor):
        ids = torch.arange(num_nodes, device=order.device)
        if order.dim() != 1 or order.is_floating_point() or not order.long().sort().values.equal(ids):
            raise ValueError(f"order is a tensor of shape {list(order.shape)}; it must be a permutation of 0 to N - 1, "
                             f"N being {num_nodes}")  # fmt: skip
        return order.to(edge_index.device, torch.int64)
    if order == "rabbit":
        return rabbit_order(edge_index, num_nodes).order
    if order == "degree":
        return degree_order(edge_index, num_nodes)
    raise ValueError(f"order is {order!r}; accepted are 'rabbit', 'degree' or a permutation int64 [N]")
