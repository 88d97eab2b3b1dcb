"""float16 and bfloat16: results are computed in float32 and rounded once, so they are within a rounding of float64."""

from __future__ import annotations

import pytest
import reference
import torch

import gnna_plugin

TYPES = (torch.float16, torch.bfloat16)
REDUCES = ("sum", "mean", "max", "min")


def within_one_rounding(found, exact, dtype):
    """Return whether each element is the exact one, rounded once to dtype, up to the error of float32."""
    tolerance = exact.abs() * torch.finfo(dtype).eps / 2 * 1.01 + exact.abs().max() * 1e-5 + torch.finfo(dtype).tiny
    return bool(((found.double() - exact).abs() <= tolerance).all())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("weights", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", reference.KINDS)
def test_spmm_is_rounded_once(device, kind, weights, reduce, dtype):
    src, dst, n, m = reference.edges(kind, device)
    x = torch.randn(n, 3, 8, device=device).to(dtype)
    weight = torch.rand(src.numel(), *x.shape[1:][: weights - 1], device=device).to(dtype) if weights else None
    found = torch.ops.gnna.spmm(x, weight, src, dst, m, reduce)
    exact = reference.spmm(x.double(), None if weight is None else weight.double(), src, dst, m, reduce)
    assert found.dtype == dtype and within_one_rounding(found, exact, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [1, 7, 8, 9, 16, 22, 31, 33, 64, 100, 128, 257])
def test_every_width(device, width, dtype):
    src, dst, n, m = reference.edges("hub", device)
    x = torch.randn(n, width, device=device).to(dtype)
    assert within_one_rounding(
        torch.ops.gnna.spmm(x, None, src, dst, m, "sum"), reference.spmm(x.double(), None, src, dst, m, "sum"), dtype
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("reduce", REDUCES)
def test_gradients(device, reduce, dtype):
    src, dst, n, m = reference.edges("random", device)
    x, weight = torch.randn(n, 2, 9, device=device).to(dtype), torch.rand(src.numel(), 2, device=device).to(dtype)
    upstream = torch.randn(m, 2, 9, device=device).to(dtype)
    found = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    torch.ops.gnna.spmm(*found, src, dst, m, reduce).backward(upstream)
    # Winners are found among the rounded messages, so the reference for max and min uses these.
    exact = [x.double().requires_grad_(), weight.double().requires_grad_()]
    messages = exact[0][src] * exact[1].unsqueeze(-1)
    if reduce in ("max", "min"):
        messages = messages + (messages.detach().to(dtype).double() - messages.detach())
    index = dst.view(-1, 1, 1).expand_as(messages)
    name = reduce if reduce in ("sum", "mean") else "a" + reduce
    out = messages.new_zeros(m, 2, 9).scatter_reduce(0, index, messages, name, include_self=False)
    out.backward(upstream.double())
    for leaf, wanted in zip(found, exact, strict=True):
        assert leaf.grad.dtype == dtype
        error = (leaf.grad.double() - wanted.grad).abs().max() / wanted.grad.abs().max()
        assert error < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", TYPES)
def test_every_number_is_converted_and_rounded_correctly(device, dtype):
    """A sum of one message gives every value of the type, and a sum halfway between two values rounds to even."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype).to(device).view(-1, 1)
    edge = torch.arange(values.size(0), device=device)
    out = torch.ops.gnna.spmm(values, None, edge, edge, values.size(0), "sum")
    torch.testing.assert_close(out, values + 0, rtol=0, atol=0, equal_nan=True)  # + 0: -0 becomes 0 in a sum
    pairs = torch.randn(20_000, 2, device=device).to(dtype)
    pairs[:, 1] *= torch.rand(20_000, device=device).to(dtype) * 2e-2
    src = torch.arange(40_000, device=device)
    found = torch.ops.gnna.spmm(pairs.view(-1, 1), None, src, src // 2, 20_000, "sum").flatten()
    assert torch.equal(found, (pairs[:, 0].float() + pairs[:, 1].float()).to(dtype))


@pytest.mark.parametrize("dtype", TYPES)
def test_overflow_nan_and_infinity(device, dtype):
    big = torch.finfo(dtype).max
    x = torch.tensor([[big, big, float("nan"), float("-inf"), 1.0]], device=device).to(dtype)
    src = torch.zeros(4, dtype=torch.int64, device=device)
    for reduce in REDUCES:
        found = torch.ops.gnna.spmm(x, None, src, src, 1, reduce)
        expected = reference.spmm(x.float(), None, src, src, 1, reduce).to(dtype)
        torch.testing.assert_close(found, expected, equal_nan=True)


def test_a_mean_over_more_edges_than_the_type_can_count(device):
    """The largest float16 is 65504."""
    edges = 70_000
    x = torch.ones(4, 3, dtype=torch.float16, device=device, requires_grad=True)
    src = torch.randint(0, 4, (edges,), device=device)
    dst = torch.zeros(edges, dtype=torch.int64, device=device)
    out = torch.ops.gnna.spmm(x, None, src, dst, 1, "mean")
    assert out.eq(1).all()
    out.sum().backward()
    torch.testing.assert_close(x.grad.float().sum(0), torch.ones(3, device=device), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", TYPES)
def test_pyg_layers(dtype):
    pytest.importorskip("torch_geometric")
    import pyg_layers as layers

    x, edge_index, edge = layers.graph(dtype=dtype)
    gnna_plugin.enable(min_work=0)
    for name in ("SAGEConv-max", "GINConv", "GraphConv", "WeightedMessage"):
        layer = layers.build(layers.FUSED[name], dtype=dtype)
        inputs = (x, edge_index) if layers.FUSED[name][1] is None else (x, edge_index, edge["weight"])
        found = layer(*inputs)
        with gnna_plugin.disabled():
            exact = layer.double()(*(i.double() if i.is_floating_point() else i for i in inputs))
        assert found.dtype == dtype and gnna_plugin.status().layers[type(layer).__name__].fused == 1
        assert (found.double() - exact).abs().max() / exact.abs().max() < 8 * torch.finfo(dtype).eps


def test_layers_under_autocast_give_pygs_dtype(device):
    """Linear outputs are bfloat16 and edge weights float32, so the product is float32, as in PyG."""
    geometric = pytest.importorskip("torch_geometric")
    import pyg_layers as layers

    x, edge_index, _ = layers.graph(device, torch.float32)
    for kind in (geometric.nn.GCNConv, geometric.nn.SAGEConv):
        layer = kind(layers.WIDTH, 8).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            expected = layer(x, edge_index)
            with gnna_plugin.enabled(min_work=0):
                found = layer(x, edge_index)
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found.float(), expected.float(), rtol=2e-2, atol=2e-2)
        assert gnna_plugin.status().layers[type(layer).__name__].fused == 1
