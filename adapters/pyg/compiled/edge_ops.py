"""What layers compute from the edges alone, as ops: each is one node of the graph that dynamo traces.

early.py moves these nodes in front of the graph, where EARLY computes them with their results cached. An op that stays
in the graph computes its result afresh.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.conv import gcn_conv
from torch_geometric.utils import loop

from .. import graph_memo, one_pass

_gcn_norm, _remove_self_loops, _add_self_loops = gcn_conv.gcn_norm, loop.remove_self_loops, loop.add_self_loops
_library = torch.library.Library("gnna_pyg", "DEF")
_library.define(
    "gcn_norm(Tensor edge_index, Tensor? edge_weight, SymInt num_nodes, bool improved, bool add_self_loops, str flow, "
    "ScalarType dtype) -> (Tensor, Tensor)"
)
_library.define("remove_self_loops(Tensor edge_index) -> Tensor")
_library.define("add_self_loops(Tensor edge_index, SymInt num_nodes) -> Tensor")


def _own(result: Tensor, given: Tensor | None) -> Tensor:
    return result.clone() if result is given else result


def _gcn_norm_afresh(
    edge_index: Tensor, edge_weight: Tensor | None, num_nodes: int, improved: bool, add_self_loops: bool, flow: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    arguments = (edge_index, edge_weight, num_nodes, improved, add_self_loops, flow, dtype)
    edges, weight = one_pass.gcn_norm(*arguments) or _gcn_norm(*arguments)
    return _own(edges, edge_index), _own(weight, edge_weight)


def _remove_self_loops_afresh(edge_index: Tensor) -> Tensor:
    return (one_pass.remove_self_loops(edge_index, None) or _remove_self_loops(edge_index))[0]


def _add_self_loops_afresh(edge_index: Tensor, num_nodes: int) -> Tensor:
    results = one_pass.add_self_loops(edge_index, None, None, num_nodes)
    return (results or _add_self_loops(edge_index, num_nodes=num_nodes))[0]


for _name, _function in (
    ("gcn_norm", _gcn_norm_afresh),
    ("remove_self_loops", _remove_self_loops_afresh),
    ("add_self_loops", _add_self_loops_afresh),
):
    _library.impl(_name, _function, "CompositeExplicitAutograd")


def _early_remove_self_loops(edge_index: Tensor) -> Tensor:
    return graph_memo.shared_remove_self_loops(edge_index, None)[0]


def _early_add_self_loops(edge_index: Tensor, num_nodes: int) -> Tensor:
    return graph_memo.shared_add_self_loops(edge_index, None, None, num_nodes)[0]


# Op -> the function that computes it before the graph runs.
EARLY: dict[Any, Callable] = {
    torch.ops.gnna_pyg.gcn_norm: graph_memo.shared_gcn_norm,
    torch.ops.gnna_pyg.remove_self_loops: _early_remove_self_loops,
    torch.ops.gnna_pyg.add_self_loops: _early_add_self_loops,
}


# Fake kernels, which compute shapes only. The number of edges in a result is known only when the op runs.


def _new_size(least: int = 0) -> torch.SymInt:
    """Return a new symbol for a size.

    Unlike the context's new_dynamic_size(), it does not end a graph that is traced without fullgraph=True.
    """
    from torch._library.fake_impl import allocate_size  # absent from torch 2.4, where nothing is traced

    return allocate_size(torch.library.get_ctx()._shape_env, least)


def _with_loops(num_nodes: int) -> torch.SymInt:
    return _new_size(num_nodes if type(num_nodes) is int else 1)  # a symbolic number of nodes is at least 1


@torch.library.register_fake("gnna_pyg::gcn_norm")
def _(
    edge_index: Tensor, edge_weight: Tensor | None, num_nodes: int, improved: bool, add_self_loops: bool, flow: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    edges = _with_loops(num_nodes) if add_self_loops else edge_index.size(1)
    return edge_index.new_empty((2, edges)), edge_index.new_empty((edges,), dtype=dtype)


@torch.library.register_fake("gnna_pyg::remove_self_loops")
def _(edge_index: Tensor) -> Tensor:
    return edge_index.new_empty((2, _new_size()))


@torch.library.register_fake("gnna_pyg::add_self_loops")
def _(edge_index: Tensor, num_nodes: int) -> Tensor:
    return edge_index.new_empty((2, _with_loops(num_nodes)))
