"""Names that programs of PyG may use. Layers map WIDTH features to WIDTH, so that they can be chained in any order."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy
import torch
import torch.nn.functional as F
import torch_geometric.transforms as T
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch_geometric import nn, utils
from torch_geometric.data import Data
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from . import tools
from .script import Start

WIDTH = 4
_TOOLS = {
    "torch": torch, "F": F, "T": T, "numpy": numpy, "copy": copy, "nn": nn, "utils": utils, "Data": Data,
    "gcn_norm": gcn_norm, "checkpoint": checkpoint, "Pair": tools.Pair, "Square": tools.Square,
    "scripted": tools.scripted, "edges": tools.edges, "twice": tools.twice, "half": tools.half,
    "halved": tools.halved,
}  # fmt: skip


class Layer(nn.MessagePassing):
    """A user's layer whose message() calls body(self, x_j, w), with one weight per edge."""

    def __init__(self, aggr: str, body: Callable) -> None:
        super().__init__(aggr=aggr)
        self.body = body
        self.kept = self.gathered_from = None

    def forward(self, x, edge_index, w):
        self.gathered_from = x
        return self.propagate(edge_index, x=x, w=w)

    def message(self, x_j, w):
        return self.body(self, x_j, w)


class BothEnds(Layer):
    """A Layer whose message() also gets x_i."""

    def message(self, x_i, x_j, w):
        return self.body(self, x_j, w, x_i)


class ReturnsMessages(Layer):
    """A Layer that returns its messages without reducing them."""

    def aggregate(self, inputs, index):
        self.kept = inputs
        return inputs


class RecordsAlways(Layer):
    """A Layer that records its steps for autograd even inside no_grad()."""

    @torch.enable_grad()
    def message(self, x_j, w):
        return self.body(self, x_j, w)

    @torch.enable_grad()
    def aggregate(self, inputs, index, ptr=None, dim_size=None):
        return super().aggregate(inputs, index, ptr, dim_size)


class Saliency(nn.GCNConv):
    """A GCNConv that keeps its normalised weights, so that a program can read their gradient."""

    kept = None

    def message(self, x_j, edge_weight):
        self.kept = edge_weight.requires_grad_()
        return edge_weight.view(-1, 1) * x_j


def layer(aggr: str, *body: str, kind: str = "", show: Callable[[Any], None] = print) -> Layer:
    """Return a layer whose message() runs the statements of `body` and returns `m`.

    In these statements, `m` is the message, `v` a view of it and `a` a weight per edge. Initially `m` and `v` are x_j,
    and `a` is a copy of w as a column.
    """
    source = "def message(self, x_j, w, x_i=None):\n    m = v = x_j\n    a = w.view(-1, 1) * 1\n"
    source += "".join(f"    {line}\n" for line in body) + "    return m\n"
    namespace = {**_TOOLS, "show": show}
    exec(source, namespace)
    made = {"": Layer, "returns messages": ReturnsMessages, "records always": RecordsAlways}[kind]
    made = BothEnds if "x_i" in source.split("\n", 1)[1] else made
    return made(aggr, namespace["message"])


def namespace(start: Start, show: Callable[[Any], None], plugin: Any) -> tools.Namespace:
    """Return all names of a program, with fresh tensors.

    Args:
        start: the program's start.
        show: records a value.
        plugin: the object that the name `gnna_plugin` refers to.
    """
    dtype = getattr(torch, start.dtype)
    width = WIDTH

    def parameter(name: str) -> Tensor:
        return torch.nn.Parameter(tools.weights(name, dtype))

    layers: dict[str, Callable[[], torch.nn.Module]] = {
        "conv": lambda: layer("add"),
        "gcn": lambda: nn.GCNConv(width, width),
        "gcn_cached": lambda: nn.GCNConv(width, width, cached=True),
        "gcn_raw": lambda: nn.GCNConv(width, width, normalize=False),
        "saliency": lambda: Saliency(width, width),
        "saliency2": lambda: Saliency(width, width),
        "gin": lambda: nn.GINConv(torch.nn.Identity()),
        "gin_learned": lambda: nn.GINConv(torch.nn.Linear(width, width), train_eps=True),
        "sage": lambda: nn.SAGEConv(width, width),
        "sage_max": lambda: nn.SAGEConv(width, width, aggr="max"),
        "gat": lambda: nn.GATConv(width, 2, heads=2),
        "graph": lambda: nn.GraphConv(width, width),
        "graph_mean": lambda: nn.GraphConv(width, width, aggr="mean"),
        "simple_sum": lambda: nn.SimpleConv("sum"),
        "simple_max": lambda: nn.SimpleConv("max"),
        "simple_min": lambda: nn.SimpleConv("min"),
        "simple_mean": lambda: nn.SimpleConv("mean"),
    }
    names: tools.Namespace
    makers: dict[str, Callable[[], Any]] = {
        "x": lambda: tools.features("x", width, dtype, start.coarse).requires_grad_(),
        "w": lambda: parameter("w"),
        "c": lambda: tools.weights("c", dtype),
        "messages": lambda: torch.randn(tools.EDGES, width, generator=tools.generator("messages"), dtype=dtype),
        "e": lambda: tools.edges(0),
        "buffer": lambda: tools.edges(0),
        "array": lambda: tools.edges(0).numpy(),
        "of_array": lambda: torch.from_numpy(names["array"]),
        "n1": lambda: gcn_norm(names["e"], None, tools.NODES, dtype=dtype),
        "n2": lambda: gcn_norm(names["e"], None, tools.NODES, dtype=dtype),
        "d1": lambda: T.GCNNorm()(Data(x=names["x"], edge_index=names["e"])),
        "d2": lambda: T.GCNNorm()(Data(x=names["x"], edge_index=names["e"])),
        "optimiser": lambda: torch.optim.SGD([names["w"], names["x"]], 0.1),
    }
    makers |= {name: lambda make=make: make().to(dtype) for name, make in layers.items()}
    names = tools.Namespace(makers, **_TOOLS, layer=functools.partial(layer, show=show), show=show, gnna_plugin=plugin)
    return names
