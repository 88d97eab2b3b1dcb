"""DGL scripts give the same results with the plug-in, also in cases that only DGL defines, such as empty rows."""

from __future__ import annotations

import os

import pytest
import torch

os.environ.setdefault("DGLBACKEND", "pytorch")
dgl = pytest.importorskip("dgl")
pytestmark = pytest.mark.dgl

import dgl.function as fn  # noqa: E402
import dgl.nn as dnn  # noqa: E402
from dgl_errors import assert_stays_dgls  # noqa: E402

import gnna_plugin  # noqa: E402
from gnna_plugin import switch  # noqa: E402

NODES, EDGES = 40, 260
REDUCERS = ("sum", "max", "min", "mean")


@pytest.fixture(params=[torch.int32, torch.int64], ids=["int32", "int64"])
def graph(request):
    """Return a directed, unsorted graph with repeated edges and isolated first and last nodes."""
    ends = torch.randint(1, NODES - 1, (2, EDGES)).to(request.param)
    return dgl.graph((ends[0], ends[1]), num_nodes=NODES)


@pytest.fixture
def block(graph):
    """Return a bipartite graph of 40 sources and 15 destinations."""
    src, dst = graph.edges()
    return dgl.create_block((src, dst % 13 + 1), num_src_nodes=NODES, num_dst_nodes=15)


def both(function, *leaves):
    """Return [plain, accelerated], each the output of function(*leaves) and the gradients of the leaves."""
    results = []
    for accelerated in (False, True):
        inputs = [leaf.clone().requires_grad_() for leaf in leaves]
        if accelerated:
            gnna_plugin.enable("dgl", min_work=0)
        out = function(*inputs)
        (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)).nan_to_num(0, 0, 0).sum().backward()
        results.append([out.detach(), *(leaf.grad for leaf in inputs)])
        if accelerated:
            gnna_plugin.disable()
    return results


def assert_same(results):
    for plain, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-11)  # too strict for sums in float32


def fused():
    return gnna_plugin.status().fused_calls


@pytest.mark.parametrize("reducer", REDUCERS)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 8)])
def test_copy_u_and_copy_e(graph, reducer, shape):
    x = torch.randn(NODES, *shape, dtype=torch.float64)
    e = torch.randn(EDGES, *shape, dtype=torch.float64)
    assert_same(both(lambda x: getattr(dgl.ops, f"copy_u_{reducer}")(graph, x), x))
    assert_same(both(lambda e: getattr(dgl.ops, f"copy_e_{reducer}")(graph, e), e))
    assert fused() >= 2


@pytest.mark.parametrize("reducer", REDUCERS)
@pytest.mark.parametrize(
    ("u_shape", "e_shape"),
    [
        ((6,), (1,)),
        ((6,), (6,)),
        ((), ()),
        ((6,), ()),
        ((2, 5), (2, 1)),
        ((2, 5), (1, 1)),
        ((1, 5), (2, 1)),
        ((1,), (6,)),
    ],
)
def test_u_mul_e_broadcasts_as_numpy_does(graph, reducer, u_shape, e_shape):
    x = torch.randn(NODES, *u_shape, dtype=torch.float64)
    e = torch.rand(EDGES, *e_shape, dtype=torch.float64) + 0.1
    assert_same(both(lambda x, e: getattr(dgl.ops, f"u_mul_e_{reducer}")(graph, x, e), x, e))
    assert fused() >= 1


@pytest.mark.parametrize("reducer", REDUCERS)
def test_blocks_with_different_numbers_of_sources_and_destinations(block, reducer):
    x, e = torch.randn(NODES, 6, dtype=torch.float64), torch.rand(EDGES, 6, dtype=torch.float64)
    assert_same(both(lambda x, e: getattr(dgl.ops, f"u_mul_e_{reducer}")(block, x, e), x, e))


