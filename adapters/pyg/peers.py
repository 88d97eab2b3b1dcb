"""How a PyG user aggregates, to be timed beside the plug-in: message passing, EdgeIndex, SparseTensor, compiled.

Nothing here uses the plug-in's hooks. PEERS are for single aggregations (gnna_plugin.bench.kernels).
"""

from __future__ import annotations

import torch
from torch_geometric import EdgeIndex
from torch_geometric.nn import MessagePassing

from gnna_plugin.bench.problem import Problem, Unsupported

try:
    from torch_sparse import SparseTensor
except ImportError:
    SparseTensor = None


class Aggregate(MessagePassing):
    """x [N, *S] float, edge_index int64 [2, E], weight [E, *W] or None -> [N, *S], as a user's own layer would."""

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
        raise Unsupported("layers only")
    layer, ends = Aggregate(problem.reduce), _edge_index(problem)
    return lambda x, weight=None: layer(x, ends, weight)


def _compiled(problem: Problem):
    if problem.kind != "spmm":
        raise Unsupported("layers only")
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
