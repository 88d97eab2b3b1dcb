"""The DGL adapter's cache of graph indices: an entry is never found for another graph, and dies with its index."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import threading
import weakref

import pytest
import torch

os.environ.setdefault("DGLBACKEND", "pytorch")
dgl = pytest.importorskip("dgl")
pytestmark = pytest.mark.dgl

import dgl.function as fn  # noqa: E402
import dgl.nn as dnn  # noqa: E402

import gnna_plugin  # noqa: E402
from gnna_plugin.adapters.dgl import graphs  # noqa: E402

NODES, EDGES, STEPS = 40, 300, 4


def random_ends(seed):
    return torch.randint(0, NODES, (2, EDGES), generator=torch.Generator().manual_seed(seed))


def features(*shape):
    return torch.randn(*shape, 4, generator=torch.Generator().manual_seed(99), dtype=torch.float64)


def homogeneous(u, v):
    return dgl.graph((u, v), num_nodes=NODES)


def heterogeneous(u, v):
    return dgl.heterograph({("a", "to", "b"): (u, v), ("b", "back", "a"): (v, u)}, {"a": NODES, "b": NODES})


def update_all(reducer):
    def run(graph):
        graph.srcdata["x"] = features(NODES)
        graph.update_all(fn.copy_u("x", "m"), getattr(fn, reducer)("m", "y"))
        return graph.dstdata["y"]

    return run


def relations(graph):
    out = []
    for etype in ("to", "back"):
        out.append(update_all("sum")(graph[etype]))
    return torch.stack(out)


def gradients(reducer):
    def run(graph):
        x, w = features(NODES).requires_grad_(), features(EDGES).requires_grad_()
        getattr(dgl.ops, f"u_mul_e_{reducer}")(graph, x, w).square().sum().backward()
        return torch.cat([x.grad, w.grad])

    return run


def reversed_sum(graph):
    return dgl.ops.copy_u_sum(graph, features(NODES)) + dgl.ops.copy_u_sum(dgl.reverse(graph), features(NODES)) * 2


KINDS = {
    "update_all sum": (homogeneous, update_all("sum")),
    "update_all mean": (homogeneous, update_all("mean")),
    "update_all max": (homogeneous, update_all("max")),
    "u_mul_e_sum": (homogeneous, gradients("sum")),
    "u_mul_e_max": (homogeneous, gradients("max")),
    "copy_e_max": (homogeneous, lambda graph: dgl.ops.copy_e_max(graph, features(EDGES))),
    "edge_softmax": (homogeneous, lambda graph: dgl.ops.edge_softmax(graph, features(EDGES))),
    "u_dot_v": (homogeneous, lambda graph: dgl.ops.u_dot_v(graph, features(NODES, 4), features(NODES, 4))),
    "reverse": (homogeneous, reversed_sum),
    "heterograph": (heterogeneous, relations),
    "block": (lambda u, v: dgl.create_block((u, v), NODES, NODES), update_all("sum")),
    "GraphConv": (homogeneous, lambda graph: dnn.GraphConv(4, 4, weight=False, allow_zero_in_degree=True)(
        graph, features(NODES).float()).double()),
}  # fmt: skip


def rebuilt_over_reused_arrays(kind, numpy):
    build, run = KINDS[kind]
    arrays, out = torch.empty(2, EDGES, dtype=torch.int64), []
    u, v = (end.numpy() for end in arrays) if numpy else arrays
    for step in range(STEPS):
        arrays.copy_(random_ends(step))
        out.append(run(build(u, v)).detach().clone())
    return out


@pytest.mark.parametrize("numpy", [False, True], ids=["torch", "numpy"])
@pytest.mark.parametrize("kind", KINDS)
def test_graphs_rebuilt_over_reused_arrays(kind, numpy):
    plain = rebuilt_over_reused_arrays(kind, numpy)
    gnna_plugin.enable("dgl", min_work=0)
    for found, wanted in zip(rebuilt_over_reused_arrays(kind, numpy), plain, strict=True):
        torch.testing.assert_close(found, wanted)
    assert gnna_plugin.status().fused_calls >= STEPS


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("kind", KINDS)
def test_edge_tensors_die_with_their_graph(kind, no_collector):
    """They die at once, because no reference cycle makes them wait for the garbage collector."""
    build, run = KINDS[kind]
    gnna_plugin.enable("dgl", min_work=0)
    graph = build(*random_ends(0))
    run(graph)
    references = [weakref.ref(known.entry.edges.src) for known in graphs._known.values() if known.entry]
    references += [known.reference for known in graphs._known.values()]
    assert len(references) >= 2
    del graph
    assert not any(reference() is not None for reference in references)
    assert not graphs._known


def assert_same_with_the_plug_in(run):
    """Assert that run(), which returns tensors, gives the same with the plug-in on as without it."""
    plain = run()
    gnna_plugin.enable("dgl", min_work=0)
    for found, wanted in zip(run(), plain, strict=True):
        torch.testing.assert_close(found, wanted)


def test_plans_of_dead_graphs_are_dropped(no_collector):
    gnna_plugin.enable("dgl", min_work=0)
    for step in range(20):
        gradients("sum")(homogeneous(*random_ends(step)))
    assert gnna_plugin.status().plans <= 4  # those of the last two graphs at most


def test_a_relation_graph_is_owned_by_its_parent(no_collector):
    gnna_plugin.enable("dgl", min_work=0)
    graph = heterogeneous(*random_ends(0))
    relations(graph)
    before = graphs.edges_of(graph["to"]._graph)
    relations(graph)
    assert graphs.edges_of(graph["to"]._graph) is before
    kept = graph["to"]
    del graph
    assert graphs.edges_of(kept._graph) is before
    torch.testing.assert_close(update_all("sum")(kept), update_all("sum")(homogeneous(*random_ends(0))))


@pytest.mark.parametrize("reversed_first", [False, True])
def test_a_reversed_index_shares_the_tensors_with_ends_swapped(reversed_first, no_collector):
    gnna_plugin.enable("dgl", min_work=0)
    graph = homogeneous(*random_ends(0))
    gidx, back = graph._graph, graph._graph.reverse()
    for index in (back, gidx) if reversed_first else (gidx, back):
        graphs.edges_of(index)
    there, here = graphs.edges_of(gidx).edges, graphs.edges_of(back).edges
    assert there.src is here.dst and there.dst is here.src
    assert back.reverse() is gidx and gidx.reverse() is back
    assert torch.equal(torch.stack([there.src, there.dst]), random_ends(0))
    del graph, gidx  # the reversed index lives on, and reverse() makes a new index for the original direction
    again = graphs.edges_of(back.reverse()).edges
    assert again.src is there.src and again.dst is there.dst


def test_forward_and_backward_share_two_plans_also_for_a_reversed_graph():
    gnna_plugin.enable("dgl", min_work=0)
    graph = homogeneous(*random_ends(0))
    for each in (graph, dgl.reverse(graph), graph.local_var(), graph.clone(), graph):
        gradients("sum")(each), gradients("max")(each), update_all("sum")(each)
    assert gnna_plugin.status().plans == 2


@pytest.mark.parametrize("change", [
    lambda g: g.add_edges([0, 1, 2], [3, 3, 3]), lambda g: g.remove_edges([0, 5]), lambda g: g.add_nodes(3),
    lambda g: g.remove_nodes([1])])  # fmt: skip
def test_graphs_that_are_changed_in_place(change):
    def run():
        graph, out = homogeneous(*random_ends(0)), []
        for _ in range(3):
            graph.ndata["x"] = torch.arange(graph.num_nodes()).double().view(-1, 1)
            with graph.local_scope():
                graph.update_all(fn.copy_u("x", "m"), fn.sum("m", "y"))
                out.append(graph.ndata["y"])
            change(graph)
        return out

    assert_same_with_the_plug_in(run)


def test_writes_to_a_graphs_arrays_after_first_use_have_no_effect():
    """DGL aggregates with the formats that it created at first use. The plug-in's plans must do the same."""

    def run():
        arrays, out = random_ends(0).clone(), []
        graph = homogeneous(*arrays)
        for step in range(3):
            # The gradients of weights are left out, because DGL computes them from the arrays themselves.
            out += [gradients("sum")(graph)[:NODES], gradients("max")(graph)[:NODES], update_all("mean")(graph)]
            gnna_plugin.clear_cache()  # plans that are built again must not see the writes either
            arrays.copy_(random_ends(step + 1))
        return out

    assert_same_with_the_plug_in(run)


