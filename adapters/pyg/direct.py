"""Runs the propagate of PyG's simplest layers as one op, without the Python steps between gather and reduction.

These layers sum, average or take the maximum of x_j, or of x_j times a weight per edge or per edge and head, and
nothing else happens on the way. On small graphs PyG's steps take longer than the op. Calls in any other form run all
steps, see hooks.py.
"""

from __future__ import annotations

import types
import weakref
from typing import Any

import torch
from torch import Tensor
from torch_geometric import nn
from torch_geometric.nn import MessagePassing

from gnna_plugin import report

from . import consume, hooks, own_code

_REDUCES = {
    nn.SumAggregation: "sum",
    nn.MeanAggregation: "mean",
    nn.MaxAggregation: "max",
    nn.MinAggregation: "min",
}
_spmm = torch.ops.gnna.spmm.default
# message() of a layer class -> its weight argument ("" if it has none), or None if it has none of the forms below.
_weights: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()


# ruff: noqa: ANN001, ANN202
def _unweighted(self, x_j):  # type: ignore[no-untyped-def]
    return x_j


def _per_edge(self, x_j, edge_weight):  # type: ignore[no-untyped-def]
    return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j


def _per_head(self, x_j, alpha):  # type: ignore[no-untyped-def]
    return alpha.unsqueeze(-1) * x_j


def _per_head_turned(self, x_j, alpha):  # type: ignore[no-untyped-def]
    return x_j * alpha.unsqueeze(-1)


def _instructions(function: Any) -> tuple:
    code = function.__code__
    return code.co_code, code.co_names, code.co_varnames, code.co_consts


_FORMS = {
    _instructions(_unweighted): "",
    _instructions(_per_edge): "edge_weight",
    _instructions(_per_head): "alpha",
    _instructions(_per_head_turned): "alpha",
}


def _weight_of(message: Any) -> str | None:
    if message not in _weights:
        plain = isinstance(message, types.FunctionType) and message.__closure__ is None
        _weights[message] = _FORMS.get(_instructions(message)) if plain else None
    return _weights[message]


def propagate(conv: MessagePassing, edge_index: Tensor, given: dict) -> Tensor | None:
    """Run conv.propagate(edge_index, **given).

    Returns:
        [M, *S], or None if the layer or its input has another form. Nothing has happened then.
    """
    weight_name, reduce = _weight_of(type(conv).message), _REDUCES.get(type(conv.aggr_module))
    if weight_name is None or reduce is None or not own_code.steps_are_own(conv):
        return None
    size, weight, x = given.get("size"), given.get(weight_name), given.get("x")
    if not given.keys() <= {"size", "x", weight_name} or edge_index.dim() != 2 or edge_index.size(0) != 2:
        return None
    pair = x if type(x) is tuple and len(x) == 2 else (x, x)
    if any(type(side) is not Tensor for side in pair) or pair[0].shape[1:] != pair[1].shape[1:]:
        return None
    dims = 3 if weight_name == "alpha" else 2
    if pair[0].dim() != dims or conv.node_dim not in (-dims, 0):
        return None
    if size is not None and tuple(size) != (pair[0].size(0), pair[1].size(0)):
        return None
    first, second = edge_index.unbind()
    if conv.flow == "source_to_target":
        features, src, dst, rows = pair[0], first, second, pair[1].size(0)
    else:
        features, src, dst, rows = pair[1], second, first, pair[0].size(0)
    if not _fits(weight, weight_name, features, src):
        return None
    if conv.decomposed_layers > 1 or hooks.why_not(conv, features, src) is not None:
        return None
    if reduce in ("max", "min"):
        saved = features.requires_grad
    else:
        saved = weight is not None and weight.requires_grad
    kept = consume.kept_features(features) if saved and torch.is_grad_enabled() else features
    try:
        out = _spmm(kept, weight, src, dst, rows, reduce, True)
    except ValueError:
        return None  # PyG's steps raise its error
    report.aggregated(type(conv).__name__, features, weight, src, dst, out, reduce)
    return out


def _fits(weight: Any, name: str, features: Tensor, src: Tensor) -> bool:
    """Return whether the op multiplies with this weight as the message does."""
    if weight is None:
        return name != "alpha"
    if type(weight) not in (Tensor, torch.nn.Parameter) or weight.layout is not torch.strided:
        return False
    if weight.dtype != features.dtype or weight.device != features.device:
        return False
    return weight.shape == (src.numel(), *features.shape[1:-1])
