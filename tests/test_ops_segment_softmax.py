"""segment_softmax, the softmax over the edges of every node, against plain torch in float64."""

from __future__ import annotations

import pytest
import reference
import torch
from torch.autograd import gradcheck, gradgradcheck

SHAPES = [(), (1,), (2,), (3,), (4,), (8,), (5, 7), (40,), (3, 1)]
ROUNDING = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def expected(scores, index, rows):
    """Compute the softmax in float64, whatever the dtype of the scores."""
    scores = scores.double()
    spread = index.long().view(-1, *[1] * (scores.dim() - 1)).expand_as(scores)
    most = scores.new_full((rows, *scores.shape[1:]), -torch.inf).scatter_reduce(0, spread, scores, "amax")
    exponentials = (scores - most.gather(0, spread)).exp()
    return exponentials / exponentials.new_zeros(most.shape).scatter_add(0, spread, exponentials).gather(0, spread)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_every_length(device, shape, dtype):
    """Covers isolated nodes, single edges, and rows that exceed the CPU's buffer and that a GPU splits.

    The scores are so large that their exponentials overflow unless the maximum is subtracted first.
    """
    degrees = [0, 1, 2, 3, 16, 17, 33, 600, 0, 9000 if len(shape) < 2 else 700, 5, 0]
    index = torch.repeat_interleave(torch.arange(len(degrees)), torch.tensor(degrees))
    index = index[torch.randperm(index.numel())].to(device)
    scores = (torch.randn(index.numel(), *shape, device=device, dtype=torch.float64) * 8 + 200).to(dtype)
    found = torch.ops.gnna.segment_softmax(scores, index, len(degrees))
    wanted = expected(scores, index, len(degrees))
    assert found.dtype == dtype
    smallest = torch.finfo(dtype).smallest_normal
    torch.testing.assert_close(found.double(), wanted, rtol=ROUNDING[dtype], atol=smallest)


@pytest.mark.parametrize("kind", reference.KINDS)
@pytest.mark.parametrize("ids", [torch.int32, torch.int64])
def test_softmax_over_sources_and_destinations_of_every_graph(device, kind, ids):
    src, dst, n, m = reference.edges(kind, device, ids)
    for index, rows in ((dst, m), (src, n)):
        scores = torch.randn(index.numel(), 3, dtype=torch.float64, device=device)
        for _ in range(2):  # the second call hits the cached plan
            found = torch.ops.gnna.segment_softmax(scores, index, rows)
            torch.testing.assert_close(found, expected(scores, index, rows))


def test_infinities_and_nan_spread_as_in_torch(device):
    """-inf gives 0, but a row of only -inf is NaN. +inf and NaN make their row NaN, but no other row or head."""
    inf, nan = torch.inf, torch.nan
    rows = [[-inf, 1, -inf, 2], [-inf, -inf], [inf, 0], [nan, 1, -inf], [inf, -inf, nan], [0.5]]
    index = torch.cat([torch.full((len(row),), r) for r, row in enumerate(rows)])
    special = torch.cat([torch.tensor(row) for row in rows])
    scores = torch.stack([special, torch.randn(index.numel()), special], 1)
    order = torch.randperm(index.numel())
    index, scores = index[order].to(device), scores[order].to(device)
    found, wanted = torch.ops.gnna.segment_softmax(scores, index, 6), expected(scores, index, 6).float()
    torch.testing.assert_close(found, wanted, equal_nan=True)
    assert found[:, 0].isnan().sum() == 2 + 2 + 3 + 3 and (found[:, 0] == 0).sum() == 2


def test_results_below_the_smallest_normal_number_are_kept(device):
    """Their logarithm is finite, so that a loss on them still has a gradient."""
    scores = torch.tensor([0.0, -95.0, -200.0], device=device)
    found = torch.ops.gnna.segment_softmax(scores, torch.zeros(3, dtype=torch.int64, device=device), 1)
    torch.testing.assert_close(found[1].log(), torch.tensor(-95.0, device=device), rtol=1e-4, atol=0)
    assert found[2] == 0


@pytest.mark.parametrize("shape", [(), (3,), (8,)])
def test_gradients_of_both_orders(device, shape):
    index = torch.randint(0, 4, (11,), device=device)
    scores = torch.randn(11, *shape, dtype=torch.float64, device=device, requires_grad=True)
    assert gradcheck(lambda s: torch.ops.gnna.segment_softmax(s, index, 5), scores)
    assert gradgradcheck(lambda s: torch.ops.gnna.segment_softmax(s, index, 5), scores)
    out = scores.detach().softmax(0).requires_grad_()
    assert gradcheck(lambda g, o: torch.ops.gnna.segment_softmax_backward(g, o, index, 5), (scores, out))


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_of_long_rows(device, shape, dtype):
    index = torch.cat([torch.zeros(6000 if len(shape) < 2 else 500), torch.randint(1, 40, (300,))]).long().to(device)
    index = index[torch.randperm(index.numel())]
    out = torch.rand(index.numel(), *shape, device=device).to(dtype)
    grad = torch.randn(index.numel(), *shape, device=device).to(dtype)
    found = torch.ops.gnna.segment_softmax_backward(grad, out, index, 41)
    o, g = out.double(), grad.double()
    total = o.new_zeros(41, *shape).index_add(0, index, o * g)
    exact = o * (g - total[index])
    scale = o.new_zeros(41, *shape).index_add(0, index, (o * g).abs())[index] + g.abs()
    assert ((found.double() - exact).abs() <= ROUNDING[dtype] * (scale + exact.abs())).all()


def test_opcheck(device):
    index = torch.randint(0, 4, (9,), device=device)
    scores = torch.randn(9, 2, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.gnna.segment_softmax.default, (scores, index, 5, False))
    out, grad = scores.detach().softmax(0).requires_grad_(), torch.randn_like(scores, requires_grad=True)
    torch.library.opcheck(torch.ops.gnna.segment_softmax_backward.default, (grad, out, index, 5, False))


def test_the_same_input_gives_the_same_bits(device):
    index = torch.randint(0, 50, (20_000,), device=device)
    scores = torch.randn(20_000, 4, device=device)
    first = torch.ops.gnna.segment_softmax(scores, index, 50)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(torch.ops.gnna.segment_softmax(scores, index, 50), first)
    finally:
        torch.set_num_threads(threads)


def test_transposed_scores(device):
    index = torch.randint(0, 5, (30,), device=device)
    scores = torch.randn(3, 30, dtype=torch.float64, device=device).t()
    found = torch.ops.gnna.segment_softmax(scores, index, 5)
    torch.testing.assert_close(found, expected(scores, index, 5))


def test_invalid_arguments_are_refused(device):
    scores, index = torch.ones(3, 2, device=device), torch.tensor([0, 5, 1], device=device)
    with pytest.raises(ValueError, match=r"index\[1\] = 5 is out of range: valid indices are 0 to 4"):
        torch.ops.gnna.segment_softmax(scores, index, 5)
    with pytest.raises(ValueError, match="3 scores and 2 indices"):
        torch.ops.gnna.segment_softmax(scores, index[:2], 5)
    with pytest.raises(TypeError, match="features are Long"):
        torch.ops.gnna.segment_softmax(scores.long(), index, 6)
    with pytest.raises(ValueError, match="trailing dimensions|differ in their rows"):
        torch.ops.gnna.segment_softmax_backward(scores[:, :1], scores, index, 6)
