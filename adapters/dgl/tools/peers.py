"""The way in which a DGL user aggregates, for comparison with the plug-in: dgl.ops on a graph with existing formats.

Nothing here uses the plug-in's hooks. PEERS run single aggregations (gnna_plugin.tools.bench.kernels). STRUCTURES are
graph structures for whole models (gnna_plugin.tools.bench.epoch); the models are in models.py.
"""

from __future__ import annotations

import os

os.environ.setdefault("DGLBACKEND", "pytorch")

import dgl
import dgl.backend.pytorch.sparse
import dgl.function as fn
import torch

from gnna_plugin.data.problem import Problem, Unsupported


def graph_of(problem: Problem) -> dgl.DGLGraph:
    """Return the problem's edges as a DGLGraph.

    It has int64 ids, and all its sparse formats are created.
    """
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


_ops.empty_rows_are_infinite = True  # for max and min, by DGL's rules for dgl.ops
PEERS = {"DGL": _ops}


# ---- whole models (gnna_plugin.tools.bench.epoch) --------------------------------------------------------------------


def _graph(src, dst, num_nodes, device, model):
    graph = dgl.graph((torch.from_numpy(src), torch.from_numpy(dst)), num_nodes=num_nodes)
    if model in ("gcn", "gat"):  # because PyG's layers add self-loops for these
        graph = dgl.add_self_loop(dgl.remove_self_loop(graph))
    return graph.to(device)


STRUCTURES = {"DGLGraph": _graph}


def _formats(src, dst, num_nodes):
    return dgl.graph((src, dst), num_nodes=num_nodes).create_formats_()


PLANS = {"DGL, graph and both formats": _formats}  # gnna_plugin.tools.bench.plan


def host_calls(src, dst, num_nodes, width):
    """Return {name: call} of g-SpMM through DGL's interfaces, on a tiny graph.

    gnna_plugin.tools.bench.host times them.
    """
    graph = dgl.graph((src, dst), num_nodes=num_nodes)
    x, weight = torch.randn(num_nodes, width, device=src.device), torch.rand(src.numel(), 1, device=src.device)
    leaf = x.clone().requires_grad_()

    def update_all():
        with graph.local_scope():
            graph.srcdata["x"] = x
            graph.update_all(fn.copy_u("x", "m"), fn.sum("m", "y"))

    return {
        "_gspmm copy_lhs sum": lambda: dgl.backend.pytorch.sparse._gspmm(graph._graph, "copy_lhs", "sum", x, None),
        "copy_u_sum": lambda: dgl.ops.copy_u_sum(graph, x),
        "copy_u_max": lambda: dgl.ops.copy_u_max(graph, x),
        "u_mul_e_sum": lambda: dgl.ops.u_mul_e_sum(graph, x, weight),
        "copy_u_sum and its gradient": lambda: dgl.ops.copy_u_sum(graph, leaf).sum().backward(),
        "update_all": update_all,
    }
