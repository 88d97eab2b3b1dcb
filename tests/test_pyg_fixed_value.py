"""The value of a lazy message is fixed when it is gathered: writes through any alias, raw access, transforms, compiled
and scripted code, containers and gradient modes give what PyG gives.
"""

from __future__ import annotations

import collections
import copy
import pickle
from pathlib import Path

import numpy
import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
from torch.utils.dlpack import from_dlpack, to_dlpack
from torch_geometric.nn import MessagePassing, SimpleConv

import gnna_plugin

Ends = collections.namedtuple("Ends", "i j")


def written_view(m, w):
    m.view(-1, 2, 4).mul_(w.view(-1, 1, 1))
    return m


def written_base(m, w):
    heads = m.unsqueeze(1)
    m.mul_(2)
    return heads.squeeze(1)


def written_data(m, w):
    m.data[:, :3] = 0
    return m


def written_numpy(m, w):
    m.detach().numpy()[:, :3] = 0
    return m


def written_dlpack(m, w):
    from_dlpack(to_dlpack(m.detach())).mul_(2)
    return m


def written_after_view_of_product(m, w):
    product = m * w.view(-1, 1)
    product.view(-1, 2, 4).detach().zero_()
    return product


def weight_written(m, w):
    weight = w.detach().exp()
    out = weight.view(-1, 1) * m
    if not m.requires_grad:  # otherwise PyG's multiplication has saved the weight, and backward would raise
        weight.div_(weight.sum())
    return out


def weight_written_through_numpy(m, w):
    weight = w.detach().exp()
    out = m * weight.view(-1, 1)
    if not m.requires_grad:
        weight.numpy()[:] = 0
    return out


def hooked_after_product(m, w):
    out = m * w.view(-1, 1)
    if m.requires_grad:
        m.register_hook(lambda grad: 3 * grad)
    return out


def gradient_of_messages(m, w):
    out = m * w.view(-1, 1)
    if not m.requires_grad:
        return out
    return torch.autograd.grad(out.tanh().sum(), m, create_graph=True)[0]


def gradient_of_a_pair(m, w):
    out = m * (m * 1).view(-1, 8)
    return out if not m.requires_grad else torch.autograd.grad(out.tanh().sum(), m, create_graph=True)[0]


@torch.jit.script
def scripted_list(parts: list[torch.Tensor]):
    return parts[0] * 2.0 + parts[1]


CASES = {
    "written view": written_view,
    "written base": written_base,
    "written .data": written_data,
    "written NumPy": written_numpy,
    "written DLPack": written_dlpack,
    "written product": written_after_view_of_product,
    "weight written": weight_written,
    "weight written, NumPy": weight_written_through_numpy,
    "hooked after the product": hooked_after_product,
    "gradient of the messages": gradient_of_messages,
    "gradient of a pair": gradient_of_a_pair,
    "vmap": lambda m, w: torch.vmap(lambda row: row * row.sum())(m),
    "func.grad": lambda m, w: torch.func.grad(lambda t: (t**3).sum())(m),
    "func.vjp": lambda m, w: torch.func.vjp(torch.sin, m)[1](torch.ones_like(m))[0],
    "func.jvp": lambda m, w: torch.func.jvp(torch.sin, (m,), (torch.ones_like(m),))[1],
    "func.jacrev": lambda m, w: torch.func.jacrev(lambda t: t.square().sum(0))(m)[0, :, :].sum() * m,
    "vmap of a product": lambda m, w: torch.vmap(torch.sin)(m * w.view(-1, 1)),
    "namedtuple": lambda m, w: torch.cat(Ends(m, m * 2), -1)[:, :8],
    "deque": lambda m, w: torch.stack(tuple(collections.deque([m, m]))).sum(0),
    "scripted list": lambda m, w: scripted_list([m, m]),
    "sparse values": lambda m, w: torch.sparse_coo_tensor(torch.arange(len(m))[None], m, m.shape).to_dense(),
    "as_tensor": lambda m, w: torch.as_tensor(m, dtype=torch.float32).double(),
    "asarray": lambda m, w: torch.asarray(m, copy=True),
    "DoubleTensor": lambda m, w: torch.DoubleTensor(m),
    "as_subclass": lambda m, w: m.as_subclass(torch.Tensor),
    "to_dlpack": lambda m, w: from_dlpack(to_dlpack(m.detach())),
    "np.asarray": lambda m, w: torch.from_numpy(numpy.asarray(m.detach())),
    "parameter": lambda m, w: torch.nn.Parameter(m, requires_grad=False),
    "deepcopy": lambda m, w: copy.deepcopy(m.detach()),
    "pickle": lambda m, w: pickle.loads(pickle.dumps(m.detach())),
    "storage": lambda m, w: m * m.untyped_storage().nbytes(),
    "tolist": lambda m, w: torch.tensor(m.tolist(), dtype=m.dtype),
    "iteration": lambda m, w: torch.stack(list(m)),
    "type": lambda m, w: m if type(m) is torch.Tensor else m * 0,
    "__class__": lambda m, w: m if m.__class__ is torch.Tensor else m * 0,
}  # fmt: skip


