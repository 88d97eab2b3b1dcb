"""Verify mode compares layers with the framework's own path, names those that differ, and changes nothing else."""

from __future__ import annotations

import itertools
import logging
import random

import numpy as np
import pytest
import torch

pytest.importorskip("torch_geometric")

from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv, GINConv, MessagePassing, SAGEConv

import gnna_plugin
from gnna_plugin.adapters.pyg import layer_call
from gnna_plugin.verifying import relative_error

NODES, EDGES = 200, 3000


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = GCNConv(16, 8)
        self.second = GATConv(8, 4, heads=2, dropout=0.5)
        inner = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU())
        self.third = GINConv(inner, train_eps=True)
        self.fourth = SAGEConv(8, 3, aggr="max")

    def forward(self, x, edge_index):
        x = self.second(self.first(x, edge_index).relu(), edge_index=edge_index)
        return self.fourth(self.third(x, edge_index), edge_index)


@pytest.fixture
def graph(device):
    return torch.randn(NODES, 16, device=device), torch.randint(0, NODES, (2, EDGES), device=device)


def train(x, edge_index, steps=3):
    """Return the losses, the buffers and the next random number of a training with dropout and BatchNorm."""
    torch.manual_seed(3)
    model = Net().to(x.device)
    optimizer = torch.optim.Adam(model.parameters())
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(x, edge_index).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, [b.clone() for b in model.buffers()], torch.rand(3)


def distorted_by(change, monkeypatch):
    """Change the results of every SpMM, and of the layers that run as one op."""
    right, whole = torch.ops.gnna.spmm, layer_call.shortcuts.fused
    monkeypatch.setattr(torch.ops.gnna, "spmm", lambda *args: change(right(*args)))
    monkeypatch.setattr(
        layer_call.shortcuts, "fused", lambda *args: None if (out := whole(*args)) is None else change(out)
    )


def test_a_training_is_unchanged_and_all_its_layers_agree(graph):
    gnna_plugin.enable("pyg", min_work=0)
    losses, buffers, number = train(*graph)
    gnna_plugin.enable("pyg", min_work=0, verify=True)
    gnna_plugin.reset_status()
    again, buffers_again, number_again = train(*graph)
    assert torch.equal(number, number_again)
    if graph[0].is_cuda:  # PyG's own operations add in any order there
        torch.testing.assert_close(again, losses)
    else:
        assert losses == again and all(map(torch.equal, buffers, buffers_again))
    found = gnna_plugin.status().comparisons
    assert set(found) == {"GCNConv", "GATConv", "GINConv", "SAGEConv"}
    for comparison in found.values():
        assert comparison.calls == 3 and not comparison.differing and not comparison.unchecked
        assert comparison.output_error <= comparison.tolerance and comparison.gradient_error <= comparison.tolerance


def test_a_wrong_layer_is_named(graph, monkeypatch, caplog):
    gnna_plugin.enable("pyg", min_work=0, verify=True, skip=["GATConv", "GINConv", "SAGEConv"])
    distorted_by(lambda out: out * 1.01, monkeypatch)
    with caplog.at_level(logging.WARNING, "gnna_plugin"):
        train(*graph, steps=2)
    found = gnna_plugin.status().comparisons
    assert len(found["GCNConv"].differing) == 2 and "output" in found["GCNConv"].differing[0]
    assert not found["SAGEConv"].differing
    assert "GCNConv" in str(gnna_plugin.status()).partition("DIFFERS")[0].splitlines()[-1]
    assert len([record for record in caplog.records if "GCNConv" in record.getMessage()]) == 1


def test_strict_raises(graph, monkeypatch):
    gnna_plugin.enable("pyg", min_work=0, verify=True, strict=True)
    layer = GCNConv(16, 8).to(graph[0].device)
    layer(*graph)
    distorted_by(lambda out: out * 1.01, monkeypatch)
    with pytest.raises(gnna_plugin.Mismatch, match="GCNConv"):
        layer(*graph)


def test_a_wrong_gradient_is_found(graph, monkeypatch):
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    gnna_plugin.enable("pyg", min_work=0, verify=True)
    distorted_by(Doubled.apply, monkeypatch)
    GCNConv(16, 8).to(graph[0].device)(*graph)
    (differing,) = gnna_plugin.status().comparisons["GCNConv"].differing
    assert "gradient of lin.weight" in differing and "output" not in differing


