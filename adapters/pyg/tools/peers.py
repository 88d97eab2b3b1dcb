"""The ways in which a PyG user can aggregate, for comparison with the plug-in: message passing, EdgeIndex,
SparseTensor, torch.compile.

Nothing here uses the plug-in's hooks. PEERS run single aggregations (gnna_plugin.tools.bench.kernels). STRUCTURES are
graph structures for whole models (gnna_plugin.tools.bench.epoch); the models are in models.py.
"""

from __future__ import annotations

import warnings

import torch
from torch_geometric import EdgeIndex
from torch_geometric.nn import GATConv, GCNConv, MessagePassing, SAGEConv, models
from torch_geometric.utils import to_torch_csr_tensor

from gnna_plugin.data.problem import Problem, Unsupported

try:
    from torch_sparse import SparseTensor
except ImportError:
    SparseTensor = None


class Aggregate(MessagePassing):
    """A user-written layer.

    x [N, *S] float, edge_index int64 [2, E], weight [E, *W] or None -> [N, *S].
    """

    def __init__(self, reduce):
        super().__init__(aggr=reduce, node_dim=0)

    def forward(self, x, edge_index, weight=None):
        return self.propagate(edge_index, x=x, weight=weight)

    def message(self, x_j, weight):
        return x_j if weight is None else weight.unsqueeze(-1) * x_j


def _edge_index(problem: Problem):
    return torch.stack([problem.src, problem.dst])


def _message_passing(problem: Problem):
    if problem.kind != "spmm":
        raise Unsupported("aggregations of a layer (spmm) only")
    layer, ends = Aggregate(problem.reduce), _edge_index(problem)
    return lambda x, weight=None: layer(x, ends, weight)


def _compiled(problem: Problem):
    if problem.kind != "spmm":
        raise Unsupported("aggregations of a layer (spmm) only")
    layer, ends = torch.compile(Aggregate(problem.reduce), dynamic=False), _edge_index(problem)
    return lambda x, weight=None: layer(x, ends, weight)


def _matmul(problem: Problem):
    if problem.kind != "spmm" or problem.heads > 1:
        raise Unsupported("products with one weight per edge only")
    ends = EdgeIndex(_edge_index(problem).flip(0), sparse_size=(problem.num_nodes, problem.num_nodes))
    ends, order = ends.sort_by("row", stable=True)
    ends.validate().fill_cache_()
    if problem.weight == "none":
        return lambda x: ends.matmul(x, reduce=problem.reduce)
    if problem.weight == "static":
        fixed = problem.operands()[1].index_select(0, order)
        return lambda x, weight: ends.matmul(x, fixed, reduce=problem.reduce)
    return lambda x, weight: ends.matmul(x, weight.index_select(0, order), reduce=problem.reduce)


def _sparse_tensor(problem: Problem):
    if problem.kind != "spmm" or problem.heads > 1 or problem.weight == "learned":
        raise Unsupported("products with a fixed matrix only")
    value = problem.operands()[1] if problem.weight == "static" else None
    size = (problem.num_nodes, problem.num_nodes)
    matrix = SparseTensor(row=problem.dst, col=problem.src, value=value, sparse_sizes=size)
    matrix.fill_cache_()
    return lambda x, weight=None: matrix.matmul(x, reduce=problem.reduce)


PEERS = {"PyG": _message_passing, "PyG EdgeIndex": _matmul, "PyG compiled": _compiled}
if SparseTensor is not None:
    PEERS["PyG SparseTensor"] = _sparse_tensor


# ---- whole models (gnna_plugin.tools.bench.epoch) --------------------------------------------------------------------


def _ends(src, dst, num_nodes, device, model):
    return torch.stack([torch.from_numpy(src), torch.from_numpy(dst)]).to(device)


def _torch_csr(src, dst, num_nodes, device, model):
    if model == "gat":
        raise Unsupported("GATConv does not accept a torch.sparse matrix with weights")
    ends = _ends(src, dst, num_nodes, device, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns every time that its sparse tensors are in beta
        return to_torch_csr_tensor(ends.flip(0), size=(num_nodes, num_nodes))


def _sorted_ends(src, dst, num_nodes, device, model):
    ends = EdgeIndex(_ends(src, dst, num_nodes, device, model), sparse_size=(num_nodes, num_nodes))
    return ends.sort_by("col", stable=True).values.validate().fill_cache_()


def _sparse_adjacency(src, dst, num_nodes, device, model):
    source, destination = _ends(src, dst, num_nodes, device, model)
    return SparseTensor(row=destination, col=source, sparse_sizes=(num_nodes, num_nodes)).fill_cache_()


STRUCTURES = {"edge_index": _ends, "torch.sparse": _torch_csr, "EdgeIndex": _sorted_ends}
if SparseTensor is not None:
    STRUCTURES["SparseTensor"] = _sparse_adjacency


def _edge_index_cache(src, dst, num_nodes):
    ends = EdgeIndex(torch.stack([src, dst]), sparse_size=(num_nodes, num_nodes))
    return ends.sort_by("col").values.fill_cache_()


PLANS = {"PyG EdgeIndex, sort and caches of both directions": _edge_index_cache}  # gnna_plugin.tools.bench.plan


class _NoWork(Aggregate):
    """Message passing that neither gathers nor reduces.

    What remains is PyG's own overhead.
    """

    def _index_select(self, src, index):
        return src

    def aggregate(self, inputs, index):
        return inputs

    def message(self, x_j):
        return x_j


def host_calls(src, dst, num_nodes, width):
    """Return {name: call} of message passing as layers run it, on a tiny graph.

    gnna_plugin.tools.bench.host times them.
    """
    ends, x = torch.stack([src, dst]), torch.randn(num_nodes, width, device=src.device)
    weight, leaf = torch.rand(src.numel(), device=src.device), x.clone().requires_grad_()
    nothing = _NoWork("sum")
    layer, conv = Aggregate("sum"), models.GCN(width, width, 1).to(src.device).convs[0]
    sage = models.GraphSAGE(width, width, 1).to(src.device).convs[0]
    return {
        "propagate, framework's own part": lambda: nothing(x, ends),
        "propagate": lambda: layer(x, ends),
        "propagate, weighted": lambda: layer(x, ends, weight),
        "propagate and its gradient": lambda: layer(leaf, ends).sum().backward(),
        "GCNConv": lambda: conv(x, ends),
        "GCNConv and its gradient": lambda: conv(leaf, ends).sum().backward(),
        "SAGEConv": lambda: sage(x, ends),
    }


def training_steps(edges, width, device):
    """Return {layer: forward and backward pass} for gnna_plugin.tools.tune.

    The graph is random, with 5 edges per node.
    """
    nodes = max(edges // 5, 2)
    ends = torch.randint(0, nodes, (2, edges), device=device)
    x = torch.randn(nodes, width, device=device, requires_grad=True)
    layers = {"GCNConv": GCNConv(width, width), "SAGEConv": SAGEConv(width, width)}
    layers["GATConv"] = GATConv(width, width // 4, heads=4)
    for layer in layers.values():
        layer.to(device)

    def step(layer):
        layer.zero_grad()
        layer(x, ends).sum().backward()

    return {name: lambda layer=layer: step(layer) for name, layer in layers.items()}
