"""Numerical ranges, the address of the user's memory, and unsupported devices and transforms are as in PyG."""

from __future__ import annotations

import numpy
import pytest
import torch

pytest.importorskip("torch_geometric")

from torch_geometric.nn import GCNConv, GINConv, MessagePassing, SimpleConv

import gnna_plugin


def test_features_keep_their_address_after_a_layer_and_a_write():
    x, edge_index = torch.rand(20, 8), torch.randint(0, 20, (2, 60))
    watched, address = x.numpy(), x.data_ptr()
    gnna_plugin.enable("pyg", min_work=0)
    weight = torch.rand(60, requires_grad=True)
    expected = (x[edge_index[0]].sum(1)).clone()
    out = SimpleConv("sum")(x, edge_index, weight)
    assert x.data_ptr() == address
    watched[:] = 1
    x.mul_(2)
    assert x.data_ptr() == address and bool((x == 2).all()) and numpy.shares_memory(watched, x.numpy())
    out.sum().backward()
    torch.testing.assert_close(weight.grad, expected)


def test_products_of_several_weights_stay_in_the_range_of_16_bit_types():
    class Twice(MessagePassing):
        def forward(self, x, edge_index, w):
            return self.propagate(edge_index, x=x, w=w)

        def message(self, x_j, w):
            return w.view(-1, 1) * (w.view(-1, 1) * x_j)

    edge_index = torch.tensor([[0], [1]])
    for x, w in ((0.001, 300.0), (1000.0, 1e-4)):
        for dtype in (torch.float16, torch.bfloat16):
            args = torch.full((2, 4), x, dtype=dtype), edge_index, torch.full((1,), w, dtype=dtype)
            gnna_plugin.disable()
            expected = Twice()(*args)
            gnna_plugin.enable("pyg", min_work=0)
            torch.testing.assert_close(Twice()(*args), expected, rtol=0.02, atol=1e-6)


def test_an_infinite_factor_does_not_reach_nodes_without_edges():
    class Infinite(MessagePassing):
        def forward(self, x, edge_index):
            return self.propagate(edge_index, x=x)

        def message(self, x_j):
            return x_j * float("inf")

    x = torch.ones(3, 2, requires_grad=True)
    gnna_plugin.enable("pyg", min_work=0)
    Infinite("max")(x, torch.tensor([[0, 1], [1, 1]])).sum().backward()
    assert bool((x.grad[2] == 0).all())


@pytest.mark.parametrize("make", [lambda: GINConv(torch.nn.Linear(8, 8)), lambda: GCNConv(8, 8, add_self_loops=False)])
def test_layers_on_the_meta_device_give_shapes(make):
    gnna_plugin.enable("pyg", min_work=0)
    with torch.device("meta"):
        assert make()(torch.empty(30, 8), torch.zeros(2, 50, dtype=torch.long)).shape == (30, 8)


def test_an_ensemble_under_vmap_gives_pygs_results():
    layers_ = [GINConv(torch.nn.Linear(8, 8)) for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(layers_)
    x, edge_index = torch.randn(30, 8), torch.randint(0, 30, (2, 200))
    gnna_plugin.enable("pyg", min_work=0)

    def call(p, b):
        return torch.func.functional_call(layers_[0], (p, b), (x, edge_index))

    expected = torch.stack([layer(x, edge_index) for layer in layers_])
    torch.testing.assert_close(torch.vmap(call)(parameters, buffers), expected, rtol=1e-4, atol=1e-4)


def test_a_destination_out_of_range_raises_the_error_of_the_function_that_was_called():
    class Own(MessagePassing):
        def forward(self, x, edge_index):
            return self.propagate(edge_index, x=x)

        def message(self, x_j):
            return x_j

        def aggregate(self, inputs, index):
            return inputs.new_zeros(2, 4).index_add_(0, index, inputs)

    for switch in (gnna_plugin.disable, lambda: gnna_plugin.enable(min_work=0)):
        switch()
        with pytest.raises(RuntimeError):
            Own()(torch.ones(3, 4), torch.tensor([[0, 1, 2], [1, 2, 0]]))
