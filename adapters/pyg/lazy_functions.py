"""Functions, sums and products of gathered features that stay lazy (docs/message-algebra.md).

A function of each row of x_j is computed from the nodes' features, f(x)_j. Sums of x_i, x_j and tensors per edge,
activations of such sums, and their products become a Pair (lazy_pairs.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gnna_plugin import settings

from .index_errors import gather
from .lazy import Value, lift_rows, register
from .lazy_operands import (
    as_edges,
    as_form,
    count_moved,
    detached,
    is_lazy,
    is_shared,
    kept_edges,
    moves,
    of_rows,
    of_terms,
    pair,
    sum_of,
)
from .lazy_pairs import Form, HeadSum, Pair, Term, register_expression, same_index
from .lazy_products import Product, as_weight

_MOST_SCORES = 16  # numbers per edge that are gathered at once, as a weight

# ---- activations -----------------------------------------------------------------------------------------------------

# Function -> (its name in the pair ops, the name and default of its parameter).
_ACTIVATIONS: dict[Callable, tuple[str, str, float]] = {
    **{f: ("relu", "", 0.0) for f in (F.relu, torch.relu, Tensor.relu)},
    **{f: ("sigmoid", "", 0.0) for f in (F.sigmoid, torch.sigmoid, Tensor.sigmoid)},
    **{f: ("tanh", "", 0.0) for f in (F.tanh, torch.tanh, Tensor.tanh)},
    **{f: ("square", "", 0.0) for f in (torch.square, Tensor.square)},
    F.leaky_relu: ("leaky_relu", "negative_slope", 0.01),
    F.elu: ("elu", "alpha", 1.0),
    F.silu: ("silu", "", 0.0),
    F.gelu: ("gelu", "", 0.0),
}


def _activate(func: Callable, args: tuple, kwargs: dict) -> Any:
    if not args or not is_lazy(args[0]) or kwargs.get("inplace") or True in args[2:]:
        return NotImplemented
    lazy, (name, keyword, default) = args[0], _ACTIVATIONS[func]
    if kwargs.get("approximate", "none") != "none" or not lazy.is_floating_point():
        return NotImplemented
    if set(kwargs) - {keyword, "inplace", "approximate"}:
        return NotImplemented
    if type(lazy._value) is Value:
        return of_rows(lazy, name, lambda x: func(x, *args[1:], **kwargs))
    found = as_form(lazy)
    if found is None or (len(args) > 1 and not keyword):
        return NotImplemented
    form, bases = found
    parameter = args[1] if len(args) > 1 else kwargs.get(keyword, default) if keyword else 0.0
    if type(parameter) not in (int, float):
        return NotImplemented
    return pair(lazy._value, tuple(lazy.shape), form._replace(function=name, parameter=float(parameter)), bases)


# Other functions of every element, computed once per node. Their other arguments are numbers. Functions with infinite
# values or slopes (sqrt, log, exp, ...) are missing: a node that no edge reads would get a gradient of 0 * inf, NaN.
_ELEMENTWISE = ("abs", "clamp", "clamp_max", "clamp_min", "cos", "sin")
_CASTS = (Tensor.to, Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16)
_NUMBERS = (int, float, type(None))


def _elementwise(func: Callable, args: tuple, kwargs: dict) -> Any:
    others = (*args[1:], *kwargs.values())
    allowed = (torch.dtype,) if func in _CASTS else _NUMBERS
    if not args or not is_lazy(args[0]) or not all(type(other) in allowed for other in others):
        return NotImplemented
    if func in _CASTS:
        dtype = func(torch.empty((), dtype=args[0].dtype), *args[1:], **kwargs).dtype
        if dtype == args[0].dtype:
            return args[0]
        if dtype.itemsize < args[0].dtype.itemsize:
            return NotImplemented  # the sum of a node's gradients would be rounded to the narrower type
    return of_rows(args[0], func.__name__, lambda x: func(x, *args[1:], **kwargs))


def _layer_norm(func: Callable, args: tuple, kwargs: dict) -> Any:
    given: dict[str, Any] = {**dict(zip(("input", "normalized_shape", "weight", "bias", "eps"), args, strict=False)),
                             **kwargs}  # fmt: skip
    lazy: Any = given.pop("input", None)
    if not is_lazy(lazy) or len(given.get("normalized_shape", ())) >= len(lazy.shape):
        return NotImplemented
    return of_rows(lazy, "layer_norm", lambda x: func(x, **given))


# ---- sums ------------------------------------------------------------------------------------------------------------


def _add(func: Callable, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) != 2:
        return NotImplemented
    sign = -1 if func in _SUBTRACTIONS else 1
    first, second = args[::-1] if func in (Tensor.__rsub__, torch.rsub) else args
    if not (is_lazy(first) and is_lazy(second)):
        return _add_plain(first, second, sign)
    if first.shape != second.shape or first.dtype != second.dtype:
        return NotImplemented
    left, right = as_form(first), as_form(second)
    if left is None or right is None:
        return NotImplemented
    form = sum_of(left[0], right[0], sign)
    if form is None:
        return NotImplemented
    value, shape = first._value, tuple(first.shape)
    if len(form.terms) == 1 and form.edges is None:
        if form.terms[0].features.size(0) > value.src.numel():
            return NotImplemented
        count_moved(value, "add" if sign > 0 else "sub")
        return lift_rows(form.terms[0].features, value)
    return pair(value, shape, form, (*left[1], *right[1]))


def _add_plain(first: Any, second: Any, sign: int) -> Any:
    lazy, other = (first, second) if is_lazy(first) else (second, first)
    found = as_form(lazy)
    if found is None:
        return NotImplemented
    form, bases = found
    if type(other) in (int, float):
        if not math.isfinite(other):
            return NotImplemented
        apply = (lambda x: x + sign * other) if lazy is first else (lambda x: other + sign * x)
        if type(lazy._value) is Value:
            return of_rows(lazy, "add", apply)
        return NotImplemented
    edges = as_edges(other, lazy)
    if edges is None:
        return _add_row(lazy, other, sign) if lazy is first else NotImplemented
    given = Form(edges=edges)
    new = sum_of(form, given, sign) if lazy is first else sum_of(given, form, sign)
    return NotImplemented if new is None else pair(lazy._value, tuple(lazy.shape), new, bases)


def _add_row(lazy: Any, other: Any, sign: int) -> Any:
    """Add a vector that is the same for all edges, such as a bias, to one operand of the sum."""
    if not is_shared(other, lazy) or other.dim() >= len(lazy.shape):
        return NotImplemented
    if type(lazy._value) is Value:
        return of_rows(lazy, "add", lambda x: x + sign * other)
    form, bases = as_form(lazy) or (Form(), ())
    if not form.terms:
        return NotImplemented
    term = form.terms[0]
    terms = (Term(term.ids, term.features + sign * other), *form.terms[1:])
    return pair(lazy._value, tuple(lazy.shape), form._replace(terms=terms), bases)


_SUBTRACTIONS = (torch.sub, torch.subtract, Tensor.sub, Tensor.subtract, Tensor.__sub__, Tensor.__rsub__, torch.rsub)
_ADDITIONS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)


def _negate(func: Callable, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) != 1:
        return NotImplemented
    if type(args[0]._value) is Value:
        return of_rows(args[0], "neg", torch.neg)
    return of_terms(args[0], torch.neg, tuple(args[0].shape))


# ---- products --------------------------------------------------------------------------------------------------------


def _multiply(func: Callable, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) != 2:
        return NotImplemented
    first, second = args
    if is_lazy(first) and is_lazy(second):
        return _multiply_lazy(first, second)
    lazy, other = (first, second) if is_lazy(first) else (second, first)
    value = lazy._value
    if type(value) is Value and _is_constant(other, lazy):
        return of_rows(lazy, "mul", lambda x: x * other)
    if type(value) is not Pair or not settings.current.rewrite or value.settled:
        return NotImplemented
    form, shape = value.form, tuple(lazy.shape)
    if is_shared(other, lazy) and form.shared is None:
        shared = (other.detach() if not torch.is_grad_enabled() else other).clone()  # later writes do not change it
        shared = shared.reshape((1,) * (len(shape) - shared.dim()) + tuple(shared.shape)).expand(1, *shape[1:])
        return pair(value, shape, form._replace(shared=shared), value.bases)
    scale = as_weight(value, lazy.shape, other) if getattr(other, "dtype", None) == lazy.dtype else None
    if scale is None or form.scale is not None:
        return NotImplemented
    return pair(value, shape, form._replace(scale=kept_edges(scale)), value.bases)


def _divide(func: Callable, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) != 2 or not is_lazy(args[0]) or not _is_constant(args[1], args[0]):
        return NotImplemented
    return of_rows(args[0], "div", lambda x: x / args[1])


def _power(func: Callable, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) != 2 or not is_lazy(args[0]):
        return NotImplemented
    lazy, exponent = args
    if (
        type(exponent) not in (int, float) or not 1 <= exponent < math.inf
    ):  # smaller ones have infinite slopes, see above
        return NotImplemented
    if type(lazy._value) is Value:
        return of_rows(lazy, "pow", lambda x: x**exponent)
    return _activate(torch.square, (lazy,), {}) if exponent == 2 else NotImplemented


def _is_constant(other: Any, lazy: Any) -> bool:
    """Return whether an operand is a number, or a tensor that all edges share."""
    return (type(other) in (int, float) and math.isfinite(other)) or is_shared(other, lazy)


def _multiply_lazy(first: Any, second: Any) -> Any:
    """Multiply gathered features with each other if they have one index, or with a Pair (a gate)."""
    if first.shape != second.shape:
        return _multiply_by_scores(first, second)
    if first is second and type(first._value) is Pair:  # variances
        return _activate(torch.square, (first,), {})
    a, b = first._value, second._value
    if first.dtype != second.dtype or len(first.shape) != len(second.shape) or not (moves(a) and moves(b)):
        return NotImplemented
    if type(a) is Value and type(b) is Value:
        if not same_index(a.src, b.src) or a.x.size(0) > a.src.numel():
            return NotImplemented
        b.check_versions()
        rows = b.x.reshape(b.x.size(0), *second.shape[1:])
        return of_rows(first, "mul", lambda x: x * rows)
    values, gate = (a, second) if type(a) is Pair else (b, first)
    if type(values) is not Pair or type(gate._value) is not Value:
        return NotImplemented
    form, (of_gate, bases) = values.form, as_form(gate) or (None, ())
    if of_gate is None or any(same_index(of_gate.terms[0].ids, t.ids) for t in form.factors):
        return NotImplemented
    indices: list[Tensor] = []
    for term in (*form.terms, *form.factors, *of_gate.terms):
        if not any(same_index(term.ids, known) for known in indices):
            indices.append(term.ids)
    if len(indices) > 2:
        return NotImplemented
    new = form._replace(factors=(*form.factors, *detached(of_gate).terms))
    return pair(values, tuple(first.shape), new, (*values.bases, *bases))


def _multiply_by_scores(first: Any, second: Any) -> Any:
    """Multiply messages by a few gathered numbers per edge, such as a norm of the node, which become a weight."""
    scores, messages = (first, second) if math.prod(first.shape) < math.prod(second.shape) else (second, first)
    value = scores._value
    if type(value) is not Value or not moves(value) or math.prod(scores.shape[1:]) > _MOST_SCORES:
        return NotImplemented
    value.check_versions()
    weight = gather(value.conv, value.x, value.index, value.src, value.call)
    return weight.view(scores.shape) * messages


def _sum_features(func: Callable, args: tuple, kwargs: dict) -> Any:
    """Sum over the last dimension, the scores of attention, or sum weighted messages over their heads."""
    given: dict[str, Any] = {**dict(zip(("input", "dim", "keepdim"), args, strict=False)), **kwargs}
    lazy: Any = given.get("input")
    if not is_lazy(lazy) or set(given) - {"input", "dim", "keepdim"} or len(lazy.shape) < 2:
        return NotImplemented
    last, value = len(lazy.shape) - 1, lazy._value
    if given.get("keepdim"):
        return NotImplemented
    if given.get("dim") in (1, -2) and last == 2 and type(value) is Product and settings.current.rewrite:
        return register_expression(HeadSum(lazy)) if HeadSum.takes(value) else NotImplemented
    if given.get("dim") not in (-1, last, [-1], [last], (-1,), (last,)):
        return NotImplemented
    if type(value) is Value:
        return of_rows(lazy, "sum", lambda x: x.sum(-1))
    if type(value) is not Pair or value.settled:
        return NotImplemented
    return value.summed(last - 1)


register(
    {
        **{f: _activate for f in _ACTIVATIONS},
        **{getattr(owner, name): _elementwise for name in _ELEMENTWISE for owner in (torch, Tensor)},
        **dict.fromkeys((*_CASTS, F.softplus), _elementwise),
        F.layer_norm: _layer_norm,
        **dict.fromkeys((torch.div, Tensor.div, Tensor.__truediv__), _divide),
        **{f: _add for f in (*_ADDITIONS, *_SUBTRACTIONS)},
        **{f: _negate for f in (torch.neg, Tensor.neg, Tensor.__neg__)},
        **{f: _power for f in (torch.pow, Tensor.pow, Tensor.__pow__)},
        **{f: _multiply for f in (torch.mul, torch.multiply, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)},
        **{f: _sum_features for f in (torch.sum, Tensor.sum)},
    },
    first=True,
)
