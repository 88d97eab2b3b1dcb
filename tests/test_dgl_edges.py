"""DGL's computations on edges (u_dot_v, u_mul_v, edge_softmax) give the same results and gradients with the plug-in."""

from __future__ import annotations

import os

import pytest
import torch

os.environ.setdefault("DGLBACKEND", "pytorch")
dgl = pytest.importorskip("dgl")
pytestmark = pytest.mark.dgl

import dgl.backend.pytorch.sparse as sparse  # noqa: E402
import dgl.nn as dnn  # noqa: E402
from dgl_errors import assert_stays_dgls  # noqa: E402

import gnna_plugin  # noqa: E402
from gnna_plugin import report  # noqa: E402

SOURCES, DESTINATIONS, EDGES = 40, 30, 260


@pytest.fixture(params=[torch.int32, torch.int64], ids=["int32", "int64"])
def graph(request):
    """Return a bipartite, unsorted graph with repeated edges and isolated nodes on both sides."""
    src, dst = torch.randint(1, SOURCES - 1, (EDGES,)), torch.randint(1, DESTINATIONS - 1, (EDGES,))
    block = dgl.create_block((src, dst), num_src_nodes=SOURCES, num_dst_nodes=DESTINATIONS)
    return block.to(torch.device("cpu")).int() if request.param == torch.int32 else block


@pytest.fixture
def empty():
    return dgl.graph((torch.empty(0).long(), torch.empty(0).long()), num_nodes=5)


def run(function, *leaves):
    """Return the output and the gradients of the leaves, for an upstream gradient with different elements."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    out = function(*leaves)
    (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def assert_the_same_and_counted(name, function, *leaves):
    plain = run(function, *leaves)
    report.reset()
    gnna_plugin.enable("dgl", min_work=0)
    for found, wanted in zip(run(function, *leaves), plain, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)  # too strict for sums in float32
    assert gnna_plugin.status().layers[name].fused == 1
    gnna_plugin.disable()


def features(rows, *shape, dtype=torch.float64):
    return torch.randn(rows, *shape, dtype=dtype)


@pytest.mark.parametrize("shape", [(16,), (33,), (4, 8), (2, 3, 5)])
@pytest.mark.parametrize("op", ["dot", "mul"])
def test_products_of_both_ends(graph, op, shape):
    u, v = features(SOURCES, *shape), features(DESTINATIONS, *shape)
    name = f"dgl.u_{op}_v"
    assert_the_same_and_counted(name, lambda u, v: getattr(dgl.ops, f"u_{op}_v")(graph, u, v), u, v)
    assert_the_same_and_counted(name, lambda u, v: getattr(dgl.ops, f"v_{op}_u")(graph, v, u), u, v)


def test_narrow_broadcast_and_other_products_fall_back_to_dgl(graph):
    u, v, e = features(SOURCES, 3), features(DESTINATIONS, 3), features(EDGES, 3)
    wide_u, one_v = features(SOURCES, 4, 16), features(DESTINATIONS, 1, 16)
    calls = [
        lambda: dgl.ops.u_dot_v(graph, u, v),
        lambda: dgl.ops.u_dot_v(graph, wide_u, one_v),
        lambda: dgl.ops.u_add_v(graph, u, v),
        lambda: dgl.ops.u_mul_e(graph, u, e),
    ]
    plain = [call() for call in calls]
    gnna_plugin.enable("dgl", min_work=0)
    for call, wanted in zip(calls, plain, strict=True):
        torch.testing.assert_close(call(), wanted)
    reasons = gnna_plugin.status().layers["dgl.u_dot_v"].framework
    assert reasons == {"features too narrow to gain": 1, "operands of different shapes": 1}
    assert gnna_plugin.status().fused_calls == 0


def test_the_gradient_of_edge_weights_is_a_product(graph):
    """DGL's own autograd, which computes this gradient for update_all, max and min, calls our _gsddmm."""
    u, w = features(SOURCES, 4, 8), features(EDGES, 4, 1)

    def weighted(u, w):
        return sparse.gspmm(graph._graph, "mul", "sum", u, w)

    assert_the_same_and_counted("dgl.u_dot_v", weighted, u, w)
    assert_the_same_and_counted("dgl.u_mul_v", weighted, features(SOURCES, 20), features(EDGES, 20))


@pytest.mark.parametrize("norm_by", ["dst", "src"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (8,), (2, 5)])
def test_edge_softmax(graph, norm_by, shape):
    scores = features(EDGES, *shape) * 20
    assert_the_same_and_counted(
        "dgl.edge_softmax", lambda s: dgl.nn.functional.edge_softmax(graph, s, norm_by=norm_by), scores
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edge_softmax_in_other_precisions(graph, dtype):
    scores = features(EDGES, 4, dtype=dtype)
    exact = dgl.ops.edge_softmax(graph, scores.double())
    gnna_plugin.enable("dgl", min_work=0)
    found = dgl.ops.edge_softmax(graph, scores)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=10 * torch.finfo(dtype).eps, atol=0)


