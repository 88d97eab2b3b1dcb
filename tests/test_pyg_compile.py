"""Layers compiled by torch.compile run on the plug-in's ops and give PyG's outputs and gradients."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
from compiling import MARKS, SDDMM, SPMM, Recorder, assert_same
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

import gnna_plugin

pytestmark = MARKS


# The aggregations of one forward pass that become one kernel. Those of user-written aggregate() functions are compiled
# as without the plug-in.
FUSED = {
    **{name: 1 for name in layers.FUSED if not name.startswith("OwnScatter") and name != "SAGEConv-many"},
    "TAGConv": 3, "SGConv": 2, "ChebConv": 2, "APPNP": 3, "TransformerConv": 2, "SuperGATConv": 2,
}  # fmt: skip


@pytest.mark.parametrize("fullgraph", [True, False], ids=["fullgraph", "graph breaks allowed"])
@pytest.mark.parametrize("name", FUSED)
def test_fused_layers_give_pygs_outputs_and_gradients(device, name, fullgraph):
    x, edge_index, edge = layers.graph(device)
    entry = layers.FUSED[name]
    layer, edge_input = layers.build(entry, device), edge[entry[1]]
    expected = layers.outputs_and_gradients(layer, x, edge_index, edge_input)
    if "cached" in name:
        layer.reset_parameters()
        layer = layers.build(entry, device)
    gnna_plugin.enable()
    recorder = Recorder()
    compiled = torch.compile(layer, backend=recorder, fullgraph=fullgraph)
    compiled.parameters = layer.parameters
    for _ in range(3):
        assert_same(layers.outputs_and_gradients(compiled, x, edge_index, edge_input), expected)
    assert recorder.count(SPMM, SDDMM) >= FUSED[name]
    assert gnna_plugin.status().layers[type(layer).__name__].fused >= 3 * FUSED[name]


@pytest.mark.parametrize("name", [*layers.NOT_FUSED, *(name for name in layers.FUSED if name not in FUSED)])
def test_other_layers_compile_and_give_pygs_outputs_and_gradients(device, name):
    if device.type == "cuda" and name.startswith("OwnScatter"):
        pytest.skip("these layers make CPU tensors")
    x, edge_index, edge = layers.graph(device)
    entry = {**layers.FUSED, **layers.NOT_FUSED}[name]
    layer, edge_input = layers.build(entry, device), edge[entry[1]]
    expected = layers.outputs_and_gradients(layer, x, edge_index, edge_input)
    gnna_plugin.enable()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        assert_same(layers.outputs_and_gradients(compiled, x, edge_index, edge_input), expected)


@pytest.mark.parametrize("name", ["GCNConv", "GATConv", "SAGEConv-max", "GINEConv"])
def test_inductor_gives_pygs_outputs_and_gradients(device, name):
    x, edge_index, edge = layers.graph(device, torch.float32)
    entry = {**layers.FUSED, **layers.NOT_FUSED}[name]
    layer, edge_input = layers.build(entry, device, torch.float32), edge[entry[1]]
    expected = layers.outputs_and_gradients(layer, x, edge_index, edge_input)
    gnna_plugin.enable()
    compiled = torch.compile(layer, fullgraph=True)
    for _ in range(3):
        found = layers.outputs_and_gradients(compiled, x, edge_index, edge_input)
        assert_same(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["GCNConv", "GATConv", "SAGEConv-max", "GINEConv"])
def test_reduce_overhead_gives_pygs_outputs_and_gradients_for_one_graph_and_for_fresh_ones(name):
    entry = {**layers.FUSED, **layers.NOT_FUSED}[name]
    layer = layers.build(entry, "cuda", torch.float32)
    batches = []
    for _ in range(3):
        x, edge_index, edge = layers.graph("cuda", torch.float32)
        edge_index = torch.randint_like(edge_index, layers.NODES)
        expected = layers.outputs_and_gradients(layer, x, edge_index, edge[entry[1]])
        batches.append((x, edge_index, edge[entry[1]], expected))
    gnna_plugin.enable()
    compiled = torch.compile(layer, mode="reduce-overhead", fullgraph=True)
    for *inputs, expected in [*batches, *batches[:1] * 4]:
        torch.compiler.cudagraph_mark_step_begin()
        assert_same(layers.outputs_and_gradients(compiled, *inputs), expected, rtol=1e-4, atol=1e-4)


def test_code_compiled_before_enable_and_after_disable():
    x, edge_index, _ = layers.graph()
    layer, recorder = SAGEConv(layers.WIDTH, 8).double(), Recorder()
    compiled, expected = torch.compile(layer, backend=recorder), layer(x, edge_index)
    steps = [None, gnna_plugin.enable, gnna_plugin.disable, gnna_plugin.enable]
    for fused, step in zip((0, 1, 1, 2), steps, strict=True):
        if step is not None:
            step()
        torch.testing.assert_close(compiled(x, edge_index), expected)
        assert recorder.count(SPMM) == fused


def test_disabled_blocks_settings_and_a_layers_own_choice_apply_to_compiled_code():
    x, edge_index, _ = layers.graph()
    layer, recorder = SAGEConv(layers.WIDTH, 8).double(), Recorder()
    compiled, expected = torch.compile(layer, backend=recorder), layer(x, edge_index)

    def fused_calls():
        before = gnna_plugin.status().fused_calls
        torch.testing.assert_close(compiled(x, edge_index), expected)
        return gnna_plugin.status().fused_calls - before

    gnna_plugin.enable()
    assert fused_calls() == 1
    with gnna_plugin.disabled():
        assert fused_calls() == 0
    assert fused_calls() == 1
    gnna_plugin.enable(skip=["SAGEConv"])
    assert fused_calls() == 0
    gnna_plugin.enable(only=["SAGEConv"])
    assert fused_calls() == 1
    layer.gnna = False
    assert fused_calls() == 0
    layer.gnna = True
    gnna_plugin.enable(min_work=layers.EDGES * layers.WIDTH)
    assert fused_calls() == 1
    gnna_plugin.enable(min_work=layers.EDGES * layers.WIDTH + 1)
    assert fused_calls() == 0
    reasons = gnna_plugin.status().layers["SAGEConv"].framework
    assert set(reasons) == {gnna_plugin.report.EXCLUDED, gnna_plugin.report.below(layers.EDGES * layers.WIDTH + 1)}


@pytest.mark.parametrize("layer", [GCNConv, GATConv, SAGEConv])
def test_what_depends_on_the_graph_alone_is_computed_once(device, layer):
    x, edge_index, _ = layers.graph(device)
    gnna_plugin.enable(min_work=0)
    compiled = torch.compile(layer(layers.WIDTH, 8).double().to(device), backend="aot_eager", fullgraph=True)

    def step():
        compiled(x.clone().requires_grad_(), edge_index).sum().backward()

    for _ in range(2):
        step()
    built = gnna_plugin.status().plan_misses
    for _ in range(3):
        step()
    assert gnna_plugin.status().plan_misses == built


@pytest.mark.parametrize("layer", [SAGEConv, GCNConv, GATConv])
def test_mini_batches_of_many_sizes_compile_twice(layer):
    gnna_plugin.enable(min_work=0)
    model, recorder = layer(layers.WIDTH, 8).double(), Recorder()
    compiled = torch.compile(model, backend=recorder)
    for nodes, edges in ((40, 240), (50, 300), (33, 100), (90, 451), (61, 77)):
        x, edge_index = torch.randn(nodes, layers.WIDTH, dtype=torch.float64), torch.randint(0, nodes, (2, edges))
        with gnna_plugin.disabled():
            expected = model(x, edge_index)
        torch.testing.assert_close(compiled(x, edge_index), expected)
    assert len(recorder.graphs) <= 2
    assert recorder.count(SPMM) == len(recorder.graphs)


@pytest.mark.parametrize("aggr", ["sum", "max"])
def test_graphs_without_edges_or_with_isolated_nodes(device, aggr):
    layer = layers.build((lambda: layers.PlainMessage(aggr),), device)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(6, layers.WIDTH, dtype=torch.float64, device=device)
    for edges in ([[], []], [[2], [0]]):
        edge_index = torch.tensor(edges, dtype=torch.int64, device=device)
        gnna_plugin.disable()
        expected = layer(x, edge_index)
        gnna_plugin.enable(min_work=0)
        torch.testing.assert_close(compiled(x, edge_index), expected)


def test_an_index_out_of_range_is_an_index_error(device):
    x, edge_index, _ = layers.graph(device)
    gnna_plugin.enable(min_work=0)
    compiled = torch.compile(SAGEConv(layers.WIDTH, 8).double().to(device), backend="aot_eager")
    bad = edge_index.clone()
    bad[0, 3] = layers.NODES
    with pytest.raises(IndexError, match=f"{layers.NODES}"):
        compiled(x, bad)
    compiled(x, edge_index)


def test_transforms_inside_compiled_code_run_pygs_operations():
    x, edge_index, _ = layers.graph()
    layer = SAGEConv(layers.WIDTH, 8).double()
    batch = torch.stack([x, 2 * x, x + 1])

    def over_batch(batch):
        return torch.func.vmap(lambda x: layer(x, edge_index))(batch)

    gnna_plugin.enable(min_work=0)
    expected = torch.stack([layer(x, edge_index) for x in batch])
    torch.testing.assert_close(torch.compile(over_batch, backend="aot_eager")(batch), expected)


def test_exported_programs_contain_no_op_of_the_plug_in():
    x, edge_index, _ = layers.graph()
    layer = GCNConv(layers.WIDTH, 8).double()
    gnna_plugin.enable(min_work=0)
    program = torch.export.export(layer, (x, edge_index))
    torch.testing.assert_close(program.module()(x, edge_index), layer(x, edge_index))
    assert not [node for node in program.graph.nodes if "gnna" in str(node.target)]


def test_a_min_work_that_edges_of_unknown_number_cannot_be_compared_with():
    x, edge_index, _ = layers.graph()
    layer = GATConv(layers.WIDTH, 8).double()
    expected = layer(x, edge_index)
    gnna_plugin.enable(min_work=100)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x, edge_index), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_inside_compiled_code(device, dtype):
    x, edge_index, _ = layers.graph(device, torch.float32)
    layer = layers.build(layers.FUSED["GCNConv"], device, torch.float32)

    def step(x, edge_index):
        with torch.autocast(device.type, dtype=dtype):
            return layer(x, edge_index)

    expected = step(x, edge_index)
    gnna_plugin.enable(min_work=0)
    found = torch.compile(step, backend="aot_eager")(x, edge_index)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
