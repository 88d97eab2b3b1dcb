"""segment_reduce, the reduction of existing messages, and its use under PyG."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import gnna_plugin

REDUCES = ("sum", "mean", "max", "min")


def expected(messages, index, rows, reduce):
    shape = (rows, *messages.shape[1:])
    spread = index.long().view(-1, *[1] * (messages.dim() - 1)).expand_as(messages)
    name = reduce if reduce in ("sum", "mean") else "a" + reduce
    return messages.new_zeros(shape).scatter_reduce(0, spread, messages, name, include_self=False)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("shape", [(), (1,), (17,), (3, 8), (130,)])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_results_equal_scatter_reduce(device, reduce, order, shape, dtype):
    index = torch.randint(2, 40, (600,), device=device).to(dtype)
    if order == "sorted":
        index = index.sort().values
    messages = torch.randn(600, *shape, dtype=torch.float64, device=device)
    found = torch.ops.gnna.segment_reduce(messages, index, 45, reduce)
    torch.testing.assert_close(found, expected(messages, index, 45, reduce))


@pytest.mark.parametrize("reduce", REDUCES)
def test_gradients(device, reduce):
    index = torch.randint(0, 4, (9,), device=device)
    messages = torch.randn(9, 3, dtype=torch.float64, device=device, requires_grad=True)
    assert gradcheck(lambda m: torch.ops.gnna.segment_reduce(m, index, 5, reduce), messages)
    assert gradgradcheck(lambda m: torch.ops.gnna.segment_reduce(m, index, 5, reduce), messages)
    torch.library.opcheck(torch.ops.gnna.segment_reduce.default, (messages, index, 5, reduce, False))


def test_a_segment_plan_is_not_mistaken_for_a_graphs(device):
    """The same index tensor is also both ends of a graph that has as many nodes as the index has elements."""
    index = torch.randint(0, 50, (50,), device=device)
    x = torch.randn(50, 4, dtype=torch.float64, device=device)
    for _ in range(2):
        segments = torch.ops.gnna.segment_reduce(x, index, 50, "sum")
        loops = torch.ops.gnna.spmm(x, None, index, index, 50, "sum")
        torch.testing.assert_close(segments, expected(x, index, 50, "sum"))
        torch.testing.assert_close(loops, expected(x[index], index, 50, "sum"))


def test_invalid_arguments_are_refused(device):
    messages, index = torch.ones(3, 2, device=device), torch.tensor([0, 5, 1], device=device)
    with pytest.raises(ValueError, match=r"index\[1\] = 5 is out of range: valid indices are 0 to 4"):
        torch.ops.gnna.segment_reduce(messages, index, 5, "sum")
    with pytest.raises(ValueError, match="3 messages and 2 indices"):
        torch.ops.gnna.segment_reduce(messages, index[:2], 5, "sum")


@pytest.mark.parametrize("aggr", REDUCES)
def test_pyg_aggregations_of_existing_messages(device, aggr):
    geometric = pytest.importorskip("torch_geometric")
    aggregation = geometric.nn.resolver.aggregation_resolver(aggr)
    messages = torch.randn(500, 8, dtype=torch.float64, device=device)
    index = torch.randint(0, 30, (500,), device=device)

    def run():
        leaf = messages.clone().requires_grad_()
        out = aggregation(leaf, index, dim_size=31)
        out.square().sum().backward()
        return out.detach(), leaf.grad

    plain = run()
    gnna_plugin.enable(min_work=0)
    for found, wanted in zip(run(), plain, strict=True):
        torch.testing.assert_close(found, wanted)
    assert gnna_plugin.status().layers[type(aggregation).__name__].reduced == 1
    with pytest.raises(ValueError, match="dim_size"):
        aggregation(messages, index + 10, dim_size=31)


def test_layers_that_cannot_be_fused_reduce_on_a_plan(device):
    pytest.importorskip("torch_geometric")
    import pyg_layers as layers

    x, edge_index, _ = layers.graph(device)
    layer = layers.build(layers.NOT_FUSED["EdgeConv"], device)
    gnna_plugin.enable(min_work=0)
    layer(x, edge_index)
    assert gnna_plugin.status().layers["EdgeConv"].reduced == 1
