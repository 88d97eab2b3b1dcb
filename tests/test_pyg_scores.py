"""(x_i * x_j).sum(-1), the score of an edge from the features of both ends, is one sddmm. Any other use of such a
product gives PyG's results.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
from torch_geometric.nn import MessagePassing, SuperGATConv, TransformerConv

import gnna_plugin


def in_place(q_i, k_j):
    product = q_i * k_j
    product += 1
    return product.sum(-1)


def changed_later(q_i, k_j):
    product = q_i * k_j
    with torch.no_grad():  # autograd does not record the write, and the product must keep the earlier factor
        q_i.add_(1)
    return product.detach().tanh().sum(-1)


def changed_through_a_view(q_i, k_j):
    with torch.no_grad():
        q_i[:, 0].mul_(5)
    return (q_i * k_j).sum(-1)


def in_place_function(q_i, k_j):
    return (torch.nn.functional.relu(q_i, inplace=True) * k_j).sum(-1) + (q_i * k_j).sum(-1)


def without_gradients(q_i, k_j):
    with torch.no_grad():
        product = q_i * k_j
    return product.sum(-1) + (product.tanh() * k_j).sum(-1)


def gradient_of_the_product(q_i, k_j):
    product = q_i * k_j
    if not product.requires_grad:
        return product.tanh().sum(-1)
    return torch.autograd.grad(product.tanh().sum(), product, create_graph=True)[0].sum(-1)


def hooked(q_i, k_j):
    product = q_i * k_j
    if product.requires_grad:
        product.register_hook(lambda grad: 3 * grad)
    return product.sum(-1)


# Functions of q_i and k_j, [E, 3, 4] each, that return scores [E, 3].
ONE_KERNEL = {
    "method": lambda q_i, k_j: (q_i * k_j).sum(dim=-1),
    "the other way round": lambda q_i, k_j: (k_j * q_i).sum(-1),
    "function": lambda q_i, k_j: torch.sum(torch.mul(q_i, k_j), dim=2),
    "list": lambda q_i, k_j: (q_i * k_j).sum([-1]),
    "keywords": lambda q_i, k_j: torch.sum(input=q_i * k_j, dim=-1),
    "viewed": lambda q_i, k_j: (q_i.view(-1, 6, 2) * k_j.view(-1, 6, 2)).sum(-1)[:, :3],
    "scaled afterwards": lambda q_i, k_j: (q_i * k_j).sum(dim=-1) / 2,
    "of one end": lambda q_i, k_j: (k_j * k_j).sum(dim=-1),
    "of one end, by keyword": lambda q_i, k_j: torch.sum(input=k_j, dim=-1),
}
NOT_ONE_KERNEL = {
    "over heads": lambda q_i, k_j: (q_i * k_j).sum(dim=1)[:, :3],
    "over everything": lambda q_i, k_j: (q_i * k_j).sum(),
    "kept dimension": lambda q_i, k_j: (q_i * k_j).sum(-1, keepdim=True).squeeze(-1),
    "two dimensions": lambda q_i, k_j: (q_i * k_j).sum((1, 2)).unsqueeze(-1).expand(-1, 3),
    "another function": lambda q_i, k_j: (q_i * k_j).tanh().sum(-1),
    "of three": lambda q_i, k_j: (q_i * k_j * k_j).sum(-1),
    "viewed product": lambda q_i, k_j: (q_i * k_j).view(-1, 6, 2).sum(-1)[:, :3],
    "in place": in_place,
    "a factor changed later": changed_later,
    "a factor changed through a view": changed_through_a_view,
    "in-place function": in_place_function,
    "without gradients": without_gradients,
    "its gradient": gradient_of_the_product,
    "hooked": hooked,
    "shape questions": lambda q_i, k_j: (q_i * k_j).relu().sum(-1) * (q_i * k_j).size(1) * (q_i * k_j).dim(),
}


class Scored(MessagePassing):
    """A user's attention without softmax. Messages are v_j times the score."""

    def __init__(self, score):
        super().__init__(aggr="sum", node_dim=0)
        self.score = score
        self.q, self.k, self.v = (torch.nn.Linear(layers.WIDTH, 12) for _ in range(3))

    def forward(self, x, edge_index):
        q, k, v = (lin(x).view(-1, 3, 4) for lin in (self.q, self.k, self.v))
        return self.propagate(edge_index, q=q, k=k, v=v).flatten(1)

    def message(self, q_i, k_j, v_j):
        score = self.score(q_i, k_j)
        return v_j * (score if score.dim() == 0 else score.unsqueeze(-1))


