"""The PyG models that the command line trains. They are written as any PyG user writes them and do not use the plug-in.

This file owns the models and the conversion of arrays to PyG's structures; gnna_plugin.tools owns the measurements.
`bench epoch` trains the models of make_bench_model, the other subcommands those of make_model. The models of every
framework define the same names: MODELS, make_graph, make_model, make_bench_model and versions.
"""

import torch
import torch_geometric
from torch import nn
from torch.nn import functional as F
from torch_geometric.nn import GCNConv, GINConv, MessagePassing
from torch_geometric.nn import models as ready_made

MODELS = ("gcn", "gin", "weighted")


class GCN(nn.Module):
    """GCNConv layers with ReLU and dropout 0.5 between them.

    x [N, in_dim] float -> class scores [N, classes].
    """

    def __init__(self, in_dim, hidden, classes, layers):
        super().__init__()
        widths = [in_dim] + [hidden] * (layers - 1) + [classes]
        self.convs = nn.ModuleList(GCNConv(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, x, edge_index):
        for conv in self.convs[:-1]:
            x = F.dropout(conv(x, edge_index).relu(), training=self.training)
        return self.convs[-1](x, edge_index)


class GIN(nn.Module):
    """GINConv layers, each with an update of two linear maps.

    x [N, in_dim] float -> class scores [N, classes].
    """

    def __init__(self, in_dim, hidden, classes, layers):
        super().__init__()
        widths = [in_dim] + [hidden] * (layers - 1) + [classes]
        self.convs = nn.ModuleList(
            GINConv(nn.Sequential(nn.Linear(a, hidden), nn.ReLU(), nn.Linear(hidden, b)))
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )

    def forward(self, x, edge_index):
        for conv in self.convs[:-1]:
            x = conv(x, edge_index).relu()
        return self.convs[-1](x, edge_index)


class EdgeWeightedConv(MessagePassing):
    """A user-written layer with a learned weight per edge: sums w * x over in-edges.

    x [N, in_dim], edge_index int64 [2, E] -> [N, out_dim]; ``edge_weight`` float32 [E] starts at 1 / in-degree.
    """

    def __init__(self, in_dim, out_dim, edge_weight):
        super().__init__(aggr="sum")
        self.linear = nn.Linear(in_dim, out_dim)
        self.weight = nn.Parameter(edge_weight)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.linear(x), w=self.weight.view(-1, 1))

    def message(self, x_j, w):
        return w * x_j


class EdgeWeighted(nn.Module):
    """EdgeWeightedConv layers with ReLU between them.

    x [N, in_dim] float -> class scores [N, classes].
    """

    def __init__(self, in_dim, hidden, classes, layers, edge_index, num_nodes):
        super().__init__()
        widths = [in_dim] + [hidden] * (layers - 1) + [classes]
        dst = edge_index[1].cpu()
        weight = 1.0 / torch.bincount(dst, minlength=num_nodes)[dst].float()
        self.convs = nn.ModuleList(
            EdgeWeightedConv(a, b, weight.clone()) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )

    def forward(self, x, edge_index):
        for conv in self.convs[:-1]:
            x = conv(x, edge_index).relu()
        return self.convs[-1](x, edge_index)


def make_graph(src, dst, num_nodes, device):
    """Return the structure that the models take, here PyG's edge_index.

    It is int64 [2, E] on ``device``. ``src`` and ``dst`` are int64 NumPy arrays [E]; an edge carries a message
    from src to dst.
    """
    return torch.stack([torch.from_numpy(src), torch.from_numpy(dst)]).to(device)


def make_model(name, in_dim, hidden, classes, layers, graph, num_nodes):
    """Build a model of MODELS on the CPU in float32.

    Its weights come from torch's global random generator.

    Raises:
        ValueError: name is not in MODELS, or layers is less than 1.
    """
    if layers < 1:
        raise ValueError(f"layers is {layers}; a model needs at least 1 layer")
    if name == "gcn":
        return GCN(in_dim, hidden, classes, layers)
    if name == "gin":
        return GIN(in_dim, hidden, classes, layers)
    if name == "weighted":
        return EdgeWeighted(in_dim, hidden, classes, layers, graph, num_nodes)
    raise ValueError(f"model is '{name}'; it must be one of {', '.join(MODELS)}")


class ReadyMade(nn.Module):
    """One of PyG's ready-made models.

    module(x [N, in_dim], structure) -> class scores [N, classes].
    """

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, structure):
        return self.net(x, structure)


def make_bench_model(name, in_dim, hidden, classes, layers, norm, cached):
    """Build GCN, GIN, GraphSAGE or GAT (4 heads) from torch_geometric.nn.models.

    The model is in float32. ``norm`` adds batch normalisation and dropout 0.5. ``cached`` is the option of GCNConv.
    """
    kinds = {"gcn": ready_made.GCN, "gin": ready_made.GIN, "sage": ready_made.GraphSAGE, "gat": ready_made.GAT}
    options = {"gcn": {"cached": cached}, "gat": {"heads": 4}}.get(name, {})
    if norm:
        options.update(norm="batch_norm", dropout=0.5)
    return ReadyMade(kinds[name](in_dim, hidden, layers, classes, **options))


def versions():
    """Return the framework's packages and their versions, as a dict of strings."""
    return {"torch_geometric": torch_geometric.__version__}