@pytest.mark.parametrize("reducer", ["max", "min"])
def test_rows_without_edges(graph, reducer):
    """The op gives infinity, update_all gives 0, and a graph without edges gives 0 everywhere.

    The op's gradient of an empty row goes to node 0, as in DGL.
    """
    x = torch.randn(NODES, 4, dtype=torch.float64)
    plain, ours = both(lambda x: getattr(dgl.ops, f"copy_u_{reducer}")(graph, x), x)
    assert ours[0][0].isinf().all() and torch.equal(ours[0], plain[0]) and torch.equal(ours[1], plain[1])

    def update_all(x):
        graph.srcdata["x"] = x
        graph.update_all(fn.copy_u("x", "m"), getattr(fn, reducer)("m", "y"))
        return graph.dstdata.pop("y")

    assert_same(both(update_all, x))
    gnna_plugin.enable("dgl", min_work=0)
    assert not update_all(x)[0].any()
    empty = dgl.graph((torch.empty(0).to(graph.idtype), torch.empty(0).to(graph.idtype)), num_nodes=5)
    assert not getattr(dgl.ops, f"copy_u_{reducer}")(empty, x[:5]).any()


def test_nan_never_wins(graph):
    x = torch.randn(NODES, 4, dtype=torch.float64)
    x[5:9] = float("nan")
    plain, ours = both(lambda x: dgl.ops.copy_u_max(graph, x), x)
    assert torch.equal(ours[0], plain[0])


def test_winners_are_ids_in_the_graphs_dtype(graph):
    import dgl.backend.pytorch.sparse as sparse

    x, e = torch.randn(NODES, 3), torch.rand(EDGES, 3)
    gnna_plugin.enable("dgl", min_work=0)
    out, (arg_u, arg_e) = sparse._gspmm(graph._graph, "mul", "max", x, e)
    src, dst = graph.edges()
    rows = graph.in_degrees() > 0
    assert arg_u.dtype == arg_e.dtype == graph.idtype
    assert torch.equal(src[arg_e.long()][rows], arg_u[rows])
    assert torch.equal(dst[arg_e.long()][rows].long(), torch.arange(NODES)[rows].view(-1, 1).expand(-1, 3))
    torch.testing.assert_close((x.gather(0, arg_u.long()) * e.gather(0, arg_e.long()))[rows], out[rows])


def test_gradients_of_first_and_second_order(graph):
    gnna_plugin.enable("dgl", min_work=0)
    x = torch.randn(NODES, 2, dtype=torch.float64, requires_grad=True)
    e = torch.rand(EDGES, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, e: dgl.ops.u_mul_e_sum(graph, x, e), (x, e))
    assert torch.autograd.gradgradcheck(lambda x, e: dgl.ops.u_mul_e_mean(graph, x, e), (x, e))


