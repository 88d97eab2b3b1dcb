"""Replaces torch_geometric.utils.softmax, the normalisation of attention over the edges of a node, by one kernel.

PyG's own function runs two scatters, two gathers, an exponential and a division, each over all edges, and as many
operations again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import report, settings
from gnna_plugin.patching import Patches, stand_in

from . import consume, hooks, small_graphs
from .compiled import trace
from .lazy import LazyMessage

_patches = Patches()


def _softmax_hook(original: Callable) -> Callable:
    compiling, traced = torch.compiler.is_compiling, trace.softmax

    def fused(src: Any, index: Any, ptr: Any, num_nodes: int | None, dim: int) -> Tensor | None:
        if type(src) is LazyMessage:
            src._value.settle("softmax")
        if ptr is not None or not settings.active() or type(src) is not Tensor:
            return None
        if small_graphs.is_small_softmax(src):
            return None
        rows = consume.plain_index(index)
        if rows is None or not hooks.takes(src, index, num_nodes):
            return None
        if dim not in (0, -src.dim()) or rows.numel() != src.size(0) or rows.device != src.device:
            return None
        if not hooks.current_layer_is_chosen():
            return None
        try:
            out = torch.ops.gnna.segment_softmax(src, rows, hooks.num_rows(rows, num_nodes), True)
        except ValueError as error:
            if not src.is_cuda:
                return None  # PyG's own function raises its error
            raise IndexError(str(error)) from None
        report.reduced("softmax")
        return out

    def softmax(src, index=None, ptr=None, num_nodes=None, dim=0):
        if not compiling():
            out = fused(src, index, ptr, num_nodes, dim)
        else:
            out = traced(src, index, num_nodes, dim) if ptr is None else None
        return out if out is not None else original(src, index, ptr, num_nodes, dim)

    return stand_in(softmax, original)


def install() -> None:
    """Replace PyG's softmax in every module of PyG that imported it by name."""
    from torch_geometric.utils import softmax

    _patches.replace_everywhere("torch_geometric", softmax, _softmax_hook(softmax))


def uninstall() -> None:
    """Restore PyG's own function in every module that holds ours."""
    _patches.undo()
