"""spmm and sddmm equal gather, scale and scatter in float64, for every kind of graph, width and weights."""

from __future__ import annotations

import pytest
import reference
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gnna_plugin

REDUCES = ("sum", "mean", "max", "min")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def relative_error(found, expected):
    return (
        ((found.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item() if found.numel() else 0
    )


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("kind", reference.KINDS)
@pytest.mark.parametrize("weights", [0, 1, 2, 3])  # none, per edge, per head, per feature
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spmm_equals_float64_reference(device, kind, weights, reduce, dtype):
    src, dst, n, m = reference.edges(kind, device)
    x = torch.randn(n, 3, 8, dtype=dtype, device=device)
    weight = torch.randn(src.numel(), *x.shape[1:][: weights - 1], dtype=dtype, device=device) if weights else None
    out = torch.ops.gnna.spmm(x, weight, src, dst, m, reduce)
    expected = reference.spmm(x.double(), weight if weight is None else weight.double(), src, dst, m, reduce)
    assert out.shape == expected.shape and out.dtype == dtype
    assert relative_error(out, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "width", [*range(1, 20), 22, 31, 32, 33, 47, 63, 64, 65, 96, 100, 127, 128, 129, 200, 255, 256, 257, 600]
)
def test_every_width(device, width, weighted, reduce):
    src, dst, n, m = reference.edges("hub", device)
    x = torch.randn(n, width, device=device)
    weight = torch.rand(src.numel(), device=device) if weighted else None
    out = torch.ops.gnna.spmm(x, weight, src, dst, m, reduce)
    expected = reference.spmm(x.double(), weight if weight is None else weight.double(), src, dst, m, reduce)
    assert relative_error(out, expected) < 1e-5


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("width", "dtype"),
    [(22, torch.float32), (47, torch.float32), (33, torch.bfloat16), (34, torch.bfloat16), (64, torch.float32)],
)
def test_rows_that_are_not_multiples_of_a_load(device, width, dtype, weighted, reduce):
    """On a large graph, a GPU copies such an x into padded rows. Width 64 is a view that is not aligned to 16 bytes."""
    n, edges = 20_000, 250_000
    src, dst = torch.randint(0, n, (2, edges), device=device)
    dst[:3000] = 7
    x = torch.randn(n, width + 1, device=device).to(dtype)[:, 1:]
    x = x if width == 64 else x.contiguous()
    weight = torch.rand(edges, device=device).to(dtype) if weighted else None
    out = torch.ops.gnna.spmm(x, weight, src, dst, n, reduce)
    expected = reference.spmm(x.double(), weight if weight is None else weight.double(), src, dst, n, reduce)
    assert out.is_contiguous() and relative_error(out, expected) < (1e-5 if dtype == torch.float32 else 4e-3)


CONFIGS = (
    {"kernel": "groups"},
    {"ngs": 1, "dw": 32, "warps_per_block": 1},
    {"ngs": 16, "dw": 4, "warps_per_block": 8},
    {"ngs": 64, "dw": 8, "vectors": 1, "vector_width": 1},
    {"kernel": "rows", "groups": 4, "dw": 8, "warps_per_block": 16},
    {"vectors": 4, "long_row": 7, "item_edges": 3},
)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_launch_configurations_set_by_hand_give_correct_results(device, config, dtype):
    """Covers both CUDA kernels, split rows and others, and gradients. The settings do not affect a CPU."""
    with gnna_plugin.enabled(config=config):
        for kind in reference.KINDS:
            src, dst, n, m = reference.edges(kind, device)
            for width, reduce in ((5, "sum"), (64, "mean"), (64, "max"), (136, "min")):
                x = torch.randn(n, width, dtype=dtype, device=device, requires_grad=True)
                weight = torch.rand(src.numel(), dtype=dtype, device=device)
                out = torch.ops.gnna.spmm(x, weight, src, dst, m, reduce)
                exact = x.detach().double().requires_grad_()
                expected = reference.spmm(exact, weight.double(), src, dst, m, reduce)
                assert relative_error(out, expected) < TOLERANCE[dtype], (kind, width, reduce)
                if reduce in ("sum", "mean") and src.numel():
                    (grad,) = torch.autograd.grad(out.sum(), x)
                    (grad_expected,) = torch.autograd.grad(expected.sum(), exact)
                    assert relative_error(grad, grad_expected) < TOLERANCE[dtype], (kind, width, reduce)


@pytest.mark.parametrize("kind", ["random", "hub"])
def test_strided_offset_and_expanded_features(device, kind):
    """Feature rows need be neither adjacent nor aligned."""
    src, dst, n, m = reference.edges(kind, device)
    storage = torch.randn(n * 40 + 3, device=device)
    for x in (
        storage[: n * 40].view(n, 40)[:, :16],
        storage[1 : n * 40 + 1].view(n, 40)[:, :16],
        storage[3 : n * 40 + 3].view(n, 40)[:, 5:24],
        storage[: n * 16].view(16, n).t(),
        storage[:16].expand(n, 16),
    ):
        out = torch.ops.gnna.spmm(x, None, src, dst, m, "sum")
        assert relative_error(out, reference.spmm(x.double(), None, src, dst, m, "sum")) < 1e-5


@pytest.mark.parametrize("kind", reference.KINDS)
@pytest.mark.parametrize("head_dims", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sddmm_equals_float64_reference(device, kind, head_dims, dtype):
    src, dst, n, m = reference.edges(kind, device)
    a, b = torch.randn(n, 3, 21, dtype=dtype, device=device), torch.randn(m, 3, 21, dtype=dtype, device=device)
    out = torch.ops.gnna.sddmm(a, b, src, dst, head_dims)
    expected = reference.sddmm(a.double(), b.double(), src, dst, head_dims)
    assert out.shape == expected.shape
    assert relative_error(out, expected) < TOLERANCE[dtype] * 10


def test_int32_indices(device):
    src, dst, n, m = reference.edges("random", device, torch.int32)
    x = torch.randn(n, 8, dtype=torch.float64, device=device)
    expected = reference.spmm(x, None, src, dst, m, "sum")
    torch.testing.assert_close(torch.ops.gnna.spmm(x, None, src, dst, m, "sum"), expected)


@pytest.mark.parametrize("reduce", REDUCES)
def test_nan_and_infinity_propagate(device, reduce):
    src, dst, n, m = reference.edges("random", device)
    x = torch.randn(n, 5, device=device)
    x[3, 0], x[4, 1], x[5, 2], x[6, 3] = float("nan"), float("inf"), float("-inf"), float("nan")
    weight = torch.randint(0, 2, (src.numel(),), device=device).float()  # 0 * inf is NaN, as in torch
    for w in (None, weight):
        found = torch.ops.gnna.spmm(x, w, src, dst, m, reduce)
        torch.testing.assert_close(found, reference.spmm(x, w, src, dst, m, reduce), equal_nan=True)


@pytest.mark.parametrize("reduce", REDUCES)
def test_rows_without_edges_are_zero_and_every_element_is_written(device, reduce):
    src, dst = torch.tensor([0, 1], device=device), torch.tensor([2, 2], device=device)
    x = torch.full((2, 33), -7.0, device=device)
    poison = torch.full((100_000,), float("nan"), device=device)
    del poison  # the allocator is likely to reuse this memory for the output
    out = torch.ops.gnna.spmm(x, None, src, dst, 5, reduce)
    assert out[[0, 1, 3, 4]].eq(0).all()
    assert out[2].eq(-14.0 if reduce == "sum" else -7.0).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["random", "hub"])
def test_the_same_input_gives_the_same_bits(device, kind, weighted):
    src, dst, n, m = reference.edges(kind, device)
    x = torch.randn(n, 70, device=device)
    weight = torch.rand(src.numel(), device=device) if weighted else None
    first = torch.ops.gnna.spmm(x, weight, src, dst, m, "sum")
    for _ in range(5):
        assert torch.equal(torch.ops.gnna.spmm(x, weight, src, dst, m, "sum"), first)
        gnna_plugin.clear_cache()
    src2, dst2 = src.clone(), dst.clone()
    assert torch.equal(torch.ops.gnna.spmm(x, weight, src2, dst2, m, "sum"), first)


def test_the_number_of_threads_changes_no_bit():
    src, dst, n, m = reference.edges("hub", torch.device("cpu"))
    x = torch.randn(n, 48)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(torch.ops.gnna.spmm(x, None, src, dst, m, "sum"))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_small_graph_equals_the_reference(data):
    n, m = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    edges = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, m - 1)), max_size=25))
    width = data.draw(st.integers(0, 40))
    reduce = data.draw(st.sampled_from(REDUCES))
    src = torch.tensor([e[0] for e in edges], dtype=torch.int64)
    dst = torch.tensor([e[1] for e in edges], dtype=torch.int64)
    x = torch.randn(n, width, dtype=torch.float64)
    found = torch.ops.gnna.spmm(x, None, src, dst, m, reduce)
    torch.testing.assert_close(found, reference.spmm(x, None, src, dst, m, reduce))


def test_public_functions_take_an_edge_index(device):
    src, dst, n, m = reference.edges("random", device)
    x = torch.randn(n, 4, dtype=torch.float64, device=device)
    weight = torch.rand(src.numel(), dtype=torch.float64, device=device)
    edge_index = torch.stack([src, dst])
    out = gnna_plugin.spmm(x, edge_index, weight, num_dst=m, reduce="mean")
    torch.testing.assert_close(out, reference.spmm(x, weight, src, dst, m, "mean"))
    assert gnna_plugin.spmm(x, edge_index[:, dst < n]).shape == x.shape
    scores = gnna_plugin.sddmm(x, torch.ones(m, 4, dtype=torch.float64, device=device), edge_index)
    torch.testing.assert_close(scores, x.sum(1)[src])
