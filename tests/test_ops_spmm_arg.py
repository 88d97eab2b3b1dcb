"""spmm_arg: max and min with the winning source and edge, by DGL's rules, which differ from spmm's."""

from __future__ import annotations

import pytest
import reference
import torch


def call(x, weight, src, dst, rows, reduce):
    return torch.ops.gnna.spmm_arg(x, weight, src, dst, rows, reduce)


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


def test_first_of_equals_wins(device):
    x = torch.tensor([[2.0], [2.0], [1.0]], device=device)
    src, dst = torch.tensor([2, 1, 0], device=device), torch.zeros(3, dtype=torch.int64, device=device)
    _, arg_src, arg_edge = call(x, None, src, dst, 1, "max")
    assert (arg_src.item(), arg_edge.item()) == (1, 1)


@pytest.mark.parametrize("reduce", ["max", "min"])
def test_nan_never_wins(device, reduce):
    nan = float("nan")
    x = torch.tensor([[nan, nan], [3.0, nan], [nan, nan]], device=device)
    src, dst = torch.arange(3, device=device), torch.zeros(3, dtype=torch.int64, device=device)
    out, arg_src, arg_edge = call(x, None, src, dst, 1, reduce)
    assert out[0, 0] == 3 and arg_src[0, 0] == 1 and arg_edge[0, 0] == 1
    assert out[0, 1].isinf() and arg_src[0, 1] == 0 and arg_edge[0, 1] == 0


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_winners_come_in_the_indices_dtype(device, dtype):
    src, dst, n, m = reference.edges("random", device, dtype)
    _, arg_src, arg_edge = call(torch.randn(n, 4, device=device), None, src, dst, m, "max")
    assert arg_src.dtype == arg_edge.dtype == dtype


def test_sums_have_no_winner(device):
    src, dst, n, m = reference.edges("random", device)
    with pytest.raises(ValueError, match="reduce is 'sum'; only 'max' and 'min' have a winner"):
        call(torch.randn(n, 4, device=device), None, src, dst, m, "sum")


def test_opcheck(device):
    src, dst, n, m = reference.edges("random", device)
    torch.library.opcheck(
        torch.ops.gnna.spmm_arg.default, (torch.randn(n, 4, device=device), None, src, dst, m, "max", False)
    )
