"""Names that programs of DGL may use. Layers map WIDTH features to WIDTH, which is 16 because narrower products are
left to DGL.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("DGLBACKEND", "pytorch")

import dgl
import dgl.function as fn
import dgl.nn
import numpy
import torch
from dgl.nn.functional import edge_softmax
from torch.utils.checkpoint import checkpoint

from . import tools
from .script import Start

WIDTH = 16


def aggregated(graph: Any, message: Any, reduce: Any, h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Run update_all in a local scope on node data h and edge data w, and return the node data o.

    w is a vector and is stored as a column.
    """
    with graph.local_scope():
        graph.ndata["h"], graph.edata["w"] = h, w.view(-1, 1)
        graph.update_all(message, reduce)
        return graph.ndata["o"]


def two_relations(u: torch.Tensor, v: torch.Tensor) -> Any:
    """Return a graph of one node type whose relation r2 is the reverse of r1."""
    ends = {("n", "r1", "n"): (u, v), ("n", "r2", "n"): (v, u)}
    return dgl.heterograph(ends, num_nodes_dict={"n": tools.NODES})


def over_relations(graph: Any, message: Any, reduce: Any, h: torch.Tensor) -> torch.Tensor:
    """Run multi_update_all over both relations and return the sum of their results."""
    with graph.local_scope():
        graph.ndata["h"] = h
        graph.multi_update_all({"r1": (message, reduce), "r2": (message, reduce)}, "sum")
        return graph.ndata["o"]


_TOOLS = {
    "torch": torch, "numpy": numpy, "dgl": dgl, "fn": fn, "edge_softmax": edge_softmax, "checkpoint": checkpoint,
    "edges": tools.edges, "two_relations": two_relations, "over_relations": over_relations, "aggregated": aggregated,
}  # fmt: skip


def namespace(start: Start, show: Callable[[Any], None], plugin: Any) -> tools.Namespace:
    """Return all names of a program, with fresh tensors.

    Args:
        start: the program's start.
        show: records a value.
        plugin: the object that the name `gnna_plugin` refers to.
    """
    dtype, width = getattr(torch, start.dtype), WIDTH
    names: tools.Namespace
    layers: dict[str, Callable[[], torch.nn.Module]] = {
        "graph_conv": lambda: dgl.nn.GraphConv(width, width, allow_zero_in_degree=True),
        "gat": lambda: dgl.nn.GATConv(width, width // 2, 2, allow_zero_in_degree=True),
        "sage": lambda: dgl.nn.SAGEConv(width, width, "mean"),
        "sage_pool": lambda: dgl.nn.SAGEConv(width, width, "pool"),
        "gin": lambda: dgl.nn.GINConv(None, "max"),
    }
    makers: dict[str, Callable[[], Any]] = {
        "x": lambda: tools.features("x", width, dtype, start.coarse).requires_grad_(),
        "w": lambda: torch.nn.Parameter(tools.weights("w", dtype)),
        "c": lambda: tools.weights("c", dtype),
        "u": lambda: tools.edges(0)[0].clone(),
        "v": lambda: tools.edges(0)[1].clone(),
        "array_u": lambda: tools.edges(0)[0].numpy().copy(),
        "array_v": lambda: tools.edges(0)[1].numpy().copy(),
        "g": lambda: dgl.graph((names["u"], names["v"]), num_nodes=tools.NODES),
        "hetero": lambda: two_relations(names["u"], names["v"]),
        "optimiser": lambda: torch.optim.SGD([names["w"], names["x"]], 0.1),
    }
    makers |= {name: lambda make=make: make().to(dtype) for name, make in layers.items()}
    names = tools.Namespace(makers, **_TOOLS, show=show, gnna_plugin=plugin)
    return names
