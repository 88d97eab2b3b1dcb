"""The message algebra: functions of gathered features give PyG's results without tensors of edges x features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("torch_geometric")

import pyg_layers as layers
from torch.autograd import gradgradcheck
from torch.profiler import ProfilerActivity, profile
from torch_geometric import nn
from torch_geometric.nn import MessagePassing

import gnna_plugin

W, HEADS = 16, 2


class Message(MessagePassing):
    """A user's layer whose message() calls function(self, x_i, x_j, e), with e of the width of x."""

    def __init__(self, function, aggr="sum"):
        super().__init__(aggr=aggr)
        self.function = function
        self.edge = torch.nn.Linear(3, W)
        self.one, self.two = torch.nn.Linear(W, 8), torch.nn.Linear(2 * W, 8)
        self.wide = torch.nn.Linear(3 * W, 8)
        self.att = torch.nn.Parameter(torch.linspace(-1, 1, W).view(1, HEADS, W // HEADS).clone())
        self.bias = torch.nn.Parameter(torch.linspace(-1, 1, W))

    def forward(self, x, edge_index, attr):
        return self.propagate(edge_index, x=x, e=self.edge(attr))

    def message(self, x_i, x_j, e):
        return self.function(self, x_i, x_j, e)


def weight(e):
    return e.mean(-1, keepdim=True)


def attended(self, x_i, x_j, e):
    z = F.leaky_relu((x_i + x_j + e).view(-1, HEADS, W // HEADS), 0.2)
    score = (z * self.att).sum(dim=-1)
    return (x_j.view(-1, HEADS, W // HEADS) * score.unsqueeze(-1)).view(-1, W)


# Messages that are reduced without a tensor of edges x features.
REDUCED = {
    "row-wise function": lambda self, x_i, x_j, e: x_j.tanh(),
    "linear": lambda self, x_i, x_j, e: self.one(x_j),
    "linear, then a function": lambda self, x_i, x_j, e: F.silu(self.one(x_j)),
    "numbers": lambda self, x_i, x_j, e: 2 * (1 - x_j) + 3,
    "bias": lambda self, x_i, x_j, e: x_j + self.bias,
    "factor per feature": lambda self, x_i, x_j, e: (x_j * self.bias).relu(),
    "elementwise functions": lambda self, x_i, x_j, e: (x_j.clamp(min=-1, max=1) + 2).pow(1.5).cos() / 3,
    "softplus of a layer norm": lambda self, x_i, x_j, e: F.softplus(F.layer_norm(x_j, (W,), self.bias)),
    "two of one end": lambda self, x_i, x_j, e: x_j * x_j.sigmoid() - x_j,
    "slice": lambda self, x_i, x_j, e: x_j[:, 2:7],
    "sum of both ends": lambda self, x_i, x_j, e: x_i + x_j,
    "difference": lambda self, x_i, x_j, e: x_j - x_i,
    "the destination alone": lambda self, x_i, x_j, e: x_i.relu() - x_j * 0,
    "with the edge": lambda self, x_i, x_j, e: x_j + e,
    "edge first": lambda self, x_i, x_j, e: e - x_j,
    "function of a sum": lambda self, x_i, x_j, e: torch.relu(x_i + x_j),
    "function of all three": lambda self, x_i, x_j, e: F.elu(x_j + e - x_i, 1.5),
    "negated": lambda self, x_i, x_j, e: (-(x_j + e)).sigmoid(),
    "bias of a sum": lambda self, x_i, x_j, e: F.gelu(x_i + x_j + self.bias),
    "weighted": lambda self, x_i, x_j, e: torch.tanh(x_i + x_j) * weight(e),
    "gate": lambda self, x_i, x_j, e: torch.sigmoid(x_i + x_j) * x_j,
    "gate of the destination": lambda self, x_i, x_j, e: x_i * torch.sigmoid(x_i + x_j + e),
    "gate with a weight": lambda self, x_i, x_j, e: torch.sigmoid(x_i + x_j) * x_j * weight(e),
    "concatenation": lambda self, x_i, x_j, e: self.two(torch.cat([x_i, x_j], dim=-1)),
    "concatenation of a difference": lambda self, x_i, x_j, e: self.two(torch.cat([x_i, x_j - x_i], dim=1)).relu(),
    "concatenation with the edge": lambda self, x_i, x_j, e: self.wide(torch.cat([x_i, e, x_j], -1)).relu(),
    "linear of a sum": lambda self, x_i, x_j, e: self.one(x_i - x_j + e).tanh(),
    "square": lambda self, x_i, x_j, e: (x_i - x_j) ** 2,
    "weighted heads": lambda self, x_i, x_j, e: (x_j.view(-1, 4, 4) * e[:, :4].view(-1, 4, 1)).sum(dim=1),
    "stacked": lambda self, x_i, x_j, e: torch.stack([self.one(x_i + x_j), self.one(x_j - x_i)], dim=1).flatten(1),
    "attention": attended,
}
# Messages of which some part has no form of the algebra.
SETTLED = {
    "an unknown function": lambda self, x_i, x_j, e: torch.cos(x_i + x_j),
    "an activation twice": lambda self, x_i, x_j, e: torch.tanh(torch.sigmoid(x_i + x_j)),
    "dropout": lambda self, x_i, x_j, e: F.dropout(x_i + x_j, 0.0),
    "statistics of the edges": lambda self, x_i, x_j, e: (x_i + x_j) - (x_i + x_j).mean(0),
    "written to": lambda self, x_i, x_j, e: (x_i + x_j).mul_(2) + x_j,
    "a part written to": lambda self, x_i, x_j, e: halved(x_i + x_j) + x_j,
    "a view written to": lambda self, x_i, x_j, e: zeroed(x_i + x_j) + x_j,
    "hooked": lambda self, x_i, x_j, e: hooked(x_i + x_j, x_j),
    "of three factors": lambda self, x_i, x_j, e: torch.sigmoid(x_i + x_j) * x_j * x_j,
    "a root": lambda self, x_i, x_j, e: x_j.abs().sqrt(),
    "an exponential": lambda self, x_i, x_j, e: x_j.exp(),
    "a fraction as exponent": lambda self, x_i, x_j, e: (x_j.abs() + 1) ** 0.5,
    "a trained exponent": lambda self, x_i, x_j, e: (x_j.abs() + 1) ** self.bias,
    "a cast to fewer bits": lambda self, x_i, x_j, e: x_j.float().double(),
    "a result tensor given": lambda self, x_i, x_j, e: torch.sigmoid(x_j.detach(), out=torch.empty_like(e)) * x_j,
    "a number added to a function": lambda self, x_i, x_j, e: torch.relu(x_j + e) + 1e-7,
    "compared": lambda self, x_i, x_j, e: torch.where(x_i + x_j > 0, x_j, e),
    "variance": lambda self, x_i, x_j, e: (x_i - x_j) * (x_j - x_i),
    "two functions": lambda self, x_i, x_j, e: torch.sigmoid(x_i + x_j) * torch.tanh(x_j - x_i),
}


def halved(z):
    z[:, :3] /= 2
    return z


def zeroed(z):
    with torch.no_grad():
        z.view(-1, 2, W // 2)[:, 0].zero_()
    return z


def hooked(z, x_j):
    if z.requires_grad:
        z.register_hook(lambda grad: 3 * grad)
        x_j.register_hook(lambda grad: 2 * grad)
    return z.tanh() + x_j.tanh()


def make(function, aggr="sum", device="cpu"):
    return layers.build((lambda: Message(function, aggr),), device)


def assert_pygs(layer, *inputs):
    """Assert that the layer gives PyG's output and gradients, twice, and return its counts."""
    expected = layers.outputs_and_gradients(layer, *inputs)
    gnna_plugin.enable(min_work=0)
    for _ in range(2):
        found = layers.outputs_and_gradients(layer, *inputs)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(layer(*inputs), expected[0], rtol=1e-9, atol=1e-10)
    return gnna_plugin.status().layers[type(layer).__name__]


@pytest.mark.parametrize("aggr", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("name", REDUCED)
def test_outputs_and_gradients(device, name, aggr):
    x, edge_index, edge = layers.graph(device)
    counts = assert_pygs(make(REDUCED[name], aggr, device), x, edge_index, edge["attr"])
    factors = name in ("weighted heads", "weighted", "gate", "gate of the destination", "gate with a weight")
    if not (factors and aggr in ("max", "min")):  # the ops take factors with sums only
        assert counts.fused >= 3 and not counts.materialised


@pytest.mark.parametrize(
    "aggr",
    [
        nn.aggr.SoftmaxAggregation(),
        nn.aggr.SoftmaxAggregation(t=0.3, learn=True, channels=W),
        nn.aggr.SoftmaxAggregation(t=3.0, semi_grad=True),
        nn.aggr.PowerMeanAggregation(p=2.5),
        nn.aggr.MultiAggregation(["mean", "max", "std", nn.aggr.SoftmaxAggregation(learn=True)]),
    ],
    ids=["softmax", "learned softmax", "semi-gradient", "power mean", "several"],
)
def test_learned_and_several_aggregations(device, aggr):
    x, edge_index, edge = layers.graph(device)
    counts = assert_pygs(make(REDUCED["row-wise function"], aggr, device), x, edge_index, edge["attr"])
    assert counts.fused >= 3 and not counts.materialised


def test_the_softmax_of_gathered_features_is_pygs_for_any_values(device):
    """Large scores do not overflow; a NaN or an infinity reaches the rows that it reaches in PyG."""
    x, edge_index, edge = layers.graph(device)
    layer = make(REDUCED["two of one end"], nn.aggr.SoftmaxAggregation(), device)
    for value in (1e4, float("inf"), float("-inf"), float("nan")):
        bad = x.clone()
        bad[3, :2] = value
        with torch.no_grad():
            expected = layer(bad, edge_index, edge["attr"])
            gnna_plugin.enable("pyg", min_work=0)
            torch.testing.assert_close(layer(bad, edge_index, edge["attr"]), expected, equal_nan=True)
            gnna_plugin.disable()


def test_casts(device):
    """A gradient in the narrower type is rounded once per node, not once per edge."""
    x, edge_index, edge = layers.graph(device)
    layer = make(lambda self, x_i, x_j, e: x_j.float().double().tanh().to(torch.float64), device=device)
    inputs = x.detach().float().requires_grad_(), edge_index, edge["attr"]
    expected = layers.outputs_and_gradients(layer, *inputs)
    gnna_plugin.enable(min_work=0)
    for a, b in zip(layers.outputs_and_gradients(layer, *inputs), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert not gnna_plugin.status().layers["Message"].materialised


@pytest.mark.parametrize("name", SETTLED)
def test_other_messages_are_computed_as_pyg_does(device, name):
    x, edge_index, edge = layers.graph(device)
    counts = assert_pygs(make(SETTLED[name], device=device), x, edge_index, edge["attr"])
    assert counts.materialised


@pytest.mark.parametrize("name", ["gate with a weight", "concatenation with the edge", "attention", "linear of a sum"])
def test_second_derivatives(device, name):
    x, edge_index, edge = layers.graph(device)
    layer = make(REDUCED[name], device=device)
    nodes = edge_index[:, :12].unique().numel()
    small, ends = x[:nodes, :].clone().requires_grad_(), edge_index[:, :12] % nodes
    gnna_plugin.enable(min_work=0)
    # relu and leaky_relu have no second derivative; the weights of the layer still meet the features in products.
    assert gradgradcheck(lambda x, e: layer(x, ends, e).tanh(), (small, edge["attr"][:12].clone().requires_grad_()))


@pytest.mark.parametrize("name", ["concatenation", "function of all three", "concatenation of a difference"])
def test_second_derivatives_of_a_maximum(device, name):
    x, edge_index, edge = layers.graph(device)
    layer = make(REDUCED[name], "max", device)

    def second(x, attr):
        out = layer(x, edge_index, attr)
        of_x, of_attr = torch.autograd.grad(out.square().sum(), (x, attr), create_graph=True, allow_unused=True)
        total = of_x.square().sum() + (0 if of_attr is None else of_attr.square().sum())
        leaves = [x, *layer.parameters()]
        return [g for g in torch.autograd.grad(total, leaves, allow_unused=True) if g is not None and g.any()]

    inputs = x.clone().requires_grad_(), edge["attr"].clone().requires_grad_()
    expected = second(*inputs)
    gnna_plugin.enable(min_work=0)
    for a, b in zip(second(*inputs), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_nodes_that_no_edge_reads_get_no_gradient(device):
    """Also where a function that PyG never evaluates for them has no finite value or slope."""
    x, edge_index, edge = layers.graph(device)
    x = x.detach().abs() + 0.5
    x[-1], edge_index = 0, edge_index.clamp(max=x.size(0) - 2)
    functions = (torch.sqrt, torch.log, torch.rsqrt, torch.reciprocal, torch.log1p, lambda x: x**0.3, torch.tanh)
    for function in functions:
        assert_pygs(make(lambda self, x_i, x_j, e, f=function: f(x_j), device=device), x.requires_grad_(), edge_index,
                    edge["attr"])  # fmt: skip
        gnna_plugin.disable()


def test_a_factor_written_to_after_the_product_does_not_change_results(device):
    x, edge_index, edge = layers.graph(device)

    def scaled(self, x_i, x_j, e):
        factor = self.bias.detach().clone()
        z = (x_i - x_j).relu() * factor
        factor.zero_()
        return z

    layer = make(scaled, device=device)
    with torch.no_grad():
        expected = layer(x, edge_index, edge["attr"])
        gnna_plugin.enable(min_work=0)
        torch.testing.assert_close(layer(x, edge_index, edge["attr"]), expected)


def test_both_flows_and_bipartite_graphs(device):
    x, edge_index, edge = layers.graph(device)
    for flow in ("source_to_target", "target_to_source"):
        layer = make(REDUCED["gate with a weight"], device=device)
        layer.flow = flow
        assert_pygs(layer, x, edge_index, edge["attr"])
        gnna_plugin.disable()

    class Bipartite(Message):
        def forward(self, x, edge_index, attr):
            return self.propagate(edge_index, x=(x, x[:25]), e=self.edge(attr), size=(x.size(0), 25))

    ends = torch.stack([edge_index[0], edge_index[1] % 25])
    layer = layers.build((lambda: Bipartite(REDUCED["function of all three"]),), device)
    assert assert_pygs(layer, x, ends, edge["attr"]).fused >= 3


def largest_allocation(run):
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    return max(e.nbytes() for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]")


@pytest.mark.parametrize(
    "make_layer",
    [
        lambda: nn.GATv2Conv(64, 8, 8),
        lambda: nn.TransformerConv(64, 8, 8),
        lambda: nn.ResGatedGraphConv(64, 64),
        lambda: nn.PNAConv(64, 64, ["mean", "max", "min"], ["identity"], torch.ones(80).long()),
        lambda: nn.GeneralConv(64, 64),
        lambda: nn.LEConv(64, 64),
        lambda: nn.GENConv(64, 64, learn_t=True),
        lambda: nn.GENConv(64, 64, aggr="powermean"),
        lambda: Message(REDUCED["concatenation of a difference"]),
    ],
    ids=["GATv2", "Transformer", "ResGated", "PNA", "General", "LE", "GEN", "GEN with a power mean", "user"],
)
def test_nothing_of_the_size_of_edges_times_features_is_allocated(make_layer):
    nodes, edges, width = 300, 40_000, 64
    layer = make_layer()
    if isinstance(layer, Message):
        layer.two, layer.forward = torch.nn.Linear(128, 64), lambda x, ends: layer.propagate(ends, x=x, e=None)
    x, ends = torch.randn(nodes, width, requires_grad=True), torch.randint(0, nodes, (2, edges))
    gnna_plugin.enable("pyg", min_work=0)

    def step():
        layer(x, ends).square().sum().backward()

    step()
    assert largest_allocation(step) < edges * width * 4 / 2
    gnna_plugin.disable()
    assert largest_allocation(step) >= edges * width * 4


def test_rewrites_can_be_switched_off_and_are_shown():
    x, edge_index, edge = layers.graph()
    layer = make(REDUCED["concatenation"])
    gnna_plugin.enable("pyg", min_work=0)
    layer(x, edge_index, edge["attr"])
    assert gnna_plugin.status().layers["Message"].moved == {"linear": 1}
    assert "message moved to nodes: linear" in str(gnna_plugin.status())
    gnna_plugin.report.reset()
    gnna_plugin.enable("pyg", min_work=0, rewrite=False)
    layer(x, edge_index, edge["attr"])
    counts = gnna_plugin.status().layers["Message"]
    assert not counts.moved and counts.materialised
    with pytest.raises(ValueError, match="rewrite is 1; it must be True or False"):
        gnna_plugin.enable("pyg", rewrite=1)


def test_more_nodes_than_edges_are_left_to_the_edges():
    layer = make(REDUCED["linear"])
    gnna_plugin.enable("pyg", min_work=0)
    layer(torch.randn(500, W).double(), torch.randint(0, 500, (2, 60)), torch.rand(60, 3).double())
    counts = gnna_plugin.status().layers["Message"]
    assert not counts.moved and counts.materialised == {"linear": 1}


def test_features_written_to_between_a_sum_and_its_reduction_are_refused():
    class Writing(Message):
        def forward(self, x, edge_index, attr):
            self.features = x.clone()
            return self.propagate(edge_index, x=self.features, e=self.edge(attr))

        def aggregate(self, inputs, index, dim_size):
            self.features.add_(1)
            return super().aggregate(inputs, index, dim_size=dim_size)

    x, edge_index, edge = layers.graph()
    layer = layers.build((lambda: Writing(REDUCED["function of a sum"]),))
    gnna_plugin.enable("pyg", min_work=0)
    with pytest.raises(RuntimeError, match="modified in place"):
        layer(x, edge_index, edge["attr"])


def test_edge_features_written_to_after_the_message_do_not_change_results():
    x, edge_index, edge = layers.graph()
    layer, attr = make(lambda self, x_i, x_j, e: overwritten(x_j + e, e)), edge["attr"]
    assert_pygs(layer, x, edge_index, attr)


def overwritten(z, e):
    with torch.no_grad():
        e.zero_()
    return z


def test_bad_indices_raise_pygs_exceptions(device):
    x, edge_index, edge = layers.graph(device)
    layer = make(REDUCED["function of all three"], device=device)
    gnna_plugin.enable("pyg", min_work=0)
    for row in (0, 1):
        bad = edge_index.clone()
        bad[row, 3] = layers.NODES + 5
        with pytest.raises(IndexError):
            layer(x, bad, edge["attr"])
    assert torch.isfinite(layer(x, edge_index, edge["attr"])).all()