def test_a_graph_first_seen_in_inference_mode_can_be_trained():
    graph = homogeneous(*random_ends(0))
    expected = gradients("max")(graph)
    gnna_plugin.enable("dgl", min_work=0)
    with torch.inference_mode():
        update_all("sum")(graph), dgl.ops.copy_e_max(graph, features(EDGES))
        graph.ndata.pop("x"), graph.ndata.pop("y")
    torch.testing.assert_close(gradients("max")(graph), expected)
    assert gnna_plugin.status().plans >= 1


def test_pickled_and_converted_graphs(tmp_path):
    graph = homogeneous(*random_ends(0))
    expected = update_all("sum")(graph)
    gnna_plugin.enable("dgl", min_work=0)
    update_all("sum")(graph)
    dgl.save_graphs(str(tmp_path / "graph"), [graph])
    copies = [pickle.loads(pickle.dumps(graph)), graph.int(), graph.int().long(), graph.to("cpu"), graph.formats("csc"),
              graph.formats("coo"), dgl.load_graphs(str(tmp_path / "graph"))[0][0], dgl.batch([graph])]  # fmt: skip
    for each in copies:
        torch.testing.assert_close(update_all("sum")(each), expected)


def _child(_):
    torch.set_num_threads(1)
    return [KINDS["u_mul_e_sum"][1](_shared), KINDS["update_all max"][1](homogeneous(*random_ends(5)))]


_shared = None


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_forked_processes():
    global _shared
    _shared = homogeneous(*random_ends(0))
    wanted = [KINDS["u_mul_e_sum"][1](_shared), KINDS["update_all max"][1](homogeneous(*random_ends(5)))]
    gnna_plugin.enable("dgl", min_work=0)
    KINDS["u_mul_e_sum"][1](_shared)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.map_async(_child, [0]).get(timeout=60)[0]
    _shared = None
    torch.testing.assert_close(found, wanted)


def test_threads_may_use_one_graph_and_its_reverse():
    graph = homogeneous(*random_ends(0))
    expected = reversed_sum(graph)
    gnna_plugin.enable("dgl", min_work=0)
    results, start = [], threading.Barrier(4)

    def work():
        start.wait()
        for _ in range(20):
            results.append(reversed_sum(graph))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    for found in results:
        torch.testing.assert_close(found, expected)