class Aggregated(MessagePassing):
    """A layer whose message is the product itself."""

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_i, x_j):
        return x_i * x_j


def compare(layer, device, passes=2):
    """Assert that a layer gives the same with the plug-in, and return (fused calls, reasons to materialise)."""
    x, edge_index, _ = layers.graph(device)
    expected = layers.outputs_and_gradients(layer, x, edge_index)
    with torch.no_grad():
        without = layer(x, edge_index)
    gnna_plugin.enable(min_work=0)
    for _ in range(passes):
        found = layers.outputs_and_gradients(layer, x, edge_index)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    counts = gnna_plugin.status().layers[type(layer).__name__]
    done = counts.fused, dict(counts.materialised)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, edge_index), without)
    return done


@pytest.mark.parametrize("name", ONE_KERNEL)
def test_a_score_is_one_kernel(device, name):
    fused, materialised = compare(layers.build((lambda: Scored(ONE_KERNEL[name]),), device), device)
    scores = 0 if name.startswith("of one end") else 2  # those are computed per node, all others by a kernel per pass
    assert fused == 2 + scores and not materialised


@pytest.mark.parametrize("name", NOT_ONE_KERNEL)
def test_any_other_use_of_a_product_gives_pygs_results(device, name):
    _, materialised = compare(layers.build((lambda: Scored(NOT_ONE_KERNEL[name]),), device), device)
    assert materialised


@pytest.mark.parametrize("make", [TransformerConv, SuperGATConv], ids=lambda kind: kind.__name__)
def test_attention_layers_give_pygs_results(device, make):
    fused, materialised = compare(layers.build((lambda: make(layers.WIDTH, 4, heads=3),), device), device)
    if make is TransformerConv:
        assert fused == 4 and not materialised
    else:  # SuperGATConv applies further functions to its scores
        assert fused == 4 and set(materialised) == {"leaky_relu"}


def test_scores_need_no_plan_of_their_own(device):
    x, edge_index, _ = layers.graph(device)
    layer = layers.build((lambda: TransformerConv(layers.WIDTH, 4, heads=3),), device)
    gnna_plugin.enable(min_work=0)
    with torch.no_grad():
        layer(x, edge_index)
    assert gnna_plugin.status().plans == 2  # of the aggregation and of the softmax


def test_a_product_that_is_reduced_is_materialised(device):
    fused, materialised = compare(Aggregated().to(device), device)
    assert fused == 0 and materialised


@pytest.mark.parametrize("changed", [0, 1])
def test_features_changed_in_place_before_the_sum_are_refused(changed):
    x, edge_index, _ = layers.graph()
    given = [torch.randn_like(x), torch.randn_like(x)]

    class Late(MessagePassing):
        def forward(self, edge_index):
            return self.propagate(edge_index, q=given[0], k=given[1])

        def message(self, q_i, k_j):
            product = q_i * k_j
            given[changed].add_(1)
            return product.sum(-1, keepdim=False)

    gnna_plugin.enable(min_work=0)
    with pytest.raises(RuntimeError, match="modified in place"):
        Late()(edge_index)


def test_an_index_out_of_range_raises_pygs_error():
    x, edge_index, _ = layers.graph()
    layer = layers.build((lambda: Scored(ONE_KERNEL["method"]),))
    edge_index = edge_index.clone()
    edge_index[0, 3] = layers.NODES
    gnna_plugin.enable(min_work=0)
    with pytest.raises(IndexError, match="Found"):
        layer(x, edge_index)
