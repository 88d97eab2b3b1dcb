"""Runs the propagate of PyG's simplest layers as one op, without the Python steps between gather and reduction.

These layers sum, average or take the maximum of x_j, or of x_j times a weight per edge or per edge and head. Neither
the layer nor a hook does anything else on the way. On small graphs PyG's steps take longer than the op. Calls in any
other form run all steps, see hooks.py.
"""

from __future__ import annotations

import types
import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric import nn
from torch_geometric.nn import MessagePassing

from gnna_plugin import report, surroundings

from . import consume, hooks, own_code, small_graphs

_REDUCES = {
    nn.SumAggregation: "sum",
    nn.MeanAggregation: "mean",
    nn.MaxAggregation: "max",
    nn.MinAggregation: "min",
}
_spmm = torch.ops.gnna.spmm.default
# message() of a layer class -> its weight argument ("" if it has none), or None if it has none of the forms below.
_weights: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()


def _unweighted(self, x_j):
    return x_j


def _per_edge(self, x_j, edge_weight):
    return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j


def _per_head(self, x_j, alpha):
    return alpha.unsqueeze(-1) * x_j


def _per_head_turned(self, x_j, alpha):
    return x_j * alpha.unsqueeze(-1)


def _instructions(function: Any) -> tuple:
    code = function.__code__
    return code.co_code, code.co_names, code.co_varnames, code.co_consts


_weights[nn.RGCNConv.message] = ""
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


class _Form(NamedTuple):
    """A propagate that gathers, perhaps multiplies, and reduces.

    Attributes:
        features: [N, *S], of which rows are gathered.
        weight: [E] or, for features [N, H, F], [E, H]; None if the messages are not multiplied.
        src, dst: [E].
        rows: rows of the result.
        reduce: "sum", "mean", "max" or "min".
    """

    features: Tensor
    weight: Tensor | None
    src: Tensor
    dst: Tensor
    rows: int
    reduce: str


def _form_of(conv: MessagePassing, edge_index: Tensor, given: dict) -> _Form | None:
    cls = type(conv)
    weight_name, reduce = _weight_of(cls.message), _REDUCES.get(type(conv.aggr_module))
    if weight_name is None or reduce is None or surroundings.tracing() or not own_code.steps_are_own(conv):
        return None
    if cls.aggregate is not MessagePassing.aggregate or cls.update is not MessagePassing.update:
        return None
    arguments = {"x", weight_name} if weight_name else {"x"}
    if cls.message is nn.RGCNConv.message:  # x_j if it gets no edge_type_ptr
        arguments.add("edge_type_ptr")
    if given.keys() - {"size"} != arguments or given.get("edge_type_ptr") is not None:
        return None  # PyG raises its error, or the message uses more
    weight = given.get(weight_name)
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or conv.decomposed_layers > 1 or conv.explain:
        return None
    gathered, reduced = (0, 1) if conv.flow == "source_to_target" else (1, 0)
    features, rows = _features_and_rows(given.get("x"), given.get("size"), gathered, reduced)
    dims = 3 if weight_name == "alpha" else 2
    if features is None or features.dim() != dims or conv.node_dim not in (-dims, 0):
        return None
    ends = edge_index.unbind()
    src, dst = ends[gathered], ends[reduced]
    return _Form(features, weight, src, dst, rows, reduce) if _fits(weight, weight_name, features, src) else None


def propagate(conv: MessagePassing, edge_index: Tensor, given: dict) -> Tensor | None:
    """Run conv.propagate(edge_index, **given).

    Returns:
        [M, *S], or None if the layer or its input has another form. Nothing has happened then.
    """
    form = _form_of(conv, edge_index, given)
    if form is None or hooks.why_not(conv, form.features, form.src) is not None:
        return None
    features, weight = form.features, form.weight
    kept, kept_weight = consume.kept_operands(features, weight, form.reduce)
    try:
        out = _spmm(kept, kept_weight, form.src, form.dst, form.rows, form.reduce, True)
    except ValueError:
        return None  # PyG's steps raise its error
    report.aggregated(type(conv).__name__, features, weight, form.src, form.dst, out, form.reduce)
    return out


def propagate_small(conv: MessagePassing, edge_index: Tensor, given: dict) -> Tensor | None:
    """As propagate(), with PyG's operations, for graphs that are left to PyG."""
    form = _form_of(conv, edge_index, given)
    if form is None or form.features.dim() != 2:
        return None
    try:
        messages = form.features.index_select(0, form.src)
        if form.weight is not None:
            messages = form.weight.view(-1, 1) * messages
        out = small_graphs.scattered(messages, form.dst, form.rows, 0, form.reduce)
    except (IndexError, RuntimeError):
        return None  # PyG's steps raise its error
    return None if out is NotImplemented else out


def _features_and_rows(x: Any, size: Any, gathered: int, reduced: int) -> tuple[Tensor | None, int]:
    """Return the features that are gathered and the number of result rows, by PyG's rules.

    Returns:
        (None, 0) for inputs of another form, or sizes that do not fit.
    """
    if size is not None and (not isinstance(size, (tuple, list)) or len(size) != 2):
        return None, 0
    if type(x) is tuple and len(x) == 2:  # PyG takes x_j from x[0], whatever the flow
        if any(type(side) is not Tensor or side.dim() == 0 for side in x):
            return None, 0
        features, sizes = x[0], (x[0].size(0), x[1].size(0))
        return (features, sizes[reduced]) if size is None or tuple(size) == sizes else (None, 0)
    if type(x) is not Tensor or x.dim() == 0:
        return None, 0
    if size is None:
        return x, x.size(0)
    fits = size[gathered] == x.size(0) and isinstance(size[reduced], int)
    return (x, size[reduced]) if fits else (None, 0)


def _fits(weight: Any, name: str, features: Tensor, src: Tensor) -> bool:
    """Return whether the op multiplies with this weight as the message does."""
    if weight is None:
        return name != "alpha"
    if type(weight) not in (Tensor, torch.nn.Parameter) or weight.layout is not torch.strided:
        return False
    if weight.dtype != features.dtype or weight.device != features.device:
        return False
    return weight.shape == (src.numel(), *features.shape[1:-1])
