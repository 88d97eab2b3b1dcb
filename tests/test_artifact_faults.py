"""The faults of the original GNNAdvisor artifact: one test per fault shows that this code does not have it."""

from __future__ import annotations

import os

import numpy as np
import pytest
import reference
import torch
from conftest import CUDA
from torch_geometric.nn import GCNConv, GINConv

import gnna_plugin
from gnna_plugin.data import load_graph
from gnna_plugin.decider import Facts, decide
from gnna_plugin.extractor import graph_summary, paper_model
from gnna_plugin.tools.compare.runner import max_rel_error

on_gpu = pytest.mark.parametrize("device", [CUDA], indirect=True)


def directed_graph(device, nodes=30, edges=150):
    """Return edge_index, int64 [2, at most `edges`], of a random directed graph.

    It has no self-loops and no repeated edges, and the last node is isolated.
    """
    src = torch.randint(0, nodes - 1, (edges,))
    dst = (src + torch.randint(1, nodes - 1, (edges,))) % (nodes - 1)
    return torch.stack([src, dst]).unique(dim=1).to(device)


def adjacency(edge_index, nodes):
    """Return the dense float64 [nodes, nodes] matrix A, where A[dst, src] is the number of such edges."""
    a = torch.zeros(nodes, nodes, dtype=torch.float64, device=edge_index.device)
    return a.index_put_((edge_index[1], edge_index[0]), a.new_ones(edge_index.size(1)), accumulate=True)


def accelerated(layer, *inputs):
    """Return the layer's output with the plug-in on, and fail if PyG computed it."""
    with gnna_plugin.enabled("pyg", strict=True, min_work=0):
        out = layer(*inputs)
        assert gnna_plugin.status().fused_calls > 0
    return out


@pytest.mark.parametrize("in_order", [True, False])
def test_edge_offsets_beyond_two_to_the_24_are_exact(device, in_order):
    """As float32, offset 16,777,217 becomes 16,777,216.

    Row 0 gathers zeros except at its first and last edge, so that an offset that is wrong by one changes a sum.
    """
    first = 2**24 + 1
    src = torch.zeros(first + 6, dtype=torch.int32, device=device)
    dst = torch.zeros_like(src)
    src[0] = src[first - 1] = 3
    src[first:] = torch.tensor([1, 2, 3, 1, 3, 2], dtype=torch.int32)
    dst[first:] = torch.tensor([1, 1, 1, 1, 2, 2], dtype=torch.int32)
    if not in_order:
        src, dst = src.flip(0), dst.flip(0)
    x = torch.tensor([[0.0], [1.0], [10.0], [100.0]], device=device)
    out = torch.ops.gnna.spmm(x, None, src, dst, 4, "sum")
    assert out.view(-1).tolist() == [200, 112, 110, 0]


@pytest.mark.parametrize("nodes", [4, 5, 40])
def test_a_trailing_node_without_edges_loses_no_group(device, nodes):
    """The artifact left the last row pointer at 0, which lost the last neighbour group."""
    edge_index = torch.tensor([[1, 3, 0, 1, 2], [0, 0, 2, 2, 2]], device=device)
    x = torch.randn(nodes, 8, dtype=torch.float64, device=device)
    out = gnna_plugin.spmm(x, edge_index)
    torch.testing.assert_close(out, adjacency(edge_index, nodes) @ x)
    assert out.shape == (nodes, 8) and not out[3:].any()


def test_gcn_divides_by_the_degrees(device):
    """GCN is D^-1/2 (A + I) D^-1/2 X W, but the artifact multiplied by sqrt(d_i d_j)."""
    nodes = 30
    edge_index = directed_graph(device, nodes)
    x = torch.randn(nodes, 12, dtype=torch.float64, device=device)
    layer = GCNConv(12, 6).to(device, torch.float64)
    a = adjacency(edge_index, nodes) + torch.eye(nodes, dtype=torch.float64, device=device)
    scale = a.sum(1).rsqrt()
    expected = scale[:, None] * a * scale @ x @ layer.lin.weight.t() + layer.bias
    torch.testing.assert_close(accelerated(layer, x, edge_index), expected)


@pytest.mark.parametrize("eps", [0.0, 0.5])
def test_gin_keeps_the_nodes_own_features(device, eps):
    """GIN is (1 + eps) x + A x, but the artifact computed eps * A x."""
    edge_index = directed_graph(device)
    x = torch.randn(30, 12, dtype=torch.float64, device=device)
    layer = GINConv(torch.nn.Identity(), eps=eps).to(device, torch.float64)
    torch.testing.assert_close(accelerated(layer, x, edge_index), (1 + eps) * x + adjacency(edge_index, 30) @ x)


def test_backward_on_a_directed_graph_uses_the_transpose(device):
    edge_index = directed_graph(device)
    a = adjacency(edge_index, 30)
    assert not torch.equal(a, a.t())
    x = torch.randn(30, 7, dtype=torch.float64, device=device, requires_grad=True)
    upstream = torch.randn(30, 7, dtype=torch.float64, device=device)
    gnna_plugin.spmm(x, edge_index).backward(upstream)
    torch.testing.assert_close(x.grad, a.t() @ upstream)


