"""Orders of a graph's nodes, to renumber it with: by community (Rabbit order) and by degree. An order lists, for every
place, the node that is to stand there; `x[order]` puts features into it, `inverse(order)[edge_index]` the edges.

A plan's schedule uses the same orders without moving anything (csrc/torch/plan/schedule.h).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RabbitOrder(NamedTuple):
    """order [N] int64: the node at each place. community [N] int64: every node's, numbered from 0 along the order."""

    order: Tensor
    community: Tensor


def rabbit_order(edge_index: Tensor, num_nodes: int) -> RabbitOrder:
    """Orders nodes so that communities, and the communities inside them, are neighbours (Arai et al., Rabbit Order,
    IPDPS 2016): each node, by ascending degree, joins the neighbouring community that gains most modularity, and the
    dendrograms are numbered depth first.

    Directions are ignored, repeated edges count as often as they occur, loops do not; nodes without edges come last.
    Runs on torch's CPU threads, 10 million edges a second or more on two of them; the same graph gives the same order
    on any number of threads.

    Args:
        edge_index: [2, E], int32 or int64, on any device; row 0 sources, row 1 destinations.
        num_nodes: N.

    Returns:
        RabbitOrder on edge_index's device.

    Raises:
        ValueError: an index out of range, or a shape other than [2, E].
        TypeError: indices that are not int32 or int64.

    >>> import torch
    >>> from gnna_plugin.orders import rabbit_order
    >>> rabbit_order(torch.tensor([[0, 2, 1, 3], [2, 0, 3, 1]]), 4).order
    tensor([2, 0, 3, 1])
    """
    src, dst = _ends(edge_index)
    found = torch.ops.gnna.rabbit_order(src.cpu(), dst.cpu(), num_nodes)
    return RabbitOrder(*(t.to(edge_index.device, torch.int64) for t in found))


def degree_order(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Orders nodes by descending in-degree, int64 [N] on edge_index's device; equal ones keep their order.

    Arguments and errors as rabbit_order's.
    """
    src, dst = _ends(edge_index)
    order = torch.ops.gnna.degree_order(src.cpu(), dst.cpu(), num_nodes)
    return order.to(edge_index.device, torch.int64)


def inverse(order: Tensor) -> Tensor:
    """The new number of every node: inverse(order)[order[i]] = i. int64 [N]."""
    places = torch.empty_like(order)
    places[order] = torch.arange(order.numel(), dtype=order.dtype, device=order.device)
    return places


def _ends(edge_index: Tensor) -> tuple[Tensor, Tensor]:
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"edge_index has shape {list(edge_index.shape)}; it must be [2, number of edges]")
    return edge_index[0], edge_index[1]
