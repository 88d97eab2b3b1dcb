"""Gradients of first and second order equal the reference, and the ops pass torch's opcheck and torch.compile."""

from __future__ import annotations

import pytest
import reference
import torch
from torch.autograd import gradcheck, gradgradcheck

REDUCES = ("sum", "mean", "max", "min")


def small(device, shape, weights, requires=(True, True)):
    src, dst = torch.randint(0, 5, (12,), device=device), torch.randint(0, 4, (12,), device=device)
    x = torch.randn(5, *shape, dtype=torch.float64, device=device, requires_grad=requires[0])
    weight = None
    if weights:
        weight = torch.randn(12, *shape[: weights - 1], dtype=torch.float64, device=device, requires_grad=requires[1])
    return x, weight, src, dst


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("weights", [0, 1, 2, 3])
def test_spmm_gradients_of_first_and_second_order(device, reduce, weights):
    x, weight, src, dst = small(device, (2, 3), weights)
    inputs = (x,) if weight is None else (x, weight)

    def function(x, weight=None):
        return torch.ops.gnna.spmm(x, weight, src, dst, 6, reduce)

    assert gradcheck(function, inputs, nondet_tol=0.0)
    assert gradgradcheck(function, inputs, nondet_tol=0.0)


@pytest.mark.parametrize("head_dims", [0, 1, 2])
def test_sddmm_gradients_of_first_and_second_order(device, head_dims):
    a, _, src, dst = small(device, (2, 3), 0)
    b = torch.randn(4, 2, 3, dtype=torch.float64, device=device, requires_grad=True)
    assert gradcheck(lambda a, b: torch.ops.gnna.sddmm(a, b, src, dst, head_dims), (a, b))
    assert gradgradcheck(lambda a, b: torch.ops.gnna.sddmm(a, b, src, dst, head_dims), (a, b))


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("kind", reference.KINDS)
def test_gradients_on_directed_graphs_equal_the_reference(device, kind, reduce):
    """Every graph here is asymmetric, so the transposed plan differs from the forward plan."""
    src, dst, n, m = reference.edges(kind, device)
    x = torch.randn(n, 2, 9, dtype=torch.float64, device=device)
    weight = torch.randn(src.numel(), 2, dtype=torch.float64, device=device)
    upstream = torch.randn(m, 2, 9, dtype=torch.float64, device=device)
    grads = []
    for function in (torch.ops.gnna.spmm, reference.spmm):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        function(*leaves, src, dst, m, reduce).backward(upstream)
        grads.append([leaf.grad for leaf in leaves])
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("requires", [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("reduce", REDUCES)
def test_only_inputs_that_require_a_gradient_get_one(device, reduce, requires):
    x, weight, src, dst = small(device, (2, 3), 2, requires)
    out = torch.ops.gnna.spmm(x, weight, src, dst, 6, reduce)
    assert out.requires_grad == any(requires)
    if any(requires):
        out.sum().backward()
    assert (x.grad is not None, weight.grad is not None) == requires


@pytest.mark.parametrize("reduce", ["max", "min"])
def test_ties_share_the_gradient_as_scatter_reduce_does(device, reduce):
    """Two equal winners get half each. If the result is 0, torch counts one more winner, so two get a third each."""
    src, dst = torch.tensor([0, 1, 2, 3], device=device), torch.tensor([0, 0, 1, 1], device=device)
    x = torch.tensor([[1.0], [1.0], [0.0], [0.0]], device=device, requires_grad=True)
    torch.ops.gnna.spmm(x, None, src, dst, 2, reduce).sum().backward()
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([1 / 2, 1 / 2, 1 / 3, 1 / 3], device=device))


def test_expanded_and_strided_upstream_gradients(device):
    x, weight, src, dst = small(device, (2, 3), 2)
    out = torch.ops.gnna.spmm(x, weight, src, dst, 6, "sum")
    (found,) = torch.autograd.grad(out.sum(), x, retain_graph=True)  # the gradient of a sum is an expanded scalar
    (expected,) = torch.autograd.grad(reference.spmm(x, weight, src, dst, 6, "sum").sum(), x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("weights", [0, 1, 2])
def test_opcheck_of_spmm(device, reduce, weights):
    x, weight, src, dst = small(device, (2, 3), weights)
    torch.library.opcheck(torch.ops.gnna.spmm.default, (x, weight, src, dst, 6, reduce, False))


def test_opcheck_of_other_ops(device):
    x, weight, src, dst = small(device, (2, 3), 2)
    b = torch.randn(4, 2, 3, dtype=torch.float64, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.gnna.sddmm.default, (x, b, src, dst, 1, False))
    out = torch.ops.gnna.spmm(x, weight, src, dst, 4, "max").detach()
    torch.library.opcheck(torch.ops.gnna.extremum_backward.default, (b, x, weight, out, src, dst, True, False))
    torch.library.opcheck(torch.ops.gnna.mean_divisor.default, (b, src, dst, 5, 4, False))


def test_indices_computed_in_compiled_code_never_hit_a_stale_plan(device):
    """Compiled code reuses buffers without a new version, so indices computed inside must not hit a stale plan."""
    from gnna_plugin import spmm

    def step(x, edge_index, shift):
        return spmm(x, (edge_index + shift) % x.size(0), num_dst=x.size(0))

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    x = torch.randn(20, 4, dtype=torch.float64, device=device)
    edge_index = torch.randint(0, 20, (2, 60), device=device)
    for shift in range(6):
        torch.testing.assert_close(compiled(x, edge_index, shift), step(x, edge_index, shift))
