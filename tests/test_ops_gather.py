"""gather_rows, which makes the messages of layers that cannot be fused, and its adjoint scatter_rows. They equal
torch's index_select and index_add, and use a plan if the same index is used repeatedly.
"""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import gnna_plugin


def plans() -> int:
    return gnna_plugin.status().plans


def passes(x, index, count=3):
    """Gather and go backwards `count` times with the same index.

    Yields:
        The result, the gradient of x, and the upstream gradient, one number per message.
    """
    for _ in range(count):
        leaf = x.clone().requires_grad_()
        out = torch.ops.gnna.gather_rows(leaf, index)
        scale = torch.arange(1, out.size(0) + 1, device=out.device, dtype=out.dtype).view(-1, *[1] * (out.dim() - 1))
        out.backward(scale.expand_as(out))
        yield out.detach(), leaf.grad, scale


@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,), (17,), (3, 8), (130,)])
@pytest.mark.parametrize("ids", [torch.int32, torch.int64])
def test_results_equal_index_select_and_index_add(device, shape, order, ids):
    index = torch.randint(2, 40, (600,), device=device).to(ids)
    if order == "sorted":
        index = index.sort().values
    x = torch.randn(45, *shape, dtype=torch.float64, device=device)
    for out, grad, scale in passes(x, index):
        assert torch.equal(out, x.index_select(0, index))
        torch.testing.assert_close(grad, torch.zeros_like(x).index_add(0, index, scale.expand_as(out)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 2, 7, 8, 64, 257])
def test_every_type_and_width_with_and_without_alignment(device, dtype, width):
    index = torch.randint(0, 300, (5000,), device=device)
    stored = torch.randn(300 * width + 1, device=device).to(dtype)
    for start in (0, 1):
        x = stored[start : start + 300 * width].view(300, width)
        for _ in range(2):
            assert torch.equal(torch.ops.gnna.gather_rows(x, index), x.index_select(0, index))
    apart = torch.randn(300, 2 * width, device=device).to(dtype)[:, ::2]
    assert torch.equal(torch.ops.gnna.gather_rows(apart, index), apart.index_select(0, index))


def call(x, index, cache=True):
    """Call the op that uses a plan: the gather on a GPU, its adjoint on a CPU, which gathers with torch."""
    if x.is_cuda:
        return torch.ops.gnna.gather_rows(x, index, cache)
    return torch.ops.gnna.scatter_rows(x[index], index, x.size(0), cache)


def test_a_plan_is_built_at_the_second_use_of_an_index(device):
    x = torch.randn(9, 4, device=device)
    index = torch.randint(0, 9, (50,), device=device)
    call(x, index)
    assert plans() == 0
    for _ in range(3):
        call(x, index)
        assert plans() == 1
    for _ in range(300):  # each index is used once, like the batches of an epoch
        list(passes(x, torch.randint(0, 9, (50,), device=device), 1))
    assert plans() == 1
    for _ in range(2):
        call(x, index.clone(), cache=False)
    assert plans() == 1


def test_no_plan_is_built_that_exceeds_the_bound_of_the_cache(device):
    x, index = torch.randn(9, 4, device=device), torch.randint(0, 9, (50,), device=device)
    limit = torch.ops.gnna.cache_info()[4]
    torch.ops.gnna.set_max_plan_bytes(100)
    try:
        before = gnna_plugin.status().plan_misses
        for out, grad, scale in passes(x, index, 4):
            assert torch.equal(out, x[index])
            torch.testing.assert_close(grad, torch.zeros_like(x).index_add(0, index, scale.expand_as(out)))
        assert gnna_plugin.status().plan_misses == before
    finally:
        torch.ops.gnna.set_max_plan_bytes(limit)


def test_an_index_changed_in_place_is_seen(device):
    x = torch.randn(9, 4, device=device)
    index = torch.randint(0, 9, (50,), device=device)
    for _ in range(3):
        torch.ops.gnna.gather_rows(x, index)
    index.copy_(torch.randint(0, 9, (50,), device=device))
    for out, grad, scale in passes(x, index):
        assert torch.equal(out, x[index])
        torch.testing.assert_close(grad, torch.zeros_like(x).index_add(0, index, scale.expand_as(out)))


def test_gradients_have_the_same_bits_once_there_is_a_plan(device):
    index = torch.randint(0, 50, (20000,), device=device)
    x = torch.randn(50, 16, device=device)
    _, *grads = [grad for _, grad, _ in passes(x, index, 5)]
    assert all(torch.equal(grad, grads[0]) for grad in grads)


def test_gradients(device):
    index = torch.randint(0, 4, (9,), device=device)
    x = torch.randn(5, 3, dtype=torch.float64, device=device, requires_grad=True)
    messages = torch.randn(9, 3, dtype=torch.float64, device=device, requires_grad=True)
    assert gradcheck(lambda x: torch.ops.gnna.gather_rows(x, index), x)
    assert gradgradcheck(lambda x: torch.ops.gnna.gather_rows(x, index), x)
    assert gradcheck(lambda m: torch.ops.gnna.scatter_rows(m, index, 5), messages)
    assert gradgradcheck(lambda m: torch.ops.gnna.scatter_rows(m, index, 5), messages)
    torch.library.opcheck(torch.ops.gnna.gather_rows.default, (x, index, False))
    torch.library.opcheck(torch.ops.gnna.scatter_rows.default, (messages, index, 5, False))


def test_empty_inputs_give_empty_results(device):
    none = torch.empty(0, dtype=torch.int64, device=device)
    for _ in range(2):
        assert torch.ops.gnna.gather_rows(torch.randn(5, 3, device=device), none).shape == (0, 3)
        assert torch.ops.gnna.gather_rows(torch.randn(0, 3, device=device), none).shape == (0, 3)
        index = torch.zeros(4, dtype=torch.int64, device=device)
        assert torch.ops.gnna.gather_rows(torch.randn(5, 0, device=device), index).shape == (4, 0)
    assert torch.equal(torch.ops.gnna.scatter_rows(torch.randn(0, 3, device=device), none, 2).cpu(), torch.zeros(2, 3))


def test_invalid_arguments_are_refused(device):
    x, index = torch.ones(3, 2, device=device), torch.tensor([0, 1], device=device)
    with pytest.raises(ValueError, match="3 messages and 2 indices"):
        torch.ops.gnna.scatter_rows(x, index, 5)
    with pytest.raises(TypeError, match="both must be int32 or both int64"):
        torch.ops.gnna.gather_rows(x, index.float())


def test_a_layer_that_cannot_be_fused_gathers_with_a_plan(device):
    pytest.importorskip("torch_geometric")
    import pyg_layers as layers

    x, edge_index, _ = layers.graph(device)

    class Cosine(layers.PlainMessage):
        def message(self, x_j):
            return x_j.cos()

    layer = layers.build((Cosine,), device)

    def run():
        leaf = x.clone().requires_grad_()
        out = layer(leaf, edge_index)
        return out.detach(), torch.autograd.grad(out.square().sum(), leaf)[0]

    plain = run()
    gnna_plugin.enable(min_work=0)
    for _ in range(3):
        for found, wanted in zip(run(), plain, strict=True):
            torch.testing.assert_close(found, wanted)
    assert plans() == 2  # one of the sources for the gather, one of the targets for the reduction
