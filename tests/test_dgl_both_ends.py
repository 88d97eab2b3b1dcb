"""update_all with messages of two ends of an edge, such as u_add_v, gives DGL's results without storing them."""

from __future__ import annotations

import os

import pytest
import torch

os.environ.setdefault("DGLBACKEND", "pytorch")
dgl = pytest.importorskip("dgl")
pytestmark = pytest.mark.dgl

import dgl.function as fn  # noqa: E402

import gnna_plugin  # noqa: E402

SOURCES, DESTINATIONS, EDGES = 40, 30, 260
NAMES = [f"{a}_{op}_{b}" for op in ("add", "sub", "mul") for a in "uve" for b in "uve" if a != b]


@pytest.fixture
def block():
    """Return a bipartite, unsorted graph with repeated edges and isolated nodes on both sides."""
    src, dst = torch.randint(1, SOURCES - 1, (EDGES,)), torch.randint(1, DESTINATIONS - 1, (EDGES,))
    return dgl.create_block((src, dst), num_src_nodes=SOURCES, num_dst_nodes=DESTINATIONS)


def features(*shape, dtype=torch.float64):
    rows = {"u": SOURCES, "v": DESTINATIONS, "e": EDGES}
    return {end: torch.randn(count, *shape, dtype=dtype) for end, count in rows.items()}


def updated(graph, message, reduce, given):
    """Return the result of update_all and the gradients of u, v and e."""
    given = {end: x.clone().requires_grad_() for end, x in given.items()}
    with graph.local_scope():
        graph.srcdata["x"], graph.dstdata["x"], graph.edata["x"] = given["u"], given["v"], given["e"]
        graph.update_all(getattr(fn, message)("x", "x", "m"), getattr(fn, reduce)("m", "out"))
        out = graph.dstdata["out"]
    (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return [out.detach(), *(torch.zeros_like(x) if x.grad is None else x.grad for x in given.values())]


def assert_dgls(graph, message, reduce, given):
    wanted = updated(graph, message, reduce, given)
    gnna_plugin.enable("dgl", min_work=0)
    for a, b in zip(updated(graph, message, reduce, given), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    gnna_plugin.disable()


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("message", NAMES)
def test_outputs_and_gradients(block, message, reduce):
    for shape in ((16,), (4, 9)):
        assert_dgls(block, message, reduce, features(*shape))
    if message not in ("u_add_e", "u_sub_e", "e_mul_u"):  # DGL reduces these in one step
        counts = gnna_plugin.status().layers.values()
        assert sum(c.fused for c in counts) >= 2 and not any(c.framework for c in counts)


def test_infinite_features_do_not_reach_nodes_without_edges(block):
    given = features(16)
    given["v"][0] = float("inf")  # node 0 has no in-edges
    for message in ("u_add_v", "v_mul_e"):
        for reduce in ("sum", "mean"):
            wanted = updated(block, message, reduce, given)[0]
            gnna_plugin.enable("dgl", min_work=0)
            torch.testing.assert_close(updated(block, message, reduce, given)[0], wanted)
            gnna_plugin.disable()


@pytest.mark.parametrize("reduce", ["max", "min"])
def test_extrema_are_dgls(block, reduce):
    assert_dgls(block, "u_add_v", reduce, features(16))


def test_calls_that_do_not_fit_are_dgls(block):
    given = features(16)
    assert_dgls(block, "u_add_v", "sum", features(3))
    assert_dgls(block, "u_add_v", "sum", {**given, "v": given["v"][:, :1]})
    reasons = gnna_plugin.status().layers["dgl.u_add_v_sum"].framework
    assert reasons == {"features too narrow to gain": 1, "operands of different shapes": 1}


def test_relations_of_a_heterograph():
    ends = torch.randint(0, 20, (2, 90))
    graph = dgl.heterograph({("a", "to", "b"): (ends[0], ends[1]), ("b", "back", "a"): (ends[1], ends[0])})
    graph.nodes["a"].data["x"], graph.nodes["b"].data["x"] = torch.randn(2, 20, 16, dtype=torch.float64)

    def run():
        sums = {etype: (fn.u_sub_v("x", "x", "m"), fn.sum("m", "out")) for etype in ("to", "back")}
        graph.multi_update_all(sums, "sum")
        return graph.nodes["a"].data.pop("out"), graph.nodes["b"].data.pop("out")

    wanted = run()
    gnna_plugin.enable("dgl", min_work=0)
    torch.testing.assert_close(run(), wanted)
    assert gnna_plugin.status().layers["dgl.u_sub_v_sum"].fused == 2


def test_nothing_of_the_size_of_the_edges_is_stored(block):
    gnna_plugin.enable("dgl", min_work=0)
    given, saved = features(16), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        updated(block, "u_add_v", "sum", given)
    assert all(t.dim() < 2 or t.size(0) < EDGES for t in saved)


def test_switching_off_removes_the_added_operators():
    before = set(vars(dgl.ops))
    gnna_plugin.enable("dgl")
    assert {"u_add_v_sum", "v_sub_e_mean", "e_add_u_sum"} <= set(vars(dgl.ops)) - before
    gnna_plugin.disable()
    assert set(vars(dgl.ops)) == before
