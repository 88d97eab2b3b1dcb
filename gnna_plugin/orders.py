"""Orders for renumbering a graph's nodes: by community (Rabbit order) and by degree.

An order gives the old node of every new position. `x[order]` reorders features, and `inverse(order)[edge_index]`
renumbers edges. A plan's schedule also orders rows by community or degree, but moves no features
(csrc/torch/plan/schedule.h).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RabbitOrder(NamedTuple):
    """Result of rabbit_order().

    Attributes:
        order: [N] int64, the old node of every new position.
        community: [N] int64, the community of every old node, numbered from 0 along the order.
    """

    order: Tensor
    community: Tensor


def rabbit_order(edge_index: Tensor, num_nodes: int) -> RabbitOrder:
    """Order nodes by community (Rabbit Order, Arai et al., IPDPS 2016).

    The nodes of a community, and of each community inside it, are consecutive in the order. In ascending order of
    degree, each node joins the neighbouring community with the highest gain in modularity. The resulting dendrograms
    are numbered depth first.

    Edge directions and self-loops are ignored, and repeated edges count each time. Nodes without edges come last. Runs
    on torch's CPU threads, at 10 million edges per second or more on two threads. The order does not depend on the
    number of threads.

    Args:
        edge_index: [2, E], int32 or int64, on any device; row 0 holds the sources, row 1 the destinations.
        num_nodes: number of nodes N.

    Returns:
        A RabbitOrder on edge_index's device.

    Raises:
        ValueError: an index is out of range, or the shape is not [2, E].
        TypeError: the indices are not int32 or int64.

    >>> import torch
    >>> from gnna_plugin.orders import rabbit_order
    >>> rabbit_order(torch.tensor([[0, 2, 1, 3], [2, 0, 3, 1]]), 4).order
    tensor([2, 0, 3, 1])
    """
    src, dst = _ends(edge_index)
    found = torch.ops.gnna.rabbit_order(src.cpu(), dst.cpu(), num_nodes)
    return RabbitOrder(*(t.to(edge_index.device, torch.int64) for t in found))


def degree_order(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Order nodes by descending in-degree. Nodes of equal degree keep their order.

    Args, Raises: as for rabbit_order().

    Returns:
        [N] int64 on edge_index's device, the old node of every new position.
    """
    src, dst = _ends(edge_index)
    order = torch.ops.gnna.degree_order(src.cpu(), dst.cpu(), num_nodes)
    return order.to(edge_index.device, torch.int64)


def inverse(order: Tensor) -> Tensor:
    """Return the new number of every old node, [N] int64.

    It satisfies inverse(order)[order[i]] = i.
    """
    places = torch.empty_like(order)
    places[order] = torch.arange(order.numel(), dtype=order.dtype, device=order.device)
    return places


def _ends(edge_index: Tensor) -> tuple[Tensor, Tensor]:
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"edge_index has shape {list(edge_index.shape)}; it must be [2, number of edges]")
    return edge_index[0], edge_index[1]
