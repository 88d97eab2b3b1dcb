"""Renumbers the graphs that the command line measures on, and owns the argument --renumber.

gnna_plugin.renumber() does the same for the graphs of a framework.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gnna_plugin.data import Graph

CHOICES = ("no", "rabbit", "rule")
_PER_NODE = ("x", "y", "train_mask", "val_mask", "test_mask")


def add_renumber(parser):
    """Add the argument --renumber to an argparse parser."""
    help_text = (
        "renumber the nodes of every graph first: rabbit (by community), or rule (by community if the paper's rule "
        "says so: sqrt(average edge span) > floor(sqrt(nodes) / 100)); default: no"
    )
    parser.add_argument("--renumber", choices=CHOICES, default="no", help=help_text)


def average_edge_span(graph: Graph) -> float:
    """Return the mean of |src - dst| over the edges, the paper's AES."""
    return float(np.abs(graph.src - graph.dst).mean()) if graph.num_edges else 0.0


def as_asked(graph: Graph, choice: str) -> Graph:
    """Return the graph as --renumber ``choice`` asks for it, one of CHOICES."""
    from gnna_plugin.extractor import paper_renumbers

    if choice == "rabbit" or (choice == "rule" and paper_renumbers(average_edge_span(graph), graph.num_nodes)):
        return renumbered(graph, find_order(graph))
    return graph


def find_order(graph: Graph) -> np.ndarray:
    """Return the Rabbit order of the nodes, int64 [N]: the old node of every new position."""
    import torch

    from gnna_plugin.orders import rabbit_order

    edge_index = torch.stack([torch.from_numpy(graph.src), torch.from_numpy(graph.dst)])
    return rabbit_order(edge_index, graph.num_nodes).order.numpy()


def renumbered(graph: Graph, order: np.ndarray) -> Graph:
    """Return the graph with its nodes, and all that belongs to them, in another order.

    Args:
        graph: the Graph, which is not changed.
        order: int64 [N], the old node of every new position.

    Returns:
        A Graph of the same name. Its edges are sorted by (dst, src).
    """
    places = np.empty_like(order)
    places[order] = np.arange(len(order), dtype=order.dtype)
    keys = np.sort(places[graph.dst] * graph.num_nodes + places[graph.src])
    dst, src = np.divmod(keys, max(graph.num_nodes, 1))
    moved = {name: getattr(graph, name) for name in _PER_NODE}
    return replace(graph, src=src, dst=dst, **{k: None if v is None else v[order] for k, v in moved.items()})
