"""spmm_arg: max and min with the winning source and edge, by DGL's rules, which differ from those of spmm."""

from __future__ import annotations

import pytest
import reference
import torch


def call(x, weight, src, dst, rows, reduce, last=False):
    return torch.ops.gnna.spmm_arg(x, weight, src, dst, rows, reduce, last=last)


@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("weights", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", reference.KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_values_and_winners(device, kind, weights, reduce, dtype):
    src, dst, n, m = reference.edges(kind, device)
    x = torch.randn(n, 3, 5, device=device).to(dtype)
    weight = torch.randn(src.numel(), *x.shape[1:][: weights - 1], device=device).to(dtype) if weights else None
    out, arg_src, arg_edge = call(x, weight, src, dst, m, reduce)
    has_edges = torch.bincount(dst, minlength=m) > 0
    start = float("-inf") if reduce == "max" else float("inf")
    assert out[~has_edges].eq(start).all()
    assert not arg_src[~has_edges].any() and not arg_edge[~has_edges].any()
    expected = reference.spmm(x, weight, src, dst, m, reduce)
    torch.testing.assert_close(out[has_edges], expected[has_edges])
    if src.numel():  # the winner belongs to the row, names its source, and has the row's value
        rows = torch.arange(m, device=device).view(-1, 1, 1).expand_as(arg_edge)[has_edges]
        assert torch.equal(dst[arg_edge[has_edges]], rows) and torch.equal(src[arg_edge[has_edges]], arg_src[has_edges])
        messages = x[src] if weight is None else x[src] * weight.reshape(weight.shape + (1,) * (3 - weight.dim()))
        torch.testing.assert_close(messages.gather(0, arg_edge)[has_edges], out[has_edges])


def test_the_first_of_equals_wins(device):
    x = torch.tensor([[2.0], [2.0], [1.0]], device=device)
    src, dst = torch.tensor([2, 1, 0], device=device), torch.zeros(3, dtype=torch.int64, device=device)
    _, arg_src, arg_edge = call(x, None, src, dst, 1, "max")
    assert (arg_src.item(), arg_edge.item()) == (1, 1)


@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_last_of_equals_wins_on_request(dtype, weighted, reduce):
    src, dst, n, m = reference.edges("random", "cpu")
    infinity = float("inf") if reduce == "min" else -float("inf")
    x = torch.tensor([infinity, 1.0, 2.0])[torch.randint(0, 3, (n, 19))].to(dtype)
    weight = torch.randint(1, 3, (src.numel(),)).to(dtype) if weighted else None
    out, arg_src, arg_edge = call(x, weight, src, dst, m, reduce, last=True)
    messages = x[src] if weight is None else x[src] * weight.view(-1, 1)
    wanted = torch.full((m, 19), infinity, dtype=dtype)
    edges = torch.full((m, 19), -1)
    for edge, row in enumerate(dst.tolist()):
        wins = messages[edge] >= wanted[row] if reduce == "max" else messages[edge] <= wanted[row]
        wanted[row] = torch.where(wins, messages[edge], wanted[row])
        edges[row] = torch.where(wins, edge, edges[row])
    assert torch.equal(out, wanted)
    assert torch.equal(arg_edge, edges.clamp(min=0))
    assert torch.equal(arg_src, src[arg_edge].masked_fill(edges < 0, 0))


@pytest.mark.cuda
def test_the_last_of_equals_is_not_implemented_on_cuda(device):
    if device.type != "cuda":
        pytest.skip("of a GPU")
    index = torch.zeros(1, dtype=torch.int64, device=device)
    with pytest.raises(NotImplementedError, match="spmm_arg was called with last=True on CUDA.*; pass last=False"):
        call(torch.ones(1, 1, device=device), None, index, index, 1, "max", last=True)


@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("last", [False, pytest.param(True, id="last")])
def test_nan_never_wins(device, reduce, last):
    if last and device.type == "cuda":
        pytest.skip("not implemented")
    nan = float("nan")
    x = torch.tensor([[nan, nan], [3.0, nan], [nan, nan]], device=device)
    src, dst = torch.arange(3, device=device), torch.zeros(3, dtype=torch.int64, device=device)
    out, arg_src, arg_edge = call(x, None, src, dst, 1, reduce, last)
    assert out[0, 0] == 3 and arg_src[0, 0] == 1 and arg_edge[0, 0] == 1
    assert out[0, 1].isinf() and arg_src[0, 1] == 0 and arg_edge[0, 1] == 0


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_winners_have_the_dtype_of_the_indices(device, dtype):
    src, dst, n, m = reference.edges("random", device, dtype)
    _, arg_src, arg_edge = call(torch.randn(n, 4, device=device), None, src, dst, m, "max")
    assert arg_src.dtype == arg_edge.dtype == dtype


def test_a_sum_is_refused(device):
    src, dst, n, m = reference.edges("random", device)
    with pytest.raises(ValueError, match="reduce is 'sum'; only 'max' and 'min' have a winner"):
        call(torch.randn(n, 4, device=device), None, src, dst, m, "sum")


def test_opcheck(device):
    src, dst, n, m = reference.edges("random", device)
    torch.library.opcheck(
        torch.ops.gnna.spmm_arg.default, (torch.randn(n, 4, device=device), None, src, dst, m, "max", False)
    )
    if device.type == "cpu":
        torch.library.opcheck(
            torch.ops.gnna.spmm_arg.default, (torch.randn(n, 4), None, src, dst, m, "max", False), {"last": True}
        )