def test_edge_softmax_is_differentiable_twice(graph):
    """DGL's own edge_softmax is not."""
    gnna_plugin.enable("dgl", min_work=0)
    scores = features(EDGES, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: dgl.ops.edge_softmax(graph, s), scores)
    assert torch.autograd.gradgradcheck(lambda s: dgl.ops.edge_softmax(graph, s, norm_by="src"), scores)


def test_edge_softmax_of_a_relation(graph):
    ends = torch.randint(0, 20, (2, 90))
    hetero = dgl.heterograph({("a", "to", "b"): (ends[0], ends[1]), ("b", "back", "a"): (ends[1], ends[0])})
    scores = features(90, 4)
    assert_the_same_and_counted("dgl.edge_softmax", lambda s: dgl.ops.edge_softmax(hetero["to"], s), scores)


def test_edge_softmax_over_several_relations_or_some_edges_falls_back_to_dgl(graph):
    ends = torch.randint(0, 20, (2, 90))
    hetero = dgl.heterograph({("a", "to", "b"): (ends[0], ends[1]), ("c", "to", "b"): (ends[1], ends[0])})
    scores = {etype: features(90, 2) for etype in hetero.canonical_etypes}
    some, of_some = torch.arange(0, EDGES, 3).to(graph.idtype), features(len(range(0, EDGES, 3)), 2)
    plain = dgl.ops.edge_softmax(hetero, scores), dgl.ops.edge_softmax(graph, of_some, eids=some)
    gnna_plugin.enable("dgl", min_work=0)
    found = dgl.ops.edge_softmax(hetero, scores)
    for etype, wanted in plain[0].items():
        torch.testing.assert_close(found[etype], wanted)
    torch.testing.assert_close(dgl.ops.edge_softmax(graph, of_some, eids=some), plain[1])
    assert gnna_plugin.status().layers["dgl.edge_softmax"].framework == {"a subset of the edges": 1}


def test_graphs_without_edges(empty):
    gnna_plugin.enable("dgl", min_work=0)
    assert dgl.ops.edge_softmax(empty, torch.empty(0, 3)).shape == (0, 3)
    assert dgl.ops.u_dot_v(empty, torch.randn(5, 16), torch.randn(5, 16)).shape == (0, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda g: dgl.ops.u_dot_v(g, torch.ones(SOURCES + 1, 16), torch.ones(DESTINATIONS, 16)),
        lambda g: dgl.ops.u_dot_v(g, torch.ones(SOURCES, 16), torch.ones(DESTINATIONS, 17)),
        lambda g: dgl.ops.u_mul_v(g, torch.ones(SOURCES, 16), torch.ones(DESTINATIONS, 16).double()),
        lambda g: dgl.ops.edge_softmax(g, torch.ones(EDGES, 2, dtype=torch.float16)),
        lambda g: dgl.ops.edge_softmax(g, torch.ones(EDGES, 2, dtype=torch.int64)),
    ],
)
def test_errors_are_dgls_own(graph, call):
    assert_stays_dgls(graph, call)


def test_attention_layers_use_our_edge_functions(graph):
    homogeneous = dgl.graph((torch.randint(0, 30, (200,)), torch.randint(0, 30, (200,))), num_nodes=30)
    x = features(30, 16)
    for layer in (
        dnn.GATConv(16, 8, 4, allow_zero_in_degree=True),
        dnn.DotGatConv(16, 8, 4, allow_zero_in_degree=True),
    ):
        layer = layer.double()
        assert_the_same_and_counted("dgl.edge_softmax", lambda x, layer=layer: layer(homogeneous, x), x)
    assert_the_same_and_counted("dgl.u_dot_v", lambda x, layer=layer: layer(homogeneous, x), x)


def test_min_work_is_applied_and_disable_restores_dgls_functions(graph):
    originals = sparse._gsddmm, sparse.EdgeSoftmax, dgl.heterograph_index.HeteroGraphIndex.reverse
    gnna_plugin.enable("dgl", min_work=10**9)
    dgl.ops.edge_softmax(graph, torch.ones(EDGES, 4))
    dgl.ops.u_dot_v(graph, torch.ones(SOURCES, 16), torch.ones(DESTINATIONS, 16))
    assert "260 edges x 4, " in str(gnna_plugin.status())
    assert "260 edges x 16, " in str(gnna_plugin.status())
    gnna_plugin.disable()
    assert (sparse._gsddmm, sparse.EdgeSoftmax, dgl.heterograph_index.HeteroGraphIndex.reverse) == originals