def test_a_layer_whose_results_vary_is_not_blamed(graph):
    class Noisy(MessagePassing):
        def forward(self, x, edge_index):
            return self.propagate(edge_index, x=x) * next(calls)

    layer, calls = Noisy(), itertools.count(1)
    gnna_plugin.enable("pyg", min_work=0, verify=True)
    layer(*graph)
    (found,) = gnna_plugin.status().comparisons.values()
    assert not found.differing and found.unchecked.total() == 1


def test_checkpoints_and_blocks_without_the_plug_in_are_left_alone(graph):
    x, edge_index = graph
    gnna_plugin.enable("pyg", min_work=0, verify=True)
    layer = GCNConv(16, 8).to(x.device)
    checkpoint(layer, x.requires_grad_(), edge_index, use_reentrant=False).sum().backward()
    with gnna_plugin.disabled():
        layer(x, edge_index)
    found = gnna_plugin.status().comparisons["GCNConv"]
    assert found.calls == 0 and found.unchecked.total() >= 1


def test_it_ends_with_the_plug_in(graph):
    gnna_plugin.enable("pyg", min_work=0, verify=True)
    gnna_plugin.disable()
    GCNConv(16, 8).to(graph[0].device)(*graph)
    assert not gnna_plugin.status().comparisons
    with gnna_plugin.enabled("pyg", verify=True, min_work=0):
        GCNConv(16, 8).to(graph[0].device)(*graph)
    assert gnna_plugin.status().comparisons["GCNConv"].calls == 1
    GCNConv(16, 8).to(graph[0].device)(*graph)
    assert gnna_plugin.status().comparisons["GCNConv"].calls == 1


def test_bad_values_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="verify"):
        gnna_plugin.enable("pyg", verify="yes")
    monkeypatch.setenv("GNNA_VERIFY", "maybe")
    with pytest.raises(ValueError, match="GNNA_VERIFY"):
        gnna_plugin.enable("pyg")


def test_models_of_dgl():
    pytest.importorskip("dgl")
    import dgl

    graph = dgl.graph((torch.randint(0, NODES, (EDGES,)), torch.randint(0, NODES, (EDGES,))), num_nodes=NODES)
    layer = dgl.nn.GraphConv(16, 8, allow_zero_in_degree=True)
    graph.ndata["h"] = torch.ones(NODES, 2)
    gnna_plugin.enable("dgl", min_work=0, verify=True)
    layer(graph, torch.randn(NODES, 16, requires_grad=True)).sum().backward()
    found = gnna_plugin.status().comparisons["GraphConv"]
    assert found.calls == 1 and not found.differing and set(graph.ndata) == {"h"}


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([float("nan"), 2.0], [float("nan"), 2.0], 0.0),
        ([float("nan"), 2.0], [1.0, 2.0], float("inf")),
        ([float("inf"), 1.0], [float("inf"), 1.0], 0.0),
        ([0.0], [0.0, 0.0], float("inf")),
        ([], [], 0.0),
    ],
)
def test_relative_error(found, expected, error):
    assert relative_error(torch.tensor(found), torch.tensor(expected)) == error


class OnData(MessagePassing):
    """A layer that takes a Data and writes its result into it."""

    def __init__(self):
        super().__init__()
        self.lin = torch.nn.Linear(16, 16)

    def forward(self, data):
        data.x = data.x + self.propagate(data.edge_index, x=self.lin(data.x))
        return data


class Recurrent(MessagePassing):
    """A layer that keeps a state with a history."""

    def __init__(self):
        super().__init__()
        self.cell, self.state = torch.nn.GRUCell(16, 16), None

    def forward(self, x, edge_index):
        self.state = self.cell(self.propagate(edge_index, x=x), self.state)
        return self.state


class InPlace(MessagePassing):
    """A layer that writes to its input and to a parameter, and uses three random number generators."""

    def __init__(self):
        super().__init__()
        self.scale, self.seen = torch.nn.Parameter(torch.ones(16), requires_grad=False), []

    def forward(self, x, edge_index):
        self.seen.append(1)
        F.dropout(x, 0.5, True, inplace=True)
        with torch.no_grad():
            self.scale.mul_(0.9)
        factor = random.random() + np.random.rand()
        return self.propagate(edge_index, x=x * self.scale) * factor


