"""Training steps that are captured as CUDA graphs use the plug-in as those in eager mode do."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
from torch_geometric.nn import GATConv, SAGEConv

import gnna_plugin

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore"),
]
# PyG's own code for these layers waits for the device, or they are not written for CUDA tensors.
_NOT_CAPTURED = ("OwnScatter", "ChebConv", "SuperGATConv", "GATConv-average")
CAPTURED = [name for name in (*layers.FUSED, *layers.NOT_FUSED) if not name.startswith(_NOT_CAPTURED)]


@pytest.fixture(autouse=True)
def _captures_released():
    yield
    torch.cuda.synchronize()
    gnna_plugin.release_captures()


def counted_calls():
    """Return the calls so far: layer -> (fused, reduced, left to the framework)."""
    status = gnna_plugin.status().layers
    return {name: (layer.fused, layer.reduced, sum(layer.framework.values())) for name, layer in status.items()}


def calls_of(step):
    """Run a step and return its result and the calls it made."""
    before = counted_calls()
    result = step()
    after = counted_calls()
    nothing = (0, 0, 0)
    made = {name: tuple(b - a for a, b in zip(before.get(name, nothing), after[name], strict=True)) for name in after}
    return result, {name: calls for name, calls in made.items() if any(calls)}


def capture(step):
    """Warm up as torch asks for, and capture. Return the graph, the step's results and the calls of both modes."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            _, eager = calls_of(step)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results, captured = calls_of(step)
    return graph, results, eager, captured


@pytest.mark.parametrize("name", CAPTURED)
def test_what_is_fused_in_eager_mode_is_fused_in_a_capture(name):
    x, edge_index, edge = layers.graph("cuda")
    make, edge_input = {**layers.FUSED, **layers.NOT_FUSED}[name]
    layer = layers.build((make,), "cuda")
    gnna_plugin.enable(min_work=0)
    x = x.requires_grad_()
    inputs = [x, edge_index] if edge_input is None else [x, edge_index, edge[edge_input]]
    leaves = [x, *layer.parameters()]

    def step():
        out = layer(*inputs)
        return [out, *torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)]

    graph, found, eager, captured = capture(step)
    assert captured == eager and (name in layers.NOT_FUSED or any(fused for fused, *_ in captured.values()))
    with torch.no_grad():
        x.mul_(-0.5)  # a replay reads the inputs anew
    graph.replay()
    gnna_plugin.disable()
    for a, b in zip(found, step(), strict=True):
        torch.testing.assert_close(a, b)


def test_graphed_callables_give_the_models_outputs_and_gradients():
    x, edge_index, _ = layers.graph("cuda")
    layer = layers.build((lambda: GATConv(layers.WIDTH, 4, heads=3),), "cuda").train()
    expected = layers.outputs_and_gradients(layer, x, edge_index)
    gnna_plugin.enable(min_work=0)
    graphed = torch.cuda.make_graphed_callables(layer, (x.clone().requires_grad_(), edge_index))
    for a, b in zip(layers.outputs_and_gradients(graphed, x, edge_index), expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["GINConv", "SAGEConv-max", "GATConv", "GCNConv", "GraphConv"])
def test_a_replay_after_the_edges_changed_is_an_error(name):
    x, edge_index, edge = layers.graph("cuda")
    entry = layers.FUSED[name]
    layer = layers.build(entry, "cuda")
    gnna_plugin.enable(min_work=0)
    inputs = [x, edge_index] if entry[1] is None else [x, edge_index, edge[entry[1]]]
    graph, *_ = capture(lambda: layer(*inputs))
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    edge_index.copy_(edge_index.flip(0))
    graph.replay()
    torch.cuda.synchronize()
    with pytest.raises(RuntimeError, match="changed after its capture"):
        graph.replay()
    graph, out, *_ = capture(lambda: layer(*inputs))
    graph.replay()
    gnna_plugin.disable()
    torch.testing.assert_close(out, layer(*inputs))


def test_replays_of_two_graphs_on_two_streams_find_no_change():
    x, edge_index, _ = layers.graph("cuda")
    layer = layers.build((lambda: SAGEConv(layers.WIDTH, 8),), "cuda")
    gnna_plugin.enable(min_work=0)
    graphs = [capture(lambda: layer(x, edge_index))[0] for _ in range(2)]
    streams = [torch.cuda.Stream() for _ in graphs]
    torch.cuda.synchronize()
    for _ in range(50):
        for graph, stream in zip(graphs, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
    assert not torch.ops.gnna.changed_before_replay()


def test_an_edge_list_may_be_freed_after_its_capture():
    x, edge_index, _ = layers.graph("cuda")
    layer = layers.build((lambda: SAGEConv(layers.WIDTH, 8),), "cuda")
    expected = layer(x, edge_index)
    gnna_plugin.enable(min_work=0)
    edges = [edge_index.clone()]
    graph, out, *_ = capture(lambda: layer(x, edges[0]))
    edges.clear()
    gnna_plugin.clear_cache()
    torch.cuda.empty_cache()
    torch.full((1 << 20,), -7, device="cuda")  # would take freed memory
    for _ in range(2):
        graph.replay()
        torch.cuda.synchronize()
    torch.testing.assert_close(out, expected)