def test_float64_is_not_read_as_float32(device):
    """1 + 2^-40 rounds to 1 in float32, and its bytes read as float32 are two other numbers."""
    x = torch.full((3, 5), 1 + 2.0**-40, dtype=torch.float64, device=device)
    out = gnna_plugin.spmm(x, torch.tensor([[0, 1], [2, 2]], device=device))
    assert out.dtype == torch.float64 and out[2].tolist() == [2 + 2.0**-39] * 5 and not out[:2].any()


def test_an_error_does_not_end_the_process(device):
    """The artifact exited after an error. On CUDA, an unchecked index also destroys the context."""
    x = torch.ones(3, 4, device=device)
    with pytest.raises(ValueError, match="out of range"):
        gnna_plugin.spmm(x, torch.tensor([[0, 3], [1, 1]], device=device))
    assert gnna_plugin.spmm(x, torch.tensor([[0, 2], [1, 1]], device=device)).sum().item() == 8


def test_an_average_degree_below_one_gives_no_group_of_size_zero(device):
    """The artifact used int(average degree) as the group size and divided by it."""
    src, dst, n, m = reference.edges("sparse", device)
    assert len(src) < m
    x = torch.randn(n, 33, device=device)
    expected = reference.spmm(x.double(), None, src, dst, m, "sum").float()
    torch.testing.assert_close(torch.ops.gnna.spmm(x, None, src, dst, m, "sum"), expected)
    for edge_index in (torch.stack([src, dst]), torch.stack([src, dst])[:, :0]):
        assert paper_model(graph_summary(edge_index, n), 33).ngs >= 1


@pytest.mark.parametrize("width", [16_384, 16_385])
def test_wide_features_fit(device, width):
    """In the artifact, shared memory per block grew with the width, beyond the default limit of a block."""
    src, dst, n, m = reference.edges("random", device)
    x = torch.randn(n, width, device=device)
    expected = reference.spmm(x.double(), None, src, dst, m, "sum").float()
    torch.testing.assert_close(torch.ops.gnna.spmm(x, None, src, dst, m, "sum"), expected, rtol=1e-5, atol=1e-5)


def test_groups_of_one_row_are_added_in_the_same_order_every_time(device):
    """The artifact added the groups of a row with atomics, in any order, not by a leader as in the paper."""
    src, dst, n, m = reference.edges("hub", device)
    x = torch.randn(n, 48, device=device)
    first = torch.ops.gnna.spmm(x, None, src, dst, m, "sum")
    expected = reference.spmm(x.double(), None, src, dst, m, "sum").float()
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(first, torch.ops.gnna.spmm(x, None, src, dst, m, "sum")) for _ in range(5))


def test_one_layers_configuration_does_not_depend_on_another():
    """The artifact's decider changed an object that all layers shared, so that their order changed the decisions."""
    widths = [16, 1433, 7, 602]

    def decisions(order):
        return {width: decide(Facts(2708, 2708, 10556, 168, width, width)) for width in order}

    assert decisions(widths) == decisions(reversed(widths))
    with pytest.raises(AttributeError):
        decide(Facts(10, 10, 20, 5, 16, 16)).kernel = "other"


@on_gpu
def test_kernels_run_on_the_users_stream(device):
    """A kernel on the default stream would read x before it is written."""
    edge_index = directed_graph(device)
    expected = adjacency(edge_index, 30) @ torch.ones(30, 4, dtype=torch.float64, device=device)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        x = torch.zeros(30, 4, dtype=torch.float64, device=device)
        torch.cuda._sleep(50_000_000)
        out = gnna_plugin.spmm(x.add_(1), edge_index)
        torch.testing.assert_close(out, expected)


@on_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_kernels_run_on_the_device_of_their_tensors(device):
    edge_index = directed_graph("cuda:1")
    x = torch.randn(30, 4, dtype=torch.float64, device="cuda:1")
    assert torch.cuda.current_device() == 0
    torch.testing.assert_close(gnna_plugin.spmm(x, edge_index), adjacency(edge_index, 30) @ x)
    assert torch.cuda.current_device() == 0


def test_verification_on_random_data_fails_for_a_wrong_kernel(device):
    """The artifact verified with features of ones, which any sum over the right number of neighbours passes."""
    edge_index = directed_graph(device)
    wrong_sources = torch.stack([edge_index[0].roll(1), edge_index[1]])
    a = adjacency(edge_index, 30)

    def error(x, edges):
        return max_rel_error({"out": gnna_plugin.spmm(x, edges).cpu()}, {"out": (a @ x.double()).cpu()})

    ones, random = (make(30, 16, device=device) for make in (torch.ones, torch.randn))
    assert error(ones, wrong_sources) == 0
    assert error(random, wrong_sources) > 0.1
    assert error(random, edge_index) < 1e-6


class Exploit:
    def __reduce__(self):
        return os.mkdir, (os.environ["GNNA_TEST_EXPLOIT"],)


def test_pickled_graph_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNA_TEST_EXPLOIT", str(tmp_path / "unpickled"))
    hidden = np.empty(1, object)
    hidden[0] = Exploit()
    np.savez(tmp_path / "graph.npz", num_nodes=np.int64(2), src_li=hidden, dst_li=np.array([1]))
    with pytest.raises(ValueError, match="'src_li' cannot be read"):
        load_graph(tmp_path / "graph.npz")
    assert not (tmp_path / "unpickled").exists()
