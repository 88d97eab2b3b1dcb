"""Layers for the tests of the PyG adapter: PyG's own, by name and with the inputs that they take, and user-written
ones.
"""

from __future__ import annotations

import torch
from torch_geometric import nn
from torch_geometric.nn import MessagePassing

NODES, EDGES, WIDTH = 40, 240, 16


class PlainMessage(MessagePassing):
    """A user's layer with the message x_j."""

    def __init__(self, aggr="sum", flow="source_to_target"):
        super().__init__(aggr=aggr, flow=flow)
        self.lin = torch.nn.Linear(WIDTH, 8)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.lin(x))

    def message(self, x_j):
        return x_j


class WeightedMessage(MessagePassing):
    """A user's layer with the message w * x_j."""

    def __init__(self, aggr="sum"):
        super().__init__(aggr=aggr)
        self.lin = torch.nn.Linear(WIDTH, 8)

    def forward(self, x, edge_index, edge_weight):
        return self.propagate(edge_index, x=self.lin(x), w=edge_weight)

    def message(self, x_j, w):
        return w.view(-1, 1) * x_j


class OwnScatter(MessagePassing):
    """A user's layer that overrides aggregate() and calls torch's scatter functions."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.lin = torch.nn.Linear(WIDTH, 8)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.lin(x))

    def message(self, x_j):
        return x_j

    def aggregate(self, inputs, index, dim_size):
        rows = index.view(-1, 1).expand_as(inputs)
        if self.how == "scatter_add_":
            return inputs.new_zeros(dim_size, inputs.size(1)).scatter_add_(0, rows, inputs)
        if self.how == "torch.scatter_add":
            return torch.scatter_add(torch.ones(dim_size, inputs.size(1), dtype=inputs.dtype), 0, rows, inputs)
        if self.how == "index_add_":
            return torch.ones(dim_size, inputs.size(1), dtype=inputs.dtype).index_add_(0, index, inputs)
        if self.how == "scatter_reduce_":
            out = inputs.new_zeros(dim_size, inputs.size(1))
            out.scatter_reduce_(0, rows, inputs, "amax", include_self=False)
            return out  # the tensor that was written to, not the result of the call
        raise ValueError(self.how)


def mlp(width):
    return torch.nn.Sequential(torch.nn.Linear(width, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))


# Name -> (function that makes the layer, its edge input: None, "weight" [E] or "attr" [E, 3]).
FUSED = {
    "GCNConv": (lambda: nn.GCNConv(WIDTH, 8), None),
    "GCNConv-weights": (lambda: nn.GCNConv(WIDTH, 8), "weight"),
    "GCNConv-cached": (lambda: nn.GCNConv(WIDTH, 8, cached=True), None),
    "GCNConv-no-norm": (lambda: nn.GCNConv(WIDTH, 8, normalize=False), "weight"),
    "GINConv": (lambda: nn.GINConv(mlp(WIDTH), train_eps=True), None),
    "SAGEConv-mean": (lambda: nn.SAGEConv(WIDTH, 8), None),
    "SAGEConv-max": (lambda: nn.SAGEConv(WIDTH, 8, aggr="max"), None),
    "SAGEConv-min": (lambda: nn.SAGEConv(WIDTH, 8, aggr="min"), None),
    "SAGEConv-many": (lambda: nn.SAGEConv(WIDTH, 8, aggr=["mean", "max", "sum"]), None),
    "GATConv": (lambda: nn.GATConv(WIDTH, 4, heads=3), None),
    "GATConv-average": (lambda: nn.GATConv(WIDTH, 4, heads=3, concat=False, edge_dim=3), "attr"),
    "GATv2Conv": (lambda: nn.GATv2Conv(WIDTH, 4, heads=3), None),
    "GraphConv": (lambda: nn.GraphConv(WIDTH, 8), "weight"),
    "GraphConv-max": (lambda: nn.GraphConv(WIDTH, 8, aggr="max"), "weight"),
    "TAGConv": (lambda: nn.TAGConv(WIDTH, 8), "weight"),
    "SGConv": (lambda: nn.SGConv(WIDTH, 8, K=2), None),
    "ChebConv": (lambda: nn.ChebConv(WIDTH, 8, K=3), None),
    "APPNP": (lambda: nn.APPNP(K=3, alpha=0.1), "weight"),
    "TransformerConv": (lambda: nn.TransformerConv(WIDTH, 4, heads=3), None),
    "SuperGATConv": (lambda: nn.SuperGATConv(WIDTH, 4, heads=3), None),
    "PlainMessage": (PlainMessage, None),
    "PlainMessage-mean": (lambda: PlainMessage("mean"), None),
    "PlainMessage-reversed": (lambda: PlainMessage(flow="target_to_source"), None),
    "WeightedMessage": (WeightedMessage, "weight"),
    "WeightedMessage-min": (lambda: WeightedMessage("min"), "weight"),
    **{f"OwnScatter-{how}": ((lambda how=how: OwnScatter(how)), None)
       for how in ("scatter_add_", "torch.scatter_add", "index_add_", "scatter_reduce_")},
}  # fmt: skip

NOT_FUSED = {
    "EdgeConv": (lambda: nn.EdgeConv(mlp(2 * WIDTH)), None),
    "GINEConv": (lambda: nn.GINEConv(mlp(WIDTH), edge_dim=3), "attr"),
    "PNAConv": (lambda: nn.PNAConv(WIDTH, 8, ["mean", "max"], ["identity"], torch.tensor([0, 3, 4])), None),
    "CGConv": (lambda: nn.CGConv(WIDTH), None),
    "ResGatedGraphConv": (lambda: nn.ResGatedGraphConv(WIDTH, 8), None),
}
REWRITTEN = ("GINEConv", "PNAConv", "ResGatedGraphConv")  # fused in eager mode by the message algebra


class Layer(MessagePassing):
    """A user's layer whose message() calls function(x_j, edge weights)."""

    def __init__(self, function, aggr="sum"):
        super().__init__(aggr=aggr)
        self.function = function
        self.lin = torch.nn.Linear(WIDTH, 8)

    def forward(self, x, edge_index, edge_weight):
        return self.propagate(edge_index, x=self.lin(x), w=edge_weight)

    def message(self, x_j, w):
        return self.function(x_j, w)


def graph(device="cpu", dtype=torch.float64):
    """Return (x, edge_index, edge inputs by name) of a directed graph whose first and last nodes are isolated."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(NODES, WIDTH, generator=generator, dtype=dtype).to(device)
    edge_index = torch.randint(1, NODES - 1, (2, EDGES), generator=generator).to(device)
    edge = {
        None: None,
        "weight": torch.rand(EDGES, generator=generator, dtype=dtype).to(device),
        "attr": torch.rand(EDGES, 3, generator=generator, dtype=dtype).to(device),
    }
    return x, edge_index, edge


def build(entry, device="cpu", dtype=torch.float64):
    torch.manual_seed(3)
    return entry[0]().to(device, dtype).eval()


def outputs_and_gradients(layer, x, edge_index, edge_input=None):
    """Return the layer's output and the gradients of x, of the edge input and of the parameters."""
    x = x.detach().clone().requires_grad_()
    inputs = [x, edge_index]
    if edge_input is not None:
        inputs.append(edge_input.detach().clone().requires_grad_())
    layer.zero_grad()
    out = layer(*inputs)
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype, device=out.device).view_as(out)
    (out * weights).sum().backward()
    leaves = [x, *inputs[2:], *layer.parameters()]
    return [out.detach()] + [leaf.grad for leaf in leaves if leaf.grad is not None]
