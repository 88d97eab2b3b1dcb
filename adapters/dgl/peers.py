"""How a DGL user aggregates, to be timed beside the plug-in: dgl.ops on a graph whose formats exist already.

Nothing here uses the plug-in's hooks. PEERS are for single aggregations (gnna_plugin.bench.kernels).
"""

from __future__ import annotations

import os

os.environ.setdefault("DGLBACKEND", "pytorch")

import dgl

from gnna_plugin.bench.problem import Problem, Unsupported


def graph_of(problem: Problem) -> dgl.DGLGraph:
    """The problem's edges as a DGLGraph with every sparse format made, int64 ids."""
    graph = dgl.graph((problem.src, problem.dst), num_nodes=problem.num_nodes)
    graph.create_formats_()
    return graph


def _ops(problem: Problem):
    if problem.src.is_cuda and not dgl.backend.is_cuda_available():
        raise Unsupported("this DGL has no CUDA kernels")
    graph, reduce = graph_of(problem), problem.reduce
    if problem.kind == "segment":
        op = getattr(dgl.ops, f"copy_e_{reduce}")
        return lambda messages: op(graph, messages)
    if problem.kind == "sddmm":
        return lambda a, b: dgl.ops.u_dot_v(graph, a, b).squeeze(-1)
    if problem.weight == "none":
        op = getattr(dgl.ops, f"copy_u_{reduce}")
        return lambda x: op(graph, x)
    op = getattr(dgl.ops, f"u_mul_e_{reduce}")
    return lambda x, weight: op(graph, x, weight.unsqueeze(-1))


PEERS = {"DGL": _ops}
