"""Folds GINConv's (1 + eps) * x into the aggregation as a self-loop.

If eps is 0, (1 + eps) * x + A x is the sum over A + I. The self-loops are cached with the graph. This saves two passes
over the features in the forward pass and two in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import GINConv, SumAggregation

from gnna_plugin import settings, surroundings
from gnna_plugin.patching import stand_in

from . import direct, graph_memo, layer_call, own_code, small_graphs


def _has_constant_zero(conv: GINConv) -> bool:
    """Return whether eps is a constant 0.

    On a GPU the value is read once. The answer is cached by the identity of eps, with a checksum of its value.
    """
    eps = conv.eps
    if not isinstance(eps, Tensor) or eps.requires_grad or eps.numel() != 1 or eps.is_inference():
        return False
    if not eps.is_cuda:
        return eps.item() == 0
    known, form = torch.ops.gnna.recall("eps", [eps])
    if not known:
        if surroundings.capturing(eps):
            return False
        form = "zero" if eps.item() == 0 else "another number"
        torch.ops.gnna.remember("eps", [eps], [torch.zeros(0)], form)
    return form == "zero"


def _is_plain(conv: Any, x: Any, edge_index: Any, size: Any) -> bool:
    """Return whether this is the usual call of a GINConv, on one set of nodes."""
    if type(conv) is not GINConv or not settings.active() or size is not None:
        return False
    if type(x) is not Tensor or x.dim() != 2 or conv.node_dim not in (-2, 0):
        return False
    if surroundings.transforming() or not (x.is_cpu or x.is_cuda):
        return False
    return type(edge_index) is Tensor and edge_index.dim() == 2 and edge_index.size(0) == 2


def _sums_as_pyg_does(conv: GINConv) -> bool:
    """Return whether only PyG's own sum runs between the layer's gather and its nn."""
    return not (conv.decomposed_layers > 1 or conv.explain) and own_code.aggregates_with(conv, SumAggregation)


def forward_hook(original: Callable) -> Callable:
    """Replace GINConv.forward: add (1 + eps) * x as a self-loop where that is exact."""
    compiling, thread = torch.compiler.is_compiling, layer_call.thread

    def looped_sum(conv: Any, x: Tensor, edge_index: Tensor) -> Tensor | None:
        if not _sums_as_pyg_does(conv) or not _has_constant_zero(conv):
            return None
        ends = graph_memo.with_self_loops(edge_index, x.size(0))
        return None if ends is None else direct.propagate(conv, ends, {"x": x})

    def folded(conv: Any, x: Any, edge_index: Any, size: Any) -> Tensor | None:
        if thread.left_to_framework or not _is_plain(conv, x, edge_index, size):
            return None
        reason, _ = small_graphs.of_call(conv, edge_index, {"x": x})
        if reason is not None:
            out = direct.propagate_small(conv, edge_index, {"x": x}) if _sums_as_pyg_does(conv) else None
            layer_call.count_left(conv, reason, edge_index, {"x": x})
            if out is None:
                return layer_call.run_plainly(original, conv, (x, edge_index, size), {})
            return conv.nn(out + (1 + conv.eps) * x)
        out = looped_sum(conv, x, edge_index)
        return None if out is None else conv.nn(out)

    def forward(self, x, edge_index, size=None):
        if not compiling():
            out = folded(self, x, edge_index, size)
            if out is not None:
                return out
        return original(self, x, edge_index, size)

    return stand_in(forward, original)
