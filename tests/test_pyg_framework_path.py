"""The cases that fall back to PyG: each gives PyG's own result, and status() gives the reason."""

from __future__ import annotations

import copy
import io
import logging
import pickle

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import GCNConv, GINConv, SAGEConv

import gnna_plugin
from gnna_plugin import report
from gnna_plugin.settings import Fallback


@pytest.fixture
def case():
    x, edge_index, _ = layers.graph(dtype=torch.float32)
    layer = SAGEConv(layers.WIDTH, 8)
    return layer, x, edge_index, layer(x, edge_index).detach()


def reasons(name="SAGEConv"):
    return dict(gnna_plugin.status().layers[name].framework)


def test_invalid_sizes_below_min_work_raise_pygs_errors():
    x, edge_index, layer = torch.empty(0, 4), torch.tensor([[0], [0]]), SAGEConv(4, 2)
    with pytest.raises(IndexError):
        layer(x, edge_index)
    gnna_plugin.enable(min_work=10_000)
    with pytest.raises(IndexError):
        layer(x, edge_index)


def test_a_call_below_min_work_falls_back_with_this_reason(case):
    layer, x, edge_index, expected = case
    gnna_plugin.enable(min_work=10_000)
    assert torch.equal(layer(x, edge_index), expected)
    assert reasons() == {report.below(10_000): 1}
    assert "1 call not fused: 240 edges x 16, " in str(gnna_plugin.status())


def test_mini_batches_of_many_sizes_share_one_reason_and_few_decisions():
    gnna_plugin.enable(min_work=16 * 1000)
    layer = SAGEConv(16, 8)
    for edges in range(900, 1300, 20):
        layer(torch.randn(50, 16), torch.randint(0, 50, (2, edges)))
    assert reasons() == {report.below(16 * 1000): 5}
    assert len(gnna_plugin.status().decisions) == 2  # one below 1024 edges, one from there


def test_layers_that_the_user_excludes_fall_back(case):
    layer, x, edge_index, expected = case
    for keywords in ({"skip": ["SAGEConv"]}, {"only": ["GCNConv"]}):
        gnna_plugin.enable(min_work=0, **keywords)
        assert torch.equal(layer(x, edge_index), expected)
    gnna_plugin.enable(min_work=0)
    layer.gnna = False
    assert torch.equal(layer(x, edge_index), expected)
    assert reasons() == {report.EXCLUDED: 3}
    layer.gnna = True
    layer(x, edge_index)
    assert gnna_plugin.status().layers["SAGEConv"].fused == 1


def test_a_reason_is_logged_once(case, caplog):
    layer, x, edge_index, _ = case
    gnna_plugin.enable(min_work=10_000)
    with caplog.at_level(logging.INFO, logger="gnna_plugin"):
        for _ in range(3):
            layer(x, edge_index)
    (message,) = caplog.messages
    assert "SAGEConv" in message and "240 edges x 16" in message and "min_work" in message


def test_strict_mode_names_layer_and_reason(case):
    layer, x, edge_index, _ = case
    gnna_plugin.enable(min_work=10_000, strict=True)
    with pytest.raises(Fallback, match="SAGEConv.*240 edges x 16.*min_work"):
        layer(x, edge_index)
    edge_conv = layers.build(layers.NOT_FUSED["EdgeConv"], dtype=torch.float32)
    gnna_plugin.enable(min_work=0, strict=True)
    with pytest.raises(Fallback, match="EdgeConv.*`linear`"):
        edge_conv(x, edge_index)


def test_dtypes_without_kernels_fall_back():
    gnna_plugin.enable(min_work=0)
    layer = layers.PlainMessage()
    layer.lin = torch.nn.Identity()
    x, edge_index, _ = layers.graph()
    out = layer(x.to(torch.complex64), edge_index)
    torch.testing.assert_close(out.real, layer(x.float(), edge_index))
    assert reasons("PlainMessage") == {"complex64 features": 1}


@pytest.mark.parametrize("name", ["GCNConv", "GINConv", "SAGEConv-max", "TAGConv", "PlainMessage"])
def test_scripted_layers_give_pygs_results(name):
    x, edge_index, _ = layers.graph(dtype=torch.float32)
    layer = layers.build(layers.FUSED[name], dtype=torch.float32)
    expected = layer(x, edge_index)
    gnna_plugin.enable(min_work=0)
    fused = layer(x, edge_index)
    scripted = torch.jit.script(layer)
    torch.testing.assert_close(scripted(x, edge_index), expected)
    torch.testing.assert_close(fused, expected)
    if name in ("GCNConv", "TAGConv"):
        return  # torch.jit.load refuses the archives of these two layers, also without the plug-in
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.jit.load(buffer)(x, edge_index), expected)


def test_layers_can_be_scripted_before_while_and_after_the_plug_in_is_on():
    """torch.jit stores the overloads of gcn_norm by function object, and the plug-in replaces that object."""
    x, edge_index, _ = layers.graph(dtype=torch.float32)

    def scripted_equals_eager():
        layer = GCNConv(layers.WIDTH, 4)
        torch.testing.assert_close(torch.jit.script(layer)(x, edge_index), layer(x, edge_index))

    scripted_equals_eager()
    for _ in range(2):
        with gnna_plugin.enabled(min_work=0):
            scripted_equals_eager()
        scripted_equals_eager()


@pytest.mark.filterwarnings("ignore")
def test_torch_jit_trace_falls_back(case):
    layer, x, edge_index, expected = case
    gnna_plugin.enable(min_work=0)
    traced = torch.jit.trace(layer, (x, edge_index), check_trace=False)
    torch.testing.assert_close(traced(x, edge_index), expected)
    assert "torch.jit.trace" in reasons()