LAYERS = {
    "GraphConv": lambda: dnn.GraphConv(16, 8, allow_zero_in_degree=True),
    "GINConv-max": lambda: dnn.GINConv(torch.nn.Linear(16, 8), "max"),
    "GINConv-sum": lambda: dnn.GINConv(torch.nn.Linear(16, 8), "sum"),
    "SAGEConv-mean": lambda: dnn.SAGEConv(16, 8, "mean"),
    "SAGEConv-pool": lambda: dnn.SAGEConv(16, 8, "pool"),
    "GATConv": lambda: dnn.GATConv(16, 4, 3, allow_zero_in_degree=True),
    "TAGConv": lambda: dnn.TAGConv(16, 8),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(graph, name):
    torch.manual_seed(1)
    layer = LAYERS[name]().double()
    parameters = list(layer.parameters())
    x = torch.randn(NODES, 16, dtype=torch.float64)

    def run(x):
        return layer(graph, x)

    results = both(run, x)
    assert_same(results)
    layer.zero_grad()
    run(x).sum().backward()
    plain = [p.grad.clone() for p in parameters]
    layer.zero_grad()
    with gnna_plugin.enabled("dgl", min_work=0):
        run(x).sum().backward()
    for p, expected in zip(parameters, plain, strict=True):
        torch.testing.assert_close(p.grad, expected)
    assert fused() >= 2


def test_hetero_graphs_and_user_functions(graph):
    src, dst = graph.edges()
    hetero = dgl.heterograph({("a", "to", "b"): (src, dst), ("b", "back", "a"): (dst, src)}, {"a": NODES, "b": NODES})
    x = torch.randn(NODES, 5, dtype=torch.float64)

    def relations(x):
        hetero.nodes["a"].data["x"] = x
        hetero.nodes["b"].data["x"] = x * 2
        rules = {etype: (fn.copy_u("x", "m"), fn.mean("m", "y")) for etype in ("to", "back")}
        hetero.multi_update_all(rules, "sum")
        return hetero.nodes["a"].data.pop("y") + hetero.nodes["b"].data.pop("y")

    def user_message(x):
        graph.srcdata["x"] = x
        graph.update_all(lambda edges: {"m": edges.src["x"] ** 2}, fn.sum("m", "y"))
        return graph.dstdata.pop("y")

    assert_same(both(relations, x))
    assert_same(both(user_message, x))
    assert fused() >= 3


def test_an_operation_without_a_kernel_falls_back_to_dgl(graph):
    x, e = torch.randn(NODES, 3, dtype=torch.float64), torch.rand(EDGES, 3, dtype=torch.float64)
    assert_same(both(lambda x, e: dgl.ops.u_add_e_sum(graph, x, e), x, e))
    reasons = gnna_plugin.status().layers["dgl.add_sum"].framework
    assert reasons["the binary operation add"] >= 1


@pytest.mark.parametrize(
    "call",
    [
        lambda g: dgl.ops.copy_u_sum(g, torch.ones(NODES + 1, 4)),
        lambda g: dgl.ops.copy_e_sum(g, torch.ones(EDGES - 1, 4)),
        lambda g: dgl.ops.u_mul_e_sum(g, torch.ones(NODES, 4), torch.ones(EDGES, 3)),
        lambda g: dgl.ops.u_mul_e_sum(g, torch.ones(NODES, 4), torch.ones(EDGES, 4, dtype=torch.float64)),
        lambda g: dgl.ops.copy_u_sum(g, torch.ones(NODES, 4, dtype=torch.int64)),
        lambda g: dgl.ops.copy_u_sum(g, torch.ones(NODES, 4, dtype=torch.float16)),
    ],
)
def test_errors_are_dgls_own(graph, call):
    assert_stays_dgls(graph, call)


def test_restricted_formats(graph):
    x = torch.randn(NODES, 4, dtype=torch.float64)
    expected = dgl.ops.copy_u_sum(graph, x)
    gnna_plugin.enable("dgl", min_work=0)
    for formats in ("csc", "coo"):
        torch.testing.assert_close(dgl.ops.copy_u_sum(graph.formats(formats), x), expected)
    with pytest.raises(dgl.DGLError):  # as without the plug-in
        dgl.ops.copy_u_sum(graph.formats("csr"), x)


def test_edges_to_nodes_that_do_not_exist_raise_a_dgl_error(monkeypatch, graph):
    """DGL's own kernels would read beyond the features."""
    from gnna_plugin.adapters.dgl import core, graphs

    src, dst = graph.edges()
    broken = graphs.Entry(core.Edges(src + 30, dst, NODES, NODES))
    monkeypatch.setattr(graphs, "edges_of", lambda gidx: broken)
    gnna_plugin.enable("dgl", min_work=0)
    with pytest.raises(dgl.DGLError, match=r"do not fit its nodes: src\[\d+\] = "):
        dgl.ops.copy_u_sum(graph, torch.ones(NODES, 4))


def test_a_graph_and_its_views_share_their_plans(graph):
    x = torch.randn(NODES, 4, requires_grad=True)
    gnna_plugin.enable("dgl", min_work=0)
    for wrapped in (graph, graph.local_var(), graph.clone(), graph):
        dgl.ops.copy_u_sum(wrapped, x).sum().backward()
    assert gnna_plugin.status().plans == 2  # forward and transposed
    for _ in range(3):
        torch.testing.assert_close(dgl.ops.copy_u_sum(dgl.reverse(graph), x), dgl.ops.copy_u_sum(graph.reverse(), x))


def test_small_sums_are_accelerated_once_their_graph_is_used_again(graph):
    x = torch.ones(NODES, 4)
    gnna_plugin.enable("dgl")
    for _ in range(3):
        dgl.ops.copy_u_sum(dgl.rand_graph(NODES, 260), x)
    assert gnna_plugin.status().fused_calls == 0 and gnna_plugin.status().plans == 0
    for _ in range(20):
        dgl.ops.copy_u_sum(graph, x)
    assert 10 <= gnna_plugin.status().fused_calls < 20
    gnna_plugin.enable("dgl", min_work=1 << 20)
    fused = gnna_plugin.status().fused_calls
    dgl.ops.copy_u_sum(graph, x)
    assert gnna_plugin.status().fused_calls == fused


def test_min_work_is_applied_and_disable_restores_dgls_functions(graph):
    import dgl.backend.pytorch.sparse as sparse
    import dgl.ops.spmm as ops_spmm

    relation_graph = dgl.heterograph_index.HeteroGraphIndex.get_relation_graph
    originals = sparse._gspmm, ops_spmm.gspmm, dgl.ops.gspmm
    gnna_plugin.enable("dgl", min_work=10**9)
    dgl.ops.copy_u_sum(graph, torch.ones(NODES, 4))
    assert "260 edges x 4, " in str(gnna_plugin.status())
    assert all(a is not b for a, b in zip((sparse._gspmm, ops_spmm.gspmm, dgl.ops.gspmm), originals, strict=True))
    gnna_plugin.disable()
    assert (sparse._gspmm, ops_spmm.gspmm, dgl.ops.gspmm) == originals
    assert dgl.heterograph_index.HeteroGraphIndex.get_relation_graph is relation_graph


def test_both_frameworks_in_one_process(graph):
    geometric = pytest.importorskip("torch_geometric")
    gnna_plugin.enable(min_work=0)
    assert set(switch.frameworks()) == {"pyg", "dgl"}
    src, dst = (end.long() for end in graph.edges())
    x = torch.randn(NODES, 6, dtype=torch.float64)
    gin = geometric.nn.GINConv(torch.nn.Identity())
    torch.testing.assert_close(gin(x, torch.stack([src, dst])), dnn.GINConv(torch.nn.Identity(), "sum")(graph, x))
    layers = gnna_plugin.status().layers
    assert layers["GINConv"].fused == 1 and layers["dgl.copy_lhs_sum"].fused == 1


def test_sampled_blocks(graph):
    """Every mini-batch is a new graph, and its cached edges are dropped with it."""
    if graph.idtype == torch.int32:
        pytest.skip("DGL 1.1.3 samples int32 blocks whose edges name nodes that the block does not have")
    sampler = dgl.dataloading.NeighborSampler([4, 4])
    x = torch.randn(NODES, 16)
    layers = [dnn.SAGEConv(16, 16, "mean"), dnn.SAGEConv(16, 4, "mean")]
    loader = dgl.dataloading.DataLoader(graph, torch.arange(NODES).to(graph.idtype), sampler, batch_size=8)
    gnna_plugin.enable("dgl", min_work=0)
    for inputs, _, blocks in loader:
        h = x[inputs.long()]
        with gnna_plugin.disabled():
            expected = layers[1](blocks[1], layers[0](blocks[0], h))
        torch.testing.assert_close(layers[1](blocks[1], layers[0](blocks[0], h)), expected)
    assert gnna_plugin.status().fused_calls == 10


@pytest.mark.slow
def test_compare_trains_dgl_models(tmp_path):
    import json

    from gnna_plugin.tools import cli

    file = tmp_path / "rows.json"
    arguments = ["--framework", "dgl", "--model", "gin", "--graph", "community:2000x30000", "--epochs", "4"]
    assert cli.main(["compare", *arguments, "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())
    assert row["framework"] == "dgl" and row["fused_calls"] > 0 and row["max_rel_error"] < 1e-4


def test_extrema_show_no_decision_of_an_earlier_launch():
    graph = dgl.graph((torch.randint(0, 50, (400,)), torch.randint(0, 50, (400,))), num_nodes=50)
    gnna_plugin.enable("dgl", min_work=0)
    for width, reduce in ((7, fn.sum), (12, fn.max)):
        graph.ndata["x"] = torch.randn(50, width)
        graph.update_all(fn.copy_u("x", "m"), reduce("m", "y"))
    status = gnna_plugin.status()
    assert status.layers["dgl.copy_lhs_max"].fused == 1
    assert all((d["width"], d["reduce"]) == (7, "sum") and d["layer"] == "dgl.copy_lhs_sum" for d in status.decisions)
