"""The DGL models that the command line trains. They are written as any DGL user writes them and do not use the plug-in.

This file owns the models and the conversion of arrays to a DGLGraph; gnna_plugin.tools owns the measurements. The
models of every framework define the same names: MODELS, make_graph, make_model, make_bench_model and versions.
"""

import dgl
import torch
from dgl.nn import GATConv, GINConv, GraphConv, SAGEConv
from torch import nn
from torch.nn import functional as F

MODELS = ("gcn", "gin")
_HEADS = 4


class GCN(nn.Module):
    """GraphConv layers with ReLU and dropout 0.5 between them.

    x [N, in_dim] float -> class scores [N, classes].
    """

    def __init__(self, in_dim, hidden, classes, layers):
        super().__init__()
        widths = [in_dim] + [hidden] * (layers - 1) + [classes]
        self.convs = nn.ModuleList(
            GraphConv(a, b, allow_zero_in_degree=True) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )

    def forward(self, x, graph):
        for conv in self.convs[:-1]:
            x = F.dropout(conv(graph, x).relu(), training=self.training)
        return self.convs[-1](graph, x)


class GIN(nn.Module):
    """GINConv layers, each with an update of two linear maps.

    x [N, in_dim] float -> class scores [N, classes].
    """

    def __init__(self, in_dim, hidden, classes, layers):
        super().__init__()
        widths = [in_dim] + [hidden] * (layers - 1) + [classes]
        self.convs = nn.ModuleList(
            GINConv(nn.Sequential(nn.Linear(a, hidden), nn.ReLU(), nn.Linear(hidden, b)), "sum")
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )

    def forward(self, x, graph):
        for conv in self.convs[:-1]:
            x = conv(graph, x).relu()
        return self.convs[-1](graph, x)


def make_graph(src, dst, num_nodes, device):
    """Return the structure that the models take, here a DGLGraph on ``device``.

    Every node gets one self-loop, as in DGL's examples. ``src`` and ``dst`` are int64 NumPy arrays [E]; an edge carries
    a message from src to dst.
    """
    graph = dgl.graph((torch.from_numpy(src), torch.from_numpy(dst)), num_nodes=num_nodes)
    return dgl.add_self_loop(dgl.remove_self_loop(graph)).to(device)


def make_model(name, in_dim, hidden, classes, layers, graph, num_nodes):
    """Build a model of MODELS on the CPU in float32.

    Its weights come from torch's global random generator.

    Raises:
        ValueError: name is not in MODELS, or layers is less than 1.
    """
    if layers < 1:
        raise ValueError(f"layers is {layers}; a model needs at least 1 layer")
    if name not in MODELS:
        raise ValueError(f"model is '{name}'; it must be one of {', '.join(MODELS)}")
    return (GCN if name == "gcn" else GIN)(in_dim, hidden, classes, layers)


class Deep(nn.Module):
    """Layers with ReLU between them: x [N, in_dim] -> class scores [N, classes].

    ``norm`` adds batch normalisation and dropout 0.5 between the layers.
    """

    def __init__(self, name, in_dim, hidden, classes, layers, norm):
        super().__init__()
        widths = [in_dim] + [hidden] * (layers - 1) + [classes]
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.convs = nn.ModuleList(_conv(name, a, b, i + 1 == layers) for i, (a, b) in enumerate(pairs))
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) if norm else nn.Identity() for _ in pairs[1:])
        self.dropout = nn.Dropout(0.5 if norm else 0.0)
        self.is_attention = name == "gat"

    def forward(self, x, graph):
        for conv, norm in zip(self.convs, self.norms, strict=False):
            h = conv(graph, x)
            x = self.dropout(norm(h.flatten(1) if self.is_attention else h).relu())
        out = self.convs[-1](graph, x)
        return out.mean(1) if self.is_attention else out


def _conv(name, a, b, last):
    if name == "gcn":
        return GraphConv(a, b, allow_zero_in_degree=True)
    if name == "gin":
        return GINConv(nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, b)), "sum")
    if name == "sage":
        return SAGEConv(a, b, "mean")
    return GATConv(a, b if last else b // _HEADS, _HEADS, allow_zero_in_degree=True)


def make_bench_model(name, in_dim, hidden, classes, layers, norm, cached):
    """Build GCN, GIN, SAGE (mean) or GAT (4 heads) from dgl.nn, in float32.

    ``norm`` adds batch normalisation and dropout 0.5. ``cached`` has no effect, because a DGLGraph needs no cache.
    """
    return Deep(name, in_dim, hidden, classes, layers, norm)


def versions():
    """Return the framework's packages and their versions, as a dict of strings."""
    return {"dgl": dgl.__version__}
