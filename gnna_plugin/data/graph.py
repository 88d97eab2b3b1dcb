"""What a graph is here: checked NumPy arrays. This file owns their shapes and dtypes, and knows no framework, no torch
and no file format.
"""

from dataclasses import dataclass

import numpy as np

# Node ids beyond both bounds mean a damaged file or ids that are no 0 .. N-1: arrays of N would exhaust the machine.
_MANY_NODES, _NODES_PER_EDGE = 10_000_000, 64


@dataclass(frozen=True)
class Graph:
    """A directed graph; edge e carries a message from node ``src[e]`` to node ``dst[e]``.

    ``src`` and ``dst`` are int64 [E] with values in [0, num_nodes); ``x`` is float32 [num_nodes, F]; ``y`` is int64
    [num_nodes] with values of 0 or more; the masks are bool [num_nodes]. What a source does not give is None.
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
        """The number of directed edges, an undirected edge that is stored both ways counting twice."""
        return len(self.src)


def row_normalised(x):
    """Return float32 [N, F] ``x`` with each row divided by its sum (rows that sum to 0 stay), as a new array."""
    total = x.sum(axis=1, keepdims=True, dtype=np.float32)
    return x / np.where(total == 0, np.float32(1), total)


def too_many_nodes(num_nodes, num_edges):
    """Whether a file with ``num_edges`` edges cannot sensibly claim ``num_nodes`` nodes."""
    return num_nodes > max(_MANY_NODES, _NODES_PER_EDGE * num_edges)


def first_line(error):
    """The first line of an exception's text; its class name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
