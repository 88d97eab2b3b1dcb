"""Defines a graph as checked NumPy arrays, with their shapes and dtypes.

This file does not depend on torch, a framework or a file format.
"""

from dataclasses import dataclass

import numpy as np

# A number of nodes above both bounds means a damaged file or ids that are not 0 .. N-1. Arrays of that length would
# exhaust the memory.
_MANY_NODES, _NODES_PER_EDGE = 10_000_000, 64


@dataclass(frozen=True)
class Graph:
    """A directed graph.

    Edge e carries a message from node ``src[e]`` to node ``dst[e]``. Arrays that a source does not give are None.

    Attributes:
        src, dst: int64 [E], values in [0, num_nodes).
        x: float32 [num_nodes, F].
        y: int64 [num_nodes], values of 0 or more.
        train_mask, val_mask, test_mask: bool [num_nodes].
    """

    name: str
    num_nodes: int
    src: np.ndarray
    dst: np.ndarray
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    train_mask: np.ndarray | None = None
    val_mask: np.ndarray | None = None
    test_mask: np.ndarray | None = None

    @property
    def num_edges(self):
        """Return the number of directed edges.

        An undirected edge that is stored both ways counts twice.
        """
        return len(self.src)


def row_normalised(x):
    """Return a copy of ``x``, float32 [N, F], with each row divided by its sum.

    Rows that sum to 0 are not changed.
    """
    total = x.sum(axis=1, keepdims=True, dtype=np.float32)
    return x / np.where(total == 0, np.float32(1), total)


def too_many_nodes(num_nodes, num_edges):
    """Return whether ``num_nodes`` is implausible for a file with ``num_edges``."""
    return num_nodes > max(_MANY_NODES, _NODES_PER_EDGE * num_edges)


def first_line(error):
    """Return the first line of an exception's text, or else its class name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
