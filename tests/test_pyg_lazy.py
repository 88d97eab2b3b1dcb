"""Lazy x_j in user-written message() functions: whatever they do with it, they get what PyG gives."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
from programs.tools import Square

import gnna_plugin


@torch.jit.script
def scripted_double(x: torch.Tensor):
    return x * 2.0


def in_place(x_j, w):
    x_j += 1
    x_j[0] = 5
    x_j.mul_(2)
    return x_j


def hooked(x_j, w):
    if x_j.requires_grad:
        x_j.register_hook(lambda grad: grad * 3)
    return w.view(-1, 1) * x_j


def retained(x_j, w):
    x_j.retain_grad() if x_j.requires_grad else None
    return x_j * w.view(-1, 1)


def checkpointed(x_j, w):
    return torch.utils.checkpoint.checkpoint(lambda x: (x * w.view(-1, 1)).tanh(), x_j, use_reentrant=False)


def reentrant(x_j, w):
    return torch.utils.checkpoint.checkpoint(lambda x: (x * w.view(-1, 1)).tanh(), x_j, use_reentrant=True)


def used_twice(x_j, w):
    return x_j.sigmoid() * x_j


def materialised_then_fused(x_j, w):
    (x_j * 1.0).abs().mean()  # reads the messages without changing them
    return x_j


def no_grad_look(x_j, w):
    with torch.no_grad():
        scale = x_j.abs().mean()
    return x_j * scale.item()


def in_place_function(x_j, w):
    torch.nn.functional.relu(x_j, inplace=True)
    return x_j


def through_a_view(x_j, w):
    first, _ = x_j.chunk(2, -1)
    with torch.no_grad():
        first.mul_(2)
    return x_j


def weighted_without_gradients(x_j, w):
    with torch.no_grad():
        weighted = x_j * w.view(-1, 1)
    return weighted + x_j


def multiple_views(x_j, w):
    heads = x_j.view(-1, 2, 4) * torch.stack([w, w * w], 1).unsqueeze(-1)
    return heads.reshape(-1, 8) * w.view(-1, 1)


MESSAGES = {
    "in place": in_place,
    "tensor hook": hooked,
    "retain_grad": retained,
    "checkpoint inside": checkpointed,
    "re-entrant checkpoint inside": reentrant,
    "autograd.Function": lambda x_j, w: Square.apply(x_j),
    "autograd.Function on weighted": lambda x_j, w: Square.apply(w.view(-1, 1) * x_j),
    "scripted function": lambda x_j, w: scripted_double(x_j) * w.view(-1, 1),
    "scripted function, keyword": lambda x_j, w: scripted_double(x=x_j),
    "used twice": used_twice,
    "looked at": materialised_then_fused,
    "no_grad look": no_grad_look,
    "heads": multiple_views,
    "number": lambda x_j, w: 3 * x_j * 0.5,
    "weight twice": lambda x_j, w: w.view(-1, 1) * (w.view(-1, 1) * x_j),
    "full-width weight": lambda x_j, w: x_j * w.view(-1, 1).expand(-1, 8),
    "constant per feature": lambda x_j, w: x_j * torch.arange(8, dtype=x_j.dtype),
    "double": lambda x_j, w: x_j * 2 + x_j,
    "cat and split": lambda x_j, w: torch.cat([x_j, x_j], -1)[:, :8],
    "list": lambda x_j, w: torch.stack([x_j, x_j]).sum(0),
    "numpy": lambda x_j, w: x_j * float(x_j.detach().numpy().mean()),
    "transpose": lambda x_j, w: x_j.t().contiguous().t(),
    "in-place function": in_place_function,
    "through a view": through_a_view,
    "weighted without gradients": weighted_without_gradients,
    "unsqueeze in front": lambda x_j, w: x_j.unsqueeze(0).squeeze(0),
    "flatten": lambda x_j, w: x_j.flatten().view(-1, 8),
    "clone": lambda x_j, w: x_j.clone(),
    "detach": lambda x_j, w: x_j.detach() * w.view(-1, 1),
    "where": lambda x_j, w: torch.where(x_j > 0, x_j, w.view(-1, 1)),
    "shape questions": lambda x_j, w: x_j * (x_j.size(1) + x_j.shape[0] + x_j.dim() + len(x_j) + x_j.numel()),
}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("aggr", ["sum", "max"])
@pytest.mark.parametrize("name", MESSAGES)
def test_message_functions_give_pygs_outputs_and_gradients(name, aggr):
    x, edge_index, edge = layers.graph()
    layer = layers.build((lambda: layers.Layer(MESSAGES[name], aggr),))
    expected = layers.outputs_and_gradients(layer, x, edge_index, edge["weight"])
    with torch.no_grad():
        expected_no_grad = layer(x, edge_index, edge["weight"])
    gnna_plugin.enable(min_work=0)
    found = layers.outputs_and_gradients(layer, x, edge_index, edge["weight"])
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, edge_index, edge["weight"]), expected_no_grad)
    assert type(layer(x, edge_index, edge["weight"])) is torch.Tensor


@pytest.mark.parametrize("name", ["heads", "number", "weight twice", "full-width weight"])
def test_products_with_weights_and_numbers_stay_fused(name):
    x, edge_index, edge = layers.graph()
    gnna_plugin.enable(min_work=0)
    layers.build((lambda: layers.Layer(MESSAGES[name], "sum"),))(x, edge_index, edge["weight"])
    assert gnna_plugin.status().layers["Layer"].fused == 1


def centred(x_j, w):
    return x_j - x_j.mean()


def test_messages_that_were_materialised_are_reduced_as_they_are():
    x, edge_index, edge = layers.graph()
    gnna_plugin.enable(min_work=0)
    layers.build((lambda: layers.Layer(centred, "sum"),))(x, edge_index, edge["weight"])
    status = gnna_plugin.status()
    assert status.layers["Layer"].fused == 0 and status.layers["Layer"].reduced == 1


def test_a_kept_message_is_a_plain_tensor_after_the_layer():
    x, edge_index, _ = layers.graph()
    gnna_plugin.enable(min_work=0)
    caught = []
    layer = layers.Layer(lambda x_j, w: caught.append(x_j) or x_j, "sum").double()
    layer(x, edge_index, torch.ones(layers.EDGES))
    assert type(caught[0]) is torch.Tensor
    assert torch.equal(caught[0], layer.lin(x)[edge_index[0]])


def test_features_changed_before_the_messages_are_used_are_refused():
    x, edge_index, edge = layers.graph()
    gnna_plugin.enable(min_work=0)
    source = []

    class Escaping(layers.Layer):
        def forward(self, x, edge_index, edge_weight):
            source.append(self.lin(x).detach())
            return self.propagate(edge_index, x=source[-1], w=edge_weight)

    def change(x_j, w):
        source[-1].add_(1)
        return x_j

    with pytest.raises(RuntimeError, match="Escaping: the features that were gathered have been modified in place"):
        Escaping(change, "sum").double()(x, edge_index, edge["weight"])


def test_memory_of_messages_is_never_allocated():
    """The messages would take 160 MB, which must not show in the peak memory of the process."""
    import resource

    nodes, edges = 1000, 400_000
    x, edge_index = torch.randn(nodes, 100), torch.randint(0, nodes, (2, edges))
    layer = layers.PlainMessage()
    layer.lin = torch.nn.Identity()
    gnna_plugin.enable(min_work=0)
    layer(x[:, :1], edge_index)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    layer(x, edge_index)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # KiB
    assert gnna_plugin.status().layers["PlainMessage"].fused == 2
