"""What the hooks record while dynamo traces a layer. A function returns None for a call that is left to PyG.

Dynamo runs these functions symbolically, so they use simple Python only. What they read of the settings and of the
layer becomes a guard of the compiled code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental import symbolic_shapes

from gnna_plugin import report, settings, surroundings

from . import (
    edge_ops,  # noqa: F401  registers the ops
    graph,
)

# Absent from old releases, for which graph.ensure() refuses.
guard_or_false = getattr(symbolic_shapes, "guard_or_false", bool)
_PLAIN = (Tensor, torch.nn.Parameter)
_REDUCES = {"sum": "sum", "add": "sum", "mean": "mean", "max": "max", "min": "min"}


@torch.compiler.assume_constant_result
def _supported() -> bool:
    return not surroundings.transforming() and torch.autograd.forward_ad._current_level < 0 and graph.ensure()


@torch.compiler.assume_constant_result
def _exporting() -> bool:
    # Evaluated here: until torch 2.12, dynamo takes is_exporting() for true wherever it meets the call.
    return hasattr(torch.compiler, "is_exporting") and torch.compiler.is_exporting()


@torch.compiler.assume_constant_result
def _announce(layer: str) -> bool:
    graph.layers.append(layer)
    return True


@torch.compiler.assume_constant_result
def _note(layer: str, reason: str) -> bool:
    report.left_to_framework(layer, reason)
    return True


@torch.compiler.assume_constant_result
def _note_below(layer: str) -> bool:
    return _note(layer, report.below(settings.current.min_work or 0))


class _State:
    excluded = False  # whether the innermost layer is excluded by the user; changes during a trace only


_state = _State()


def _on() -> bool:
    return settings.active() and not _state.excluded and not _exporting() and _supported()


def _takes(values: Any, index: Any, dim: int) -> bool:
    """Return whether the ops take these values here, with the index along their dimension `dim`."""
    if not _on() or type(values) not in _PLAIN or type(index) is not Tensor or values.device != index.device:
        return False
    if values.dtype not in settings.DTYPES.get(values.device.type, ()):
        return False
    if values.dim() == 0 or dim not in (0, -values.dim()):
        return False
    return index.dim() == 1 and index.dtype in (torch.int64, torch.int32)


def _below_min_work(values: Tensor, index: Tensor) -> bool:
    """Return whether the user set a min_work that this call does not reach.

    Without one all calls are recorded: compiled code has little work on the host that a small graph could not repay.
    """
    least = settings.current.min_work
    if not least:
        return False
    work = index.numel()
    for size in values.shape[1:]:
        work = work * size
    return guard_or_false(work < least)  # the size of edges that are computed is unknown


def call(original: Callable, conv: Any, args: tuple, kwargs: dict) -> Any:
    """Run propagate or edge_updater of a layer, and leave all its steps to PyG if the user excluded the layer."""
    if not settings.active() or (getattr(conv, "gnna", True) and settings.current.chooses(type(conv).__name__)):
        return original(conv, *args, **kwargs)
    _note(type(conv).__name__, report.EXCLUDED)
    outer, _state.excluded = _state.excluded, True
    try:
        return original(conv, *args, **kwargs)
    finally:
        _state.excluded = outer


def gather(conv: Any, src: Any, index: Any) -> Tensor | None:
    """Record the gather of a layer."""
    if not settings.active() or _state.excluded:
        return None
    if not _takes(src, index, conv.node_dim):
        _note(type(conv).__name__, "torch.export" if _exporting() else "torch.compile")
        return None
    if _below_min_work(src, index):
        _note_below(type(conv).__name__)
        return None
    _announce(type(conv).__name__)
    return torch.ops.gnna.gather_rows(src, index, False)


def reduce(x: Any, index: Any, dim_size: Any, dim: int, how: str) -> Tensor | None:
    """Record the reduction of messages."""
    if dim_size is None or how not in _REDUCES or not _takes(x, index, dim) or _below_min_work(x, index):
        return None
    return torch.ops.gnna.segment_reduce(x, index, dim_size, _REDUCES[how], False)


def softmax(src: Any, index: Any, num_nodes: Any, dim: int) -> Tensor | None:
    """Record a softmax over the edges of a node."""
    if num_nodes is None or not _takes(src, index, dim) or _below_min_work(src, index):
        return None
    return torch.ops.gnna.segment_softmax(src, index, num_nodes, False)


def _plain_edges(edge_index: Any, num_nodes: Any) -> bool:
    if type(edge_index) is not Tensor or edge_index.dim() != 2 or edge_index.dtype != torch.int64:
        return False
    return num_nodes is not None and not isinstance(num_nodes, tuple) and _on()


def gcn_norm(
    edge_index: Any, edge_weight: Any, num_nodes: Any, improved: bool, add_self_loops: bool, flow: str, dtype: Any
) -> tuple[Tensor, Tensor] | None:
    """Record gcn_norm, unless its weights need a gradient."""
    if not _plain_edges(edge_index, num_nodes):
        return None
    if edge_weight is not None and (type(edge_weight) is not Tensor or edge_weight.requires_grad):
        return None
    if edge_weight is not None and edge_weight.dim() != 1:
        return None
    dtype = torch.get_default_dtype() if dtype is None else dtype
    edges, weight = torch.ops.gnna_pyg.gcn_norm(
        edge_index, edge_weight, num_nodes, improved, add_self_loops, flow, dtype
    )
    return edges, weight


def remove_self_loops(edge_index: Any, edge_attr: Any) -> tuple[Tensor, None] | None:
    """Record remove_self_loops of edges without attributes."""
    if edge_attr is not None or not _plain_edges(edge_index, 0):
        return None
    return torch.ops.gnna_pyg.remove_self_loops(edge_index), None


def add_self_loops(edge_index: Any, edge_attr: Any, fill_value: Any, num_nodes: Any) -> tuple[Tensor, None] | None:
    """Record add_self_loops for edges without attributes."""
    if edge_attr is not None or not _plain_edges(edge_index, num_nodes):
        return None
    return torch.ops.gnna_pyg.add_self_loops(edge_index, num_nodes), None
