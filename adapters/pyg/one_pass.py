"""gcn_norm and the self-loop functions on the CPU, each in one pass over the edges, bitwise equal to PyG's.

A graph that is used once pays for them in every layer. The arguments are PyG's. A function returns None for arguments
that are not the usual case or that PyG rejects.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ops = torch.ops.gnna
_WEIGHTS = (torch.float32, torch.float64)


def _fits(edge_index: Tensor, edge_weight: Tensor | None, num_nodes: Any) -> bool:
    if not edge_index.is_cpu or edge_index.dtype != torch.int64 or edge_index.dim() != 2 or edge_index.size(0) != 2:
        return False
    if type(num_nodes) is not int or num_nodes < 0 or edge_index.is_neg():
        return False
    if edge_weight is None:
        return True
    if not edge_weight.is_cpu or edge_weight.dtype not in _WEIGHTS or edge_weight.is_neg():
        return False
    return edge_weight.shape == edge_index.shape[1:]


def gcn_norm(
    edge_index: Tensor, edge_weight: Tensor | None, num_nodes: Any, improved: Any, add_self_loops: Any, flow: Any,
    dtype: Any,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """Return the edges and their weights D^-1/2 A D^-1/2.

    With add_self_loops, nodes without a self-loop get one, as in PyG's add_remaining_self_loops.
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not _fits(edge_index, edge_weight, num_nodes) or dtype not in _WEIGHTS:
        return None
    if flow not in ("source_to_target", "target_to_source"):
        return None
    try:
        if add_self_loops:
            edge_index, looped = _ops.with_remaining_self_loops(
                edge_index, edge_weight, num_nodes, 2.0 if improved else 1.0
            )
            edge_weight = None if edge_weight is None else looped
        by_source = flow == "target_to_source"
        return edge_index, _ops.gcn_weights(edge_index, edge_weight, num_nodes, by_source, dtype)
    except IndexError:
        return None


def remove_self_loops(edge_index: Tensor, edge_attr: Tensor | None) -> tuple[Tensor, None] | None:
    if edge_attr is not None or not _fits(edge_index, None, 0):
        return None
    return _ops.without_self_loops(edge_index), None


def add_self_loops(
    edge_index: Tensor, edge_attr: Tensor | None, fill_value: Any, num_nodes: Any
) -> tuple[Tensor, None] | None:
    if edge_attr is not None or not _fits(edge_index, None, num_nodes):
        return None
    return _ops.with_self_loops(edge_index, num_nodes), None
