"""renumber(): gives nodes of a community consecutive ids, and reorders features, labels and edges accordingly.

This file owns the choice of the order and of the framework. The adapter knows what a framework's graph holds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnna_plugin.frameworks import framework_of
from gnna_plugin.orders import degree_order, inverse, rabbit_order

_ACCEPTED = "a homogeneous graph: torch_geometric.data.Data, or a DGLGraph of one node type and one edge type"


class Renumbered(NamedTuple):
    """Result of renumber().

    Attributes:
        graph: a new graph of the same type.
        permutation: [N] int64, the old number of each new node: `new_x = old_x[permutation]`.
        inverse: [N] int64, the new number of each old node. `result[inverse]` puts a result for the new graph into the
            old order.
        edge_permutation: [E] int64, the old position of each new edge.
    """

    graph: Any
    permutation: Tensor
    inverse: Tensor
    edge_permutation: Tensor


def renumber(graph: Any, order: str | Tensor = "rabbit") -> Renumbered:
    """Return a copy of a graph with its nodes renumbered.

    Features, labels, masks, edges and edge attributes are reordered with the nodes. Edges are sorted by their new
    destination, then by their new source. The argument is not changed.

    The plug-in finds schedules for its plans on its own, which give its kernels most of the same gain without moving
    data. Renumbering also helps everything else that reads neighbours, such as the framework's own operations, samplers
    and other tools. In return, results have to be put back into the old order.

    Args:
        graph: torch_geometric.data.Data, or a homogeneous DGLGraph.
        order: "rabbit" (by community, see gnna_plugin.orders.rabbit_order), "degree" (descending in-degree), or the old
            nodes in their new order, a permutation int64 [N].

    Returns:
        A Renumbered.

    Raises:
        TypeError: the graph is of another kind, such as HeteroData or a heterogeneous DGLGraph.
        ValueError: the graph has no edge list, holds its edges as a sparse matrix, or is a batch of graphs; or order is
            unknown or no permutation.

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
    """Return the old nodes in the requested order, int64 [N] on edge_index's device."""
    if isinstance(order, Tensor):
        ids = torch.arange(num_nodes, device=order.device)
        if order.dim() != 1 or order.is_floating_point() or not order.long().sort().values.equal(ids):
            raise ValueError(f"order is a tensor of shape {list(order.shape)}; it must be a permutation of 0 to N - 1, "
                             f"where N is {num_nodes}")  # fmt: skip
        return order.to(edge_index.device, torch.int64)
    if order == "rabbit":
        return rabbit_order(edge_index, num_nodes).order
    if order == "degree":
        return degree_order(edge_index, num_nodes)
    raise ValueError(f"order is {order!r}; accepted are 'rabbit', 'degree' or a permutation int64 [N]")