def run_on_data(x, edge_index):
    data = Data(x=x, edge_index=edge_index)
    model = torch.nn.Sequential(OnData(), OnData())
    loss = model(data).x.square().mean()
    loss.backward()
    return [loss, *(p.grad for p in model.parameters())]


def run_recurrent(x, edge_index):
    layer = Recurrent()
    loss = sum(layer(x, edge_index).square().mean() for _ in range(3))
    loss.backward()
    return [loss, *(p.grad for p in layer.parameters())]


def run_in_place(x, edge_index):
    layer, x = InPlace(), x.clone()
    out = [layer(x, edge_index) for _ in range(2)]
    return [*out, x, layer.scale, torch.tensor([random.random(), np.random.rand(), len(layer.seen)])]


def run_normalised(x, edge_index):
    layer = GCNConv(16, 8)
    layer.lin = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(16, 8, bias=False))
    attention = torch.nn.utils.weight_norm(GATConv(8, 8), "att_src")
    out = [attention(layer(x, edge_index), edge_index) for _ in range(2)]
    sum(o.square().mean() for o in out).backward()
    return [*out, attention.att_src_g.grad]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("run", [run_on_data, run_recurrent, run_in_place, run_normalised])
def test_layers_with_side_effects_are_unchanged_and_not_blamed(run):
    x, edge_index = torch.randn(NODES, 16), torch.randint(0, NODES, (2, EDGES))
    results = []
    for verify in (False, True):
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(5)
        with gnna_plugin.enabled("pyg", min_work=0, verify=verify):
            results.append(run(x.clone(), edge_index))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    assert gnna_plugin.status().comparisons
    for comparison in gnna_plugin.status().comparisons.values():
        assert comparison.calls >= 2 and not comparison.differing


def test_wrong_results_are_found_in_data_objects_and_after_a_cast(monkeypatch):
    class Cast(GCNConv):
        def forward(self, *args):
            return super().forward(*args).float()

    x, edge_index = torch.randn(NODES, 16), torch.randint(0, NODES, (2, EDGES))
    gnna_plugin.enable("pyg", min_work=0, verify=True)
    distorted_by(lambda out: out * 1.5, monkeypatch)
    with torch.no_grad():
        OnData()(Data(x=x, edge_index=edge_index))
        Cast(16, 8)(x, edge_index)
    found = gnna_plugin.status().comparisons
    assert "output" in found["OnData"].differing[0] and "output" in found["Cast"].differing[0]


def test_hooks_of_the_user_run_once(graph):
    x, edge_index = graph
    layer, calls = GCNConv(16, 8).to(x.device), []
    layer.lin.register_forward_hook(lambda *_: calls.append("lin"))
    layer.lin.weight.register_hook(lambda _: calls.append("weight"))
    layer.register_forward_pre_hook(lambda *_: calls.append("layer"))
    gnna_plugin.enable("pyg", min_work=0, verify=True)
    layer(x, edge_index).sum().backward()
    assert sorted(calls) == ["layer", "lin", "weight"]
    assert gnna_plugin.status().comparisons["GCNConv"].calls == 1


def test_a_dgl_module_whose_result_is_on_the_graph_only_is_not_counted_as_compared():
    pytest.importorskip("dgl")
    import dgl
    import dgl.function as fn

    class Layer(torch.nn.Module):
        def forward(self, graph, result):
            graph.update_all(fn.copy_u("h", "m"), fn.sum("m", "n"))
            graph.ndata["h"] = graph.ndata["h"] * 0.5 + graph.ndata.pop("n")
            return graph.ndata["h"] if result else None

    def run(result):
        graph = dgl.graph(torch.randint(0, NODES, (2, EDGES)).unbind(), num_nodes=NODES)
        torch.manual_seed(2)
        graph.ndata["h"] = torch.randn(NODES, 16)
        for _ in range(2):
            Layer()(graph=graph, result=result)
        return graph.ndata["h"]

    torch.manual_seed(1)
    expected = run(True)
    gnna_plugin.enable("dgl", min_work=0, verify=True)
    torch.manual_seed(1)
    torch.testing.assert_close(run(True), expected)
    found = gnna_plugin.status().comparisons["Layer"]
    assert found.calls == 2 and not found.differing
    gnna_plugin.reset_status()
    run(False)
    found = gnna_plugin.status().comparisons["Layer"]
    assert found.calls == 0 and found.unchecked.total() == 2