def same_with_the_plug_in(run):
    expected = run()
    gnna_plugin.enable("pyg", min_work=0)
    for _ in range(2):
        torch.testing.assert_close(run(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_messages_have_the_values_that_were_gathered(name):
    x, edge_index, edge = layers.graph()
    layer = layers.build((lambda: layers.Layer(CASES[name]),))
    without = []

    def run():
        with torch.no_grad():
            without[:] = [layer(x, edge_index, edge["weight"])]
        out = layer(x, edge_index, edge["weight"])
        if not out.requires_grad:
            return [out, *without]
        return [*layers.outputs_and_gradients(layer, x, edge_index, edge["weight"]), *without]

    same_with_the_plug_in(run)


@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("how", ["function", "module", "module.compile()"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_code_in_a_message_gives_pygs_results(backend, how, fullgraph):
    if how == "module.compile()" and fullgraph:
        pytest.skip("torch refuses fullgraph for module.compile() of its own modules")
    torch._dynamo.reset()
    x, edge_index, edge = layers.graph()
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.SiLU()).double()
    if how == "function":
        compiled = torch.compile(lambda t: t.sin() * 2, backend=backend, fullgraph=fullgraph)
    elif how == "module":
        compiled = torch.compile(module, backend=backend, fullgraph=fullgraph)
    else:
        module.compile(backend=backend, fullgraph=fullgraph)
        compiled = module
    layer = layers.build((lambda: layers.Layer(lambda m, w: compiled(m) * w.view(-1, 1)),))
    same_with_the_plug_in(lambda: layers.outputs_and_gradients(layer, x, edge_index, edge["weight"]))


class Modes(MessagePassing):
    """Multiplies in one gradient mode and reduces in another."""

    def __init__(self, product, reduction):
        super().__init__(aggr="sum")
        self.product, self.reduction = product, reduction

    def forward(self, x, edge_index, w):
        return self.propagate(edge_index, x=x, w=w)

    def message(self, x_j, w):
        with self.product():
            return w.view(-1, 1) * x_j.unsqueeze(1).squeeze(1)

    def aggregate(self, inputs, index, ptr=None, dim_size=None):
        with self.reduction():
            return super().aggregate(inputs, index, ptr, dim_size)


@pytest.mark.parametrize("product", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("reduction", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("around", [torch.no_grad, torch.enable_grad])
def test_every_combination_of_gradient_modes_gives_pygs_results(around, product, reduction):
    x, edge_index, edge = layers.graph()

    def run():
        leaves = x.clone().requires_grad_(), edge["weight"].clone().requires_grad_()
        with around():
            out = Modes(product, reduction)(leaves[0], edge_index, leaves[1])
        if not out.requires_grad:
            return [out]
        return [out, *(torch.zeros(()) if g is None else g
                       for g in torch.autograd.grad(out.square().sum(), leaves, allow_unused=True))]  # fmt: skip

    same_with_the_plug_in(run)


@pytest.mark.parametrize("change", ["residual", "relu", "buffer", "optimiser"])
@pytest.mark.parametrize("kind", ["learned weight", "max", "scores"])
def test_features_may_be_written_between_the_layer_and_backward(kind, change):
    x, edge_index, edge = layers.graph()

    def layer(h, w):
        if kind == "max":
            return SimpleConv("max")(h, edge_index)
        if kind == "learned weight":
            return SimpleConv("sum")(h, edge_index, w)
        return Scores()(h, edge_index)

    def run():
        leaf, w = x.clone().requires_grad_(), edge["weight"].clone().requires_grad_()
        if change == "buffer":
            buffer = x.clone()
            out = layer(buffer, w) if kind == "learned weight" else layer(leaf * 1, w)
            buffer.copy_(x * 2)
        elif change == "optimiser":
            out = layer(leaf, w)
            with torch.no_grad():
                leaf.sub_(0.1)
        else:
            h = leaf * 1
            out = layer(h, w)
            h = h.add_(out) if change == "residual" else torch.relu_(h)
            out = h if change == "residual" else out + h
        grads = torch.autograd.grad(out.square().sum(), [leaf, w], allow_unused=True, create_graph=True)
        return [out, *(torch.zeros(()) if g is None else g for g in grads)]

    same_with_the_plug_in(run)


class Scores(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_i, x_j):
        return (x_i * x_j).sum(-1).view(-1, 1) * x_j


def test_kept_messages_survive_a_write_to_the_features():
    x, edge_index, edge = layers.graph()
    kept = []

    def run():
        features = x.clone()
        kept.clear()
        Kept(kept)(features, edge_index)
        features.zero_()
        return [t.clone() for t in kept]

    same_with_the_plug_in(run)


class Kept(MessagePassing):
    def __init__(self, kept, error=None):
        super().__init__(aggr="sum")
        self.kept, self.error = kept, error

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_j):
        self.kept.append(x_j)
        self.kept.append(x_j.unsqueeze(1))
        if self.error:
            raise self.error
        return x_j


def test_kept_messages_survive_an_exception():
    x, edge_index, _ = layers.graph()
    features, kept = x.clone(), []
    gnna_plugin.enable("pyg", min_work=0)
    with pytest.raises(KeyError):
        Kept(kept, KeyError("user"))(features, edge_index)
    features.zero_()
    assert torch.equal(kept[0], x[edge_index[0]]) and type(kept[1]) is torch.Tensor


def test_features_may_be_written_inside_message_in_inference_mode():
    x, edge_index, _ = layers.graph()

    class Writes(MessagePassing):
        def forward(self, x, edge_index):
            self.x = x
            return self.propagate(edge_index, x=x)

        def message(self, x_j):
            self.x.zero_()
            return x_j

    def run():
        with torch.inference_mode():
            return Writes()(x.clone(), edge_index).clone()

    same_with_the_plug_in(lambda: run().numpy().copy())


STORAGE = Path(torch.__file__).parent / "include/c10/core/StorageImpl.h"


@pytest.mark.skipif(
    "clear_data_ptr_access_error_msg_" not in STORAGE.read_text(), reason="this torch's storages cannot refuse reads"
)
def test_reading_a_placeholder_raises():
    x, edge_index, _ = layers.graph()
    message = torch.ops.gnna.lift(x, None, edge_index[0])
    with pytest.raises(RuntimeError, match="not been gathered|not allocated"):
        message.sum()