def test_exported_layers_give_pygs_results(case):
    layer, x, edge_index, expected = case
    gnna_plugin.enable(min_work=0)
    program = torch.export.export(layer, (x, edge_index))
    torch.testing.assert_close(program.module()(x, edge_index), expected)


def test_torch_func_transforms_fall_back(case):
    layer, x, edge_index, expected = case
    gnna_plugin.enable(min_work=0)
    grad = torch.func.grad(lambda x: layer(x, edge_index).sum())(x)
    leaf = x.clone().requires_grad_()
    layer(leaf, edge_index).sum().backward()
    torch.testing.assert_close(grad, leaf.grad)
    out, _ = torch.func.jvp(lambda x: layer(x, edge_index), (x,), (torch.ones_like(x),))
    torch.testing.assert_close(out, expected)
    assert reasons() == {"a torch.func transform": 2}


def test_forward_mode_differentiation_falls_back(case):
    import torch.autograd.forward_ad as forward_ad

    layer, x, edge_index, expected = case
    gnna_plugin.enable(min_work=0)
    with forward_ad.dual_level():
        out = layer(forward_ad.make_dual(x, torch.ones_like(x)), edge_index)
        torch.testing.assert_close(forward_ad.unpack_dual(out).primal, expected)
    assert reasons() == {"forward-mode differentiation": 1}


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_around_a_layer(case, reentrant):
    layer, x, edge_index, expected = case
    leaf = x.clone().requires_grad_()
    layer(leaf, edge_index).square().sum().backward()
    gnna_plugin.enable(min_work=0)
    found = x.clone().requires_grad_()
    out = checkpoint(layer, found, edge_index, use_reentrant=reentrant)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    torch.testing.assert_close(found.grad, leaf.grad)


def test_layer_hooks_see_real_messages(case):
    layer, x, edge_index, expected = case
    gnna_plugin.enable(min_work=0)
    seen = []
    handles = [
        layer.register_message_forward_hook(lambda module, inputs, out: seen.append(out)),
        layer.register_message_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]["x_j"])),
        layer.register_propagate_forward_hook(lambda module, inputs, out: seen.append(out)),
    ]
    torch.testing.assert_close(layer(x, edge_index), expected)
    assert all(type(t) is torch.Tensor and not t.isnan().any() for t in seen) and len(seen) == 3
    assert reasons() == {"hooks on the layer's messages": 1}
    for handle in handles:
        handle.remove()
    layer(x, edge_index)
    assert gnna_plugin.status().layers["SAGEConv"].fused == 1


def test_explain_mode_falls_back():
    from torch_geometric.explain import Explainer, GNNExplainer

    x, edge_index, _ = layers.graph(dtype=torch.float32)

    def explanation():
        torch.manual_seed(0)
        model = GCNConv(layers.WIDTH, 3)
        explainer = Explainer(
            model, GNNExplainer(epochs=5), explanation_type="model", edge_mask_type="object",
            node_mask_type="attributes",
            model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
        )  # fmt: skip
        return explainer(x, edge_index)

    expected = explanation()
    gnna_plugin.enable(min_work=0)
    found = explanation()
    torch.testing.assert_close(found.edge_mask, expected.edge_mask)
    torch.testing.assert_close(found.node_mask, expected.node_mask)
    assert "explain mode" in reasons("GCNConv")


def test_models_contain_nothing_of_the_plug_in():
    gnna_plugin.enable(min_work=0)
    x, edge_index, _ = layers.graph(dtype=torch.float32)
    model = torch.nn.ModuleList([GCNConv(layers.WIDTH, layers.WIDTH), GINConv(layers.mlp(layers.WIDTH))])
    out = model[1](model[0](x, edge_index), edge_index)
    stored = pickle.dumps(model)
    assert b"gnna" not in stored and not any("gnna" in key for key in model.state_dict())
    gnna_plugin.disable()
    for twin in (pickle.loads(stored), copy.deepcopy(model)):
        torch.testing.assert_close(twin[1](twin[0](x, edge_index), edge_index), out)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_capturing_a_cuda_graph_without_a_plan_falls_back():
    x, edge_index, _ = layers.graph("cuda", torch.float32)
    layer = SAGEConv(layers.WIDTH, 8).cuda()
    expected = layer(x, edge_index)
    gnna_plugin.enable(min_work=0)
    with torch.no_grad():
        layer(x, edge_index)  # builds no transposed plan
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = layer(x.requires_grad_(), edge_index)
    graph.replay()
    torch.testing.assert_close(out, expected)
    assert reasons() == {"a CUDA graph is being captured": 1}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", [GCNConv, SAGEConv, GINConv])
def test_capturing_a_cuda_graph_after_warm_up_uses_our_kernels(kind):
    x, edge_index, _ = layers.graph("cuda", torch.float32)
    x.requires_grad_()
    layer = (GINConv(torch.nn.Linear(layers.WIDTH, 8)) if kind is GINConv else kind(layers.WIDTH, 8)).cuda()

    def step():
        out = layer(x, edge_index)
        return out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])

    expected = [t.detach().clone() for t in step()]
    gnna_plugin.enable(min_work=0)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    gnna_plugin.disable()
    gnna_plugin.clear_cache()  # the captured graph keeps what it reads
    torch.randn(1 << 20, device="cuda")
    graph.replay()
    torch.testing.assert_close(list(captured), expected, rtol=1e-4, atol=1e-5)  # sums in another order
    assert not reasons(kind.__name__)
