"""Sparse matrices as the edges of layers, and as operands of PyG's products, give PyG's results."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
import torch_geometric.typing
from torch.utils.checkpoint import checkpoint
from torch_geometric import EdgeIndex, utils
from torch_geometric.nn import GCNConv, GINConv, GraphConv, SAGEConv, SimpleConv

import gnna_plugin

pytestmark = pytest.mark.filterwarnings("ignore")
W, N = layers.WIDTH, layers.NODES
needs_torch_sparse = pytest.mark.skipif(
    not torch_geometric.typing.WITH_TORCH_SPARSE, reason="torch-sparse is not installed"
)
TORCH = ("csr", "csc", "coo")
FORMS = [*TORCH, "EdgeIndex", pytest.param("SparseTensor", marks=needs_torch_sparse)]
LAYERS = {
    "SAGEConv": lambda: SAGEConv(W, 8),
    "GINConv": lambda: GINConv(layers.mlp(W)),
    "GraphConv-max": lambda: GraphConv(W, 8, aggr="max"),
    "GCNConv": lambda: GCNConv(W, 8, normalize=False),
}


def graph(device="cpu"):
    """Return (x, edge_index without repeated edges, value per edge) in float32, which EdgeIndex needs."""
    x, edge_index, _ = layers.graph(device, torch.float32)
    edge_index = torch.unique(edge_index, dim=1).contiguous()
    value = torch.rand(edge_index.size(1), generator=torch.Generator().manual_seed(4)).to(device)
    return x, edge_index, value


def adjacency(form, edge_index, value, nodes=N):
    """Return the transposed adjacency matrix, row: destination, in this form; EdgeIndex has no values."""
    if form == "EdgeIndex":
        return EdgeIndex(edge_index, sparse_size=(nodes, nodes)).sort_by("col").values
    if form == "SparseTensor":
        from torch_sparse import SparseTensor

        return SparseTensor(row=edge_index[1], col=edge_index[0], value=value, sparse_sizes=(nodes, nodes))
    matrix = torch.sparse_coo_tensor(edge_index.flip(0), value, (nodes, nodes)).coalesce()
    return {"csr": matrix.to_sparse_csr, "csc": matrix.to_sparse_csc, "coo": lambda: matrix}[form]()


def fused_calls():
    return gnna_plugin.status().fused_calls


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_give_pygs_outputs_and_gradients(device, name, form):
    if device.type == "cuda" and name.endswith("max") and form in TORCH:
        pytest.skip("PyG has no maximum of torch.sparse matrices on a GPU")
    x, edge_index, value = graph(device)
    layer = layers.build((LAYERS[name],), device, torch.float32)
    matrix = adjacency(form, edge_index, value)
    plain, ours = [], []
    for results in (plain, ours):
        if results is ours:
            gnna_plugin.enable(min_work=0)
            layer(x, matrix)  # the first use of a matrix that PyG converts is PyG's
            gnna_plugin.report.reset()
        results += layers.outputs_and_gradients(layer, x, matrix)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert fused_calls() == (0 if name.endswith("max") else 1)  # see the test of ties


@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("form", FORMS)
def test_ties_share_gradients_as_pyg_does(device, form, reduce):
    if device.type == "cuda" and form in TORCH:
        pytest.skip("PyG has no maximum of torch.sparse matrices on a GPU")
    _, edge_index, value = graph(device)

    def gradient():
        x = torch.zeros(N, 3, device=device, requires_grad=True)
        layer = SimpleConv(aggr=reduce)
        layer(x, adjacency(form, edge_index, value)).sum().backward()
        return x.grad

    expected = gradient()
    gnna_plugin.enable(min_work=0)
    torch.testing.assert_close(gradient(), expected)


@pytest.mark.parametrize("form", ["csc", "coo"])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_values_written_between_forward_and_backward(form, reduce):
    x, edge_index, value = graph()

    def gradient():
        features, matrix = x.clone().requires_grad_(), adjacency(form, edge_index, value)
        utils.spmm(matrix, x, reduce)  # the first use is PyG's
        out = utils.spmm(matrix, features, reduce)
        matrix.values().mul_(0)  # PyG has converted the matrix, so this is no error
        out.square().sum().backward()
        return features.grad

    gnna_plugin.enable(min_work=0)
    found = gradient()
    gnna_plugin.disable()
    features = x.clone().requires_grad_()
    utils.spmm(adjacency(form, edge_index, value), features, reduce).square().sum().backward()
    torch.testing.assert_close(found, features.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(torch_geometric.typing.WITH_TORCH_SPARSE, reason="torch-sparse's ops refuse them")
def test_values_of_another_dtype():
    x, edge_index, value = graph()
    edges = adjacency("EdgeIndex", edge_index, value)
    weight = value.double().requires_grad_()
    expected = edges.matmul(x, weight, transpose=True)
    gnna_plugin.enable(min_work=0)
    found = edges.matmul(x, weight, transpose=True)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected)


def test_a_checkpoint_may_run_while_a_matrix_becomes_a_repeated_one():
    x, edge_index, value = graph()
    matrix, wide = adjacency("csr", edge_index, value), torch.randn(N, 4096)
    gnna_plugin.enable()
    for _ in range(12):
        features = wide.clone().requires_grad_()
        utils.spmm(matrix, wide)
        checkpoint(lambda z: utils.spmm(matrix, z), features, use_reentrant=False).sum().backward()


@pytest.mark.parametrize("reduce", ["sum", "add", "mean", "max", "min"])
@pytest.mark.parametrize("form", FORMS)
def test_products(device, form, reduce):
    if device.type == "cuda" and reduce in ("max", "min") and form in TORCH:
        pytest.skip("PyG has no maximum of torch.sparse matrices on a GPU")
    x, edge_index, value = graph(device)
    if form == "EdgeIndex":
        matrix = EdgeIndex(edge_index, sparse_size=(N, N)).sort_by("row").values
    else:
        matrix = adjacency(form, edge_index, value)
    expected = utils.spmm(matrix, x, reduce)
    gnna_plugin.enable(min_work=0)
    for _ in range(2):
        torch.testing.assert_close(utils.spmm(matrix, x, reduce), expected)
    assert fused_calls() == (1 if form in ("csc", "coo") else 2)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("form", ["csc", "coo"])
def test_the_first_use_warns_as_pyg_does(form):
    x, edge_index, value = graph()
    gnna_plugin.enable(min_work=0)
    with pytest.warns(UserWarning, match="to CSR format"):
        utils.spmm(adjacency(form, edge_index, value), x)


def test_the_first_uses_of_a_matrix_are_left_to_pyg():
    x, edge_index, value = graph()
    matrix = adjacency("csr", edge_index.repeat(1, 1), value)
    wide = torch.randn(N, 4096)
    gnna_plugin.enable()
    for _ in range(8):
        utils.spmm(matrix, wide)
    assert fused_calls() == 0
    utils.spmm(matrix, wide)
    assert fused_calls() == 1
    for _ in range(20):
        utils.spmm(adjacency("csr", edge_index, value), wide)
    assert fused_calls() == 1


@pytest.mark.parametrize("form", [form for form in FORMS if form != "EdgeIndex"])
def test_new_values_are_seen(device, form):
    x, edge_index, value = graph(device)
    matrix = adjacency(form, edge_index, value)
    gnna_plugin.enable(min_work=0)
    for _ in range(3):
        before = utils.spmm(matrix, x)
    if form == "SparseTensor":
        matrix.storage.value().mul_(2)
    else:
        matrix.values().mul_(2)
    torch.testing.assert_close(utils.spmm(matrix, x), 2 * before)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_gradients_of_an_edge_index_and_its_values(device, reduce, transpose):
    x, edge_index, value = graph(device)
    edges = EdgeIndex(edge_index, sparse_size=(N, N)).sort_by("col" if transpose else "row").values

    def run():
        features, weight = x.clone().requires_grad_(), value.clone().requires_grad_()
        out = edges.matmul(features, weight, reduce=reduce, transpose=transpose)
        out.square().sum().backward()
        return out, features.grad, weight.grad

    expected = run()
    gnna_plugin.enable(min_work=0)
    for a, b in zip(run(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert fused_calls() == 1


def test_an_unsorted_edge_index_raises_pygs_error():
    x, edge_index, _ = graph()
    gnna_plugin.enable(min_work=0)
    with pytest.raises(ValueError, match="sorted by rows"):
        EdgeIndex(edge_index, sparse_size=(N, N)).matmul(x)


@needs_torch_sparse
@pytest.mark.parametrize("batch", [None, (3,), (2, 3)])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_torch_sparses_own_products(device, reduce, batch):
    import torch_sparse

    x, edge_index, value = graph(device)
    x = x if batch is None else torch.randn(*batch, *x.shape, generator=torch.Generator().manual_seed(0)).to(device)
    edge_index, value = edge_index.repeat(1, 2), torch.cat([value, value + 1])  # every edge twice

    def run():
        features, weight = x.clone().requires_grad_(), value.clone().requires_grad_()
        matrix = adjacency("SparseTensor", edge_index, weight)
        out = torch_sparse.matmul(matrix, features, reduce)
        again = matrix @ features if reduce == "sum" else matrix.matmul(features, reduce)
        (out + again).square().sum().backward()
        return out, again, features.grad, weight.grad

    expected = run()
    gnna_plugin.enable(min_work=0)
    for a, b in zip(run(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert fused_calls() == (2 if reduce in ("sum", "mean") else 0)


if torch_geometric.typing.WITH_TORCH_SPARSE:
    from torch_sparse import SparseTensor, matmul  # TorchScript resolves the names below in this module

    class ScriptedProduct(torch.nn.Module):
        def forward(self, matrix: SparseTensor, x: torch.Tensor) -> torch.Tensor:
            return matmul(matrix, x, "sum")

    def test_scripted_products_run_torch_sparses_operations():
        x, edge_index, value = graph()
        matrix = adjacency("SparseTensor", edge_index, value)
        gnna_plugin.enable(min_work=0)
        torch.testing.assert_close(torch.jit.script(ScriptedProduct())(matrix, x), matrix @ x)
