"""torch_geometric.utils.softmax, which attention layers call, gives the same results and gradients as one kernel."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
import torch_geometric.utils as utils
from torch_geometric.nn import GATConv
from torch_geometric.nn.conv import gat_conv

import gnna_plugin

ROWS, EDGES = 30, 400


@pytest.fixture
def index(device):
    return torch.randint(1, ROWS - 1, (EDGES,), device=device)


def reduced():
    layer = gnna_plugin.status().layers.get("softmax")
    return layer.reduced if layer else 0


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 2)])
@pytest.mark.parametrize("num_nodes", [None, ROWS])
def test_same_results_and_gradients(device, index, shape, num_nodes):
    scores = torch.randn(EDGES, *shape, dtype=torch.float64, device=device) * 20

    def run():
        leaf = scores.clone().requires_grad_()
        out = utils.softmax(leaf, index, num_nodes=num_nodes)
        out.square().sum().backward()
        return out.detach(), leaf.grad

    expected = run()
    gnna_plugin.enable("pyg", min_work=0)
    for found, wanted in zip(run(), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert reduced() == 1


def test_calls_that_do_not_fit_fall_back_to_pyg(device, index):
    """These calls have row pointers, another dimension, traced inputs, or small inputs."""
    scores = torch.randn(EDGES, 4, dtype=torch.float64, device=device)
    ordered = index.sort().values
    ptr = torch._convert_indices_from_coo_to_csr(ordered, ROWS)
    calls = [
        lambda: utils.softmax(scores, ordered, ptr, ROWS),
        lambda: utils.softmax(scores, None, ptr),
        lambda: utils.softmax(scores.t().contiguous(), index, dim=1),
        lambda: torch.jit.trace(lambda s: utils.softmax(s, index, num_nodes=ROWS), scores, check_trace=False)(scores),
    ]
    expected = [call() for call in calls]
    gnna_plugin.enable("pyg", min_work=0)
    for call, wanted in zip(calls, expected, strict=True):
        torch.testing.assert_close(call(), wanted)
    gnna_plugin.enable("pyg", min_work=10**6)
    torch.testing.assert_close(utils.softmax(scores, index).sum(0).round(), scores.new_full((4,), ROWS - 2))
    assert reduced() == 0


def test_an_index_out_of_range_raises_pygs_error_on_a_cpu(device, index):
    gnna_plugin.enable("pyg", min_work=0)
    error, text = (RuntimeError, "out of bounds") if device.type == "cpu" else (IndexError, "is out of range")
    with pytest.raises(error, match=text):
        utils.softmax(torch.randn(EDGES, device=device), index, num_nodes=5)


def test_the_softmax_of_excluded_layers_falls_back(device):
    x, edge_index, _ = layers.graph(device)
    conv = GATConv(layers.WIDTH, 4, heads=3).to(device, x.dtype)
    for keywords in ({"skip": ["GATConv"]}, {"only": ["GCNConv"]}):
        gnna_plugin.enable("pyg", min_work=0, **keywords)
        conv(x, edge_index)
        assert reduced() == 0
    gnna_plugin.enable("pyg", min_work=0)
    conv.gnna = False
    conv(x, edge_index)
    assert reduced() == 0
    conv.gnna = True
    conv(x, edge_index)
    assert reduced() == 1


def test_softmax_can_be_scripted_and_is_restored_by_disable():
    original = utils.softmax
    gnna_plugin.enable("pyg", min_work=0)
    assert utils.softmax is not original and gat_conv.softmax is utils.softmax
    scripted = torch.jit.script(utils.softmax)
    scores, index = torch.randn(9), torch.randint(0, 4, (9,))
    torch.testing.assert_close(scripted(scores, index), utils.softmax(scores, index))
    gnna_plugin.disable()
    assert utils.softmax is original and gat_conv.softmax is original
