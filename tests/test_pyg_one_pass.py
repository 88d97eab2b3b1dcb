"""gcn_norm and the self-loop functions in one pass over the edges: bitwise equal to PyG's, and with PyG's errors."""

from __future__ import annotations

import itertools

import pytest
import torch

pytest.importorskip("torch_geometric")

import torch_geometric.nn.conv.gat_conv as gat_conv
import torch_geometric.nn.conv.gcn_conv as gcn_conv

import gnna_plugin
from gnna_plugin.adapters.pyg import one_pass


def edges_of(nodes, edges, layout="rows"):
    """Return random edges, every seventh a self-loop. With layout "columns", memory holds [edges, 2], transposed."""
    edge_index = torch.randint(0, nodes, (2, edges)) if edges else torch.empty(2, 0, dtype=torch.long)
    edge_index[1, ::7] = edge_index[0, ::7]
    return edge_index if layout == "rows" else edge_index.t().contiguous().t()


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        if b is None:
            assert a is None
        else:
            assert a.stride() == b.stride()
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def with_and_without(function, *args):
    """Call function()(*args) plain and then with the plug-in.

    Args:
        function: returns the function to call, which the plug-in replaces.

    Returns:
        Two results. The result of a call that raised is the type and message of its error.
    """
    outcomes = []
    for switch in (gnna_plugin.disable, gnna_plugin.enable):
        switch()
        try:
            outcomes.append(function()(*args))
        except Exception as error:
            outcomes.append((type(error), str(error)))
    return outcomes


@pytest.mark.parametrize("nodes, edges", [(1, 0), (1, 3), (30, 0), (30, 200), (3000, 40_000)])
@pytest.mark.parametrize("weight", [None, torch.float32, torch.float64])
def test_gcn_norm_is_bitwise_equal_to_pygs(nodes, edges, weight):
    options = itertools.product((False, True), (False, True), ("source_to_target", "target_to_source"))
    for (improved, loops, flow), layout in itertools.product(options, ("rows", "columns")):
        for dtype in (None, torch.float64):
            edge_index = edges_of(nodes, edges, layout)
            # Of several self-loops of a node the last one counts. PyG writes them in no fixed order, so all are equal.
            values = None if weight is None else torch.where(edge_index[0] == edge_index[1], 0.5, torch.rand(edges))
            args = (edge_index, values if weight is None else values.to(weight), nodes, improved, loops, flow, dtype)
            expected, found = with_and_without(lambda: gcn_conv.gcn_norm, *args)
            assert_same(found, expected)
            assert one_pass.gcn_norm(*args) is not None


def test_degrees_of_zero_and_below():
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
    weight = torch.tensor([0.0, -2.0, 1.0])
    assert_same(*with_and_without(lambda: gcn_conv.gcn_norm, edge_index, weight, 5, False, False))


@pytest.mark.parametrize("nodes, edges", [(1, 3), (30, 0), (30, 200)])
def test_self_loops_are_bitwise_equal_to_pygs(nodes, edges):
    for layout in ("rows", "columns"):
        edge_index = edges_of(nodes, edges, layout)
        assert_same(*with_and_without(lambda: gat_conv.remove_self_loops, edge_index))
        assert_same(*with_and_without(lambda: gat_conv.add_self_loops, edge_index, None, "mean", nodes))
        assert one_pass.remove_self_loops(edge_index, None) is not None
        assert one_pass.add_self_loops(edge_index, None, "mean", nodes) is not None


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("position, value", [((0, 2), 9), ((1, 2), 9), ((0, 2), -1), ((1, 2), -1), ((0, 0), -1)])
def test_ids_out_of_range_give_pygs_results_or_errors(position, value, loops, weighted):
    edge_index = torch.tensor([[0, 1, 2, 3], [0, 2, 1, 4]])
    edge_index[position] = value
    if position == (0, 0):
        edge_index[1, 0] = value
    args = (edge_index, torch.rand(4) if weighted else None, 5, False, loops)
    expected, found = with_and_without(lambda: gcn_conv.gcn_norm, *args)
    if isinstance(expected[0], type):
        assert found == expected
    else:
        assert_same(found, expected)


def test_a_weight_that_is_trained_keeps_its_gradient():
    edge_index, weight = edges_of(30, 200), torch.rand(200, requires_grad=True)
    gnna_plugin.enable()
    gcn_conv.gcn_norm(edge_index, weight, 30)[1].sum().backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "strange", ["int32", "half weights", "no num_nodes", "two features per edge", "negated in place of its numbers"]
)
def test_unusual_arguments_give_pygs_results_or_errors(strange):
    edge_index, weight, nodes = edges_of(30, 200), torch.rand(200), 30
    if strange == "int32":
        edge_index, weight = edge_index.int(), None
    elif strange == "half weights":
        weight = weight.half()
    elif strange.startswith("negated"):
        weight = torch._neg_view(weight)
    elif strange == "no num_nodes":
        nodes = None
    else:
        weight = torch.rand(200, 2)
    expected, found = with_and_without(lambda: gcn_conv.gcn_norm, edge_index, weight, nodes)
    if isinstance(expected[0], type):
        assert found == expected
    else:
        assert_same(found, expected)
