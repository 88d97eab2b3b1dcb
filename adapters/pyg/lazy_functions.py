"""The operations that keep functions of gathered features lazy (docs/message-algebra.md).

A function of each row of x_j is computed from the nodes' features, f(x)_j. Sums of x_i, x_j and tensors per edge,
concatenations of them, activations of such sums, and their products become a Pair or a Concatenation (lazy_pairs.py).
Each rewrite is exact in real arithmetic, and is applied only where it computes fewer rows than there are edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gnna_plugin import report, settings

from . import consume, own_code
from .lazy import LazyMessage, Value, lift_rows, register
from .lazy_pairs import Concatenation, Form, Pair, Term, register_expression, same_index

_plain_types = (Tensor, torch.nn.Parameter)


# ---- what an operand is ----------------------------------------------------------------------------------------------


def _is_lazy(item: Any) -> bool:
    return type(item) is LazyMessage


def _moves(value: Value) -> bool:
    """Return whether functions of this value may be rewritten at all."""
    if not settings.current.rewrite or value.settled or value.lead or value.weight is not None:
        return False
    return value.src.numel() > 0 and not own_code.watches_gradients(value.conv)


def _as_form(item: Any) -> tuple[Form, tuple[Value, ...]] | None:
    """Return a lazy operand as a sum of gathered features and edges, and the values whose versions it depends on."""
    value = item._value
    if not _moves(value):
        return None
    if type(value) is Pair:
        return (value.form, value.bases) if value.form.is_sum() else None
    if type(value) is not Value:
        return None
    x = value.x
    if x.shape[1:] != item.shape[1:]:
        x = x.reshape(x.size(0), *item.shape[1:])
    return Form((Term(value.src, x),)), (value,)


def _as_edges(item: Any, lazy: Any) -> Tensor | None:
    """Return a plain operand as values [E, *S] of the edges, of the shape and dtype of the lazy one."""
    if type(item) not in _plain_types or item.shape != lazy.shape or item.dtype != lazy.dtype:
        return None
    if item.device != lazy._value.x.device or item.layout is not torch.strided:
        return None
    return _kept_edges(item)


def _kept_edges(edges: Tensor) -> Tensor:
    """Return values of the edges as they are now, whatever is written to the tensor later."""
    if not torch.is_grad_enabled():
        return torch.ops.gnna.snapshot(edges.detach())
    if edges.requires_grad:
        return consume.kept_features(edges)
    return edges if edges.is_cuda and edges.is_leaf else torch.ops.gnna.snapshot(edges)


def _detached(form: Form) -> Form:
    """Return a form without gradients if none are recorded now."""
    if torch.is_grad_enabled():
        return form
    return form._replace(
        terms=tuple(Term(t.index, t.features.detach()) for t in form.terms),
        edges=None if form.edges is None else form.edges.detach(),
    )


def _moved(value: Value, what: str) -> None:
    report.moved(value.layer, what)


# ---- functions of each row -------------------------------------------------------------------------------------------


def _of_rows(lazy: Any, what: str, function: Callable[[Tensor], Tensor]) -> Any:
    """Compute a function of every row of gathered features from the features of the nodes."""
    value = lazy._value
    if type(value) is not Value or not _moves(value) or value.x.size(0) > value.src.numel():
        return NotImplemented
    value.check_versions()
    x = value.x
    if x.shape[1:] != lazy.shape[1:]:
        x = x.reshape(x.size(0), *lazy.shape[1:])
    try:
        result = function(x)
    except (RuntimeError, TypeError, IndexError):
        return NotImplemented  # the operation on real messages raises its own error
    if type(result) is not Tensor or result.dim() < 1 or result.size(0) != x.size(0) or not result.is_floating_point():
        return NotImplemented
    _moved(value, what)
    return lift_rows(result, value)


def _of_terms(lazy: Any, function: Callable[[Tensor], Tensor], shape: Callable[[tuple], tuple]) -> Any:
    """Apply a linear function of every row to all operands of a sum."""
    found = _as_form(lazy)
    if found is None:
        return NotImplemented
    form, _ = found
    try:
        terms = tuple(Term(t.index, function(t.features)) for t in form.terms)
        edges = None if form.edges is None else function(form.edges)
    except (RuntimeError, TypeError, IndexError):
        return NotImplemented
    new = Form(terms, edges)
    return _pair(lazy._value, shape(tuple(lazy.shape)), new, ())


def _pair(like: Value, shape: tuple, form: Form, bases: tuple[Value, ...]) -> Any:
    return register_expression(Pair(like, shape, _detached(form), bases))


# ---- activations -----------------------------------------------------------------------------------------------------

# Function -> (its name in the pair ops, the name and default of its parameter).
_ACTIVATIONS: dict[Callable, tuple[str, str, float]] = {
    **{f: ("relu", "", 0.0) for f in (F.relu, torch.relu, Tensor.relu)},
    **{f: ("sigmoid", "", 0.0) for f in (F.sigmoid, torch.sigmoid, Tensor.sigmoid)},
    **{f: ("tanh", "", 0.0) for f in (F.tanh, torch.tanh, Tensor.tanh)},
    F.leaky_relu: ("leaky_relu", "negative_slope", 0.01),
    F.elu: ("elu", "alpha", 1.0),
    F.silu: ("silu", "", 0.0),
    F.gelu: ("gelu", "", 0.0),
}


def _activate(func: Callable, args: tuple, kwargs: dict) -> Any:
    if not args or not _is_lazy(args[0]) or kwargs.get("inplace") or True in args[2:]:
        return NotImplemented
    lazy, (name, keyword, default) = args[0], _ACTIVATIONS[func]
    if kwargs.get("approximate", "none") != "none" or not lazy.is_floating_point():
        return NotImplemented
    if type(lazy._value) is Value:
        return _of_rows(lazy, name, lambda x: func(x, *args[1:], **kwargs))
    found = _as_form(lazy)
    if found is None or (len(args) > 1 and not keyword):
        return NotImplemented
    form, bases = found
    parameter = args[1] if len(args) > 1 else kwargs.get(keyword, default) if keyword else 0.0
    if type(parameter) not in (int, float) or set(kwargs) - {keyword, "inplace", "approximate"}:
        return NotImplemented
    return _pair(lazy._value, tuple(lazy.shape), form._replace(function=name, parameter=float(parameter)), bases)


# ---- sums ------------------------------------------------------------------------------------------------------------


def _add(func: Callable, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) != 2:
        return NotImplemented
    sign = -1 if func in _SUBTRACTIONS else 1
    first, second = args[::-1] if func in (Tensor.__rsub__, torch.rsub) else args
    if not (_is_lazy(first) and _is_lazy(second)):
        return _add_plain(first, second, sign)
    if first.shape != second.shape or first.dtype != second.dtype:
        return NotImplemented
    left, right = _as_form(first), _as_form(second)
    if left is None or right is None:
        return NotImplemented
    form = _sum(left[0], right[0], sign)
    if form is None:
        return NotImplemented
    value, shape = first._value, tuple(first.shape)
    if len(form.terms) == 1 and form.edges is None:
        if form.terms[0].features.size(0) > value.src.numel():
            return NotImplemented
        _moved(value, "add" if sign > 0 else "sub")
        return lift_rows(form.terms[0].features, value)
    return _pair(value, shape, form, (*left[1], *right[1]))


def _add_plain(first: Any, second: Any, sign: int) -> Any:
    lazy, other = (first, second) if _is_lazy(first) else (second, first)
    found = _as_form(lazy)
    if found is None:
        return NotImplemented
    form, bases = found
    if type(other) in (int, float):
        if not math.isfinite(other):
            return NotImplemented
        apply = (lambda x: x + sign * other) if lazy is first else (lambda x: other + sign * x)
        if type(lazy._value) is Value:
            return _of_rows(lazy, "add", apply)
        return NotImplemented
    edges = _as_edges(other, lazy)
    if edges is None:
        return _add_row(lazy, other, sign) if lazy is first else NotImplemented
    given = Form(edges=edges)
    new = _sum(form, given, sign) if lazy is first else _sum(given, form, sign)
    return NotImplemented if new is None else _pair(lazy._value, tuple(lazy.shape), new, bases)


def _add_row(lazy: Any, other: Any, sign: int) -> Any:
    """Add a vector that is the same for all edges, such as a bias, to one operand of the sum."""
    if not _is_shared(other, lazy) or other.dim() >= len(lazy.shape):
        return NotImplemented
    if type(lazy._value) is Value:
        return _of_rows(lazy, "add", lambda x: x + sign * other)
    form, bases = _as_form(lazy) or (Form(), ())
    if not form.terms:
        return NotImplemented
    term = form.terms[0]
    terms = (Term(term.index, term.features + sign * other), *form.terms[1:])
    return _pair(lazy._value, tuple(lazy.shape), form._replace(terms=terms), bases)


def _sum(a: Form, b: Form, sign: int) -> Form | None:
    """Return a + b or a - b, or None if it has more than two different indices."""
    terms = list(a.terms)
    for term in b.terms:
        at = next((i for i, known in enumerate(terms) if same_index(known.index, term.index)), None)
        features = term.features if sign > 0 else -term.features
        if at is None:
            terms.append(Term(term.index, features))
        else:
            terms[at] = Term(term.index, terms[at].features + features)
    if len(terms) > 2:
        return None
    edges = a.edges
    if b.edges is not None:
        signed = b.edges if sign > 0 else -b.edges
        edges = signed if edges is None else edges + signed
    return Form(tuple(terms), edges)


_SUBTRACTIONS = (torch.sub, torch.subtract, Tensor.sub, Tensor.subtract, Tensor.__sub__, Tensor.__rsub__, torch.rsub)
_ADDITIONS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)


def _negate(func: Callable, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) != 1:
        return NotImplemented
    if type(args[0]._value) is Value:
        return _of_rows(args[0], "neg", torch.neg)
    return _of_terms(args[0], torch.neg, lambda shape: shape)


# ---- products --------------------------------------------------------------------------------------------------------


def _is_shared(other: Any, lazy: Any) -> bool:
    """Return whether a plain operand multiplies the messages of all edges alike: [1, *S], or trailing dimensions of S."""
    if type(other) not in _plain_types or other.dtype != lazy.dtype or other.device != lazy._value.x.device:
        return False
    trail = tuple(lazy.shape[1:])
    if other.dim() == len(trail) + 1 and other.size(0) == 1 and lazy.shape[0] != 1:
        return tuple(other.shape[1:]) == trail
    return 0 < other.dim() <= len(trail) and tuple(other.shape) == trail[len(trail) - other.dim() :]


def _multiply(func: Callable, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) != 2:
        return NotImplemented
    first, second = args
    if _is_lazy(first) and _is_lazy(second):
        return _multiply_lazy(first, second)
    lazy, other = (first, second) if _is_lazy(first) else (second, first)
    value = lazy._value
    if type(value) is Value and _is_shared(other, lazy):
        return _of_rows(lazy, "mul", lambda x: x * other)
    if type(value) is not Pair or not settings.current.rewrite or value.settled:
        return NotImplemented
    form, shape = value.form, tuple(lazy.shape)
    if _is_shared(other, lazy) and form.shared is None:
        shared = other.detach() if not torch.is_grad_enabled() else other
        shared = shared.reshape((1,) * (len(shape) - shared.dim()) + tuple(shared.shape)).expand(1, *shape[1:])
        return _pair(value, shape, form._replace(shared=shared), value.bases)
    scale = _as_scale(other, lazy)
    if scale is None or form.scale is not None:
        return NotImplemented
    return _pair(value, shape, form._replace(scale=_kept_edges(scale)), value.bases)


def _as_scale(other: Any, lazy: Any) -> Tensor | None:
    """Return other as one weight per edge, head or feature, [E, *W]."""
    if type(other) not in _plain_types or other.dtype != lazy.dtype or other.dim() != len(lazy.shape):
        return None
    if other.device != lazy._value.x.device or other.size(0) != lazy.shape[0]:
        return None
    dims = other.dim()
    while dims > 1 and other.size(dims - 1) == 1:
        dims -= 1
    return other.reshape(other.shape[:dims]) if other.shape[1:dims] == lazy.shape[1:dims] else None


def _multiply_lazy(first: Any, second: Any) -> Any:
    """Multiply gathered features with each other if they have one index, or with a Pair (a gate)."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return NotImplemented
    a, b = first._value, second._value
    if not (_moves(a) and _moves(b)):
        return NotImplemented
    if type(a) is Value and type(b) is Value:
        if not same_index(a.src, b.src) or a.x.size(0) > a.src.numel():
            return NotImplemented
        b.check_versions()
        rows = b.x.reshape(b.x.size(0), *second.shape[1:])
        return _of_rows(first, "mul", lambda x: x * rows)
    pair, gate = (a, second) if type(a) is Pair else (b, first)
    if type(pair) is not Pair or type(gate._value) is not Value:
        return NotImplemented
    form, (of_gate, bases) = pair.form, _as_form(gate) or (None, ())
    if of_gate is None or any(same_index(of_gate.terms[0].index, t.index) for t in form.factors):
        return NotImplemented
    ends = [*form.terms, *form.factors, of_gate.terms[0]]
    if len({t.index.data_ptr() for t in ends}) > 2:
        return NotImplemented
    new = form._replace(factors=(*form.factors, *_detached(of_gate).terms))
    return _pair(pair, tuple(first.shape), new, (*pair.bases, *bases))


def _sum_features(func: Callable, args: tuple, kwargs: dict) -> Any:
    """Sum over the last dimension: the scores of attention."""
    given = {**dict(zip(("input", "dim", "keepdim"), args, strict=False)), **kwargs}
    lazy = given.get("input")
    if not _is_lazy(lazy) or set(given) - {"input", "dim", "keepdim"} or len(lazy.shape) < 2:
        return NotImplemented
    last = len(lazy.shape) - 1
    if given.get("dim") not in (-1, last, [-1], [last], (-1,), (last,)) or given.get("keepdim"):
        return NotImplemented
    value = lazy._value
    if type(value) is Value:
        return _of_rows(lazy, "sum", lambda x: x.sum(-1))
    if type(value) is not Pair or value.settled or (lazy.is_cuda and torch.is_autocast_enabled()):
        return NotImplemented
    return value.summed(last - 1)


# ---- linear functions ------------------------------------------------------------------------------------------------


def _linear(func: Callable, args: tuple, kwargs: dict) -> Any:
    given = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
    lazy, weight, bias = given.get("input"), given.get("weight"), given.get("bias")
    if not _is_lazy(lazy) or type(weight) not in _plain_types or weight.dim() != 2:
        return NotImplemented
    value = lazy._value
    if type(value) is Value:
        return _of_rows(lazy, "linear", lambda x: F.linear(x, weight, bias))
    if type(value) is Concatenation:
        if not _moves(value):
            return NotImplemented
        pieces = value.pieces
    else:
        found = _as_form(lazy)
        if found is None:
            return NotImplemented
        pieces = [found[0]]
    nodes = sum(t.features.size(0) for piece in pieces for t in piece.terms)
    width = sum(_width(piece) for piece in pieces)
    if nodes > value.src.numel() or width != weight.size(1):
        return NotImplemented
    value.check_versions()
    form: Form | None = None
    for piece, columns in zip(pieces, weight.split([_width(piece) for piece in pieces], dim=1), strict=True):
        terms = tuple(Term(t.index, F.linear(t.features, columns)) for t in piece.terms)
        edges = None if piece.edges is None else F.linear(piece.edges, columns)
        part = Form(terms, edges)
        form = part if form is None else _sum(form, part, 1)
        if form is None:
            return NotImplemented
    if form is None or not form.terms:
        return NotImplemented
    if bias is not None:
        term = form.terms[0]
        form = form._replace(terms=(Term(term.index, term.features + bias), *form.terms[1:]))
    _moved(value, "linear")
    shape = (*lazy.shape[:-1], weight.size(0))
    if len(form.terms) == 1 and form.edges is None:
        return lift_rows(form.terms[0].features, value, form.terms[0].index)
    return _pair(value, shape, form, ())


def _width(form: Form) -> int:
    return (form.terms[0].features if form.terms else form.edges).size(-1)  # type: ignore[union-attr]


# ---- concatenation and indexing of features --------------------------------------------------------------------------


def _concatenate(func: Callable, args: tuple, kwargs: dict) -> Any:
    given = {**dict(zip(("tensors", "dim"), args, strict=False)), **kwargs}
    items = given.get("tensors")
    if type(items) not in (tuple, list) or set(given) - {"tensors", "dim"}:
        return NotImplemented
    lazy = next(item for item in items if _is_lazy(item))
    dims = len(lazy.shape)
    if given.get("dim", 0) not in (-1, dims - 1) or dims < 2:
        return NotImplemented
    pieces, bases, width = [], [], 0
    for item in items:
        if getattr(item, "shape", ())[:-1] != lazy.shape[:-1] or item.dtype != lazy.dtype:
            return NotImplemented
        if _is_lazy(item):
            found = _as_form(item)
            if found is None:
                return NotImplemented
            pieces.append(_detached(found[0]))
            bases += found[1]
        elif type(item) in _plain_types and item.device == lazy._value.x.device:
            pieces.append(Form(edges=_kept_edges(item)))
        else:
            return NotImplemented
        width += item.shape[-1]
    value = Concatenation(lazy._value, (*lazy.shape[:-1], width), pieces, tuple(bases))
    return register_expression(value)


def _index(func: Callable, args: tuple, kwargs: dict) -> Any:
    """x_j[:, ...]: select features of every message."""
    if kwargs or len(args) != 2 or not _is_lazy(args[0]) or type(args[1]) is not tuple:
        return NotImplemented
    lazy, index = args
    if not index or index[0] != slice(None) or not all(type(i) in (int, slice) for i in index[1:]):
        return NotImplemented
    value = lazy._value
    if type(value) is Value:
        return _of_rows(lazy, "getitem", lambda x: x[index])
    if type(value) is Concatenation and _moves(value) and len(index) < len(lazy.shape):
        pieces = [
            Form(
                tuple(Term(t.index, t.features[index]) for t in piece.terms),
                None if piece.edges is None else piece.edges[index],
            )
            for piece in value.pieces
        ]
        shape = _shape_of(lazy, lambda x: x[index])
        return register_expression(Concatenation(value, shape, pieces, value.bases))
    return _of_terms(lazy, lambda x: x[index], lambda shape: _shape_of(lazy, lambda x: x[index]))


def _shape_of(lazy: Any, function: Callable[[Tensor], Tensor]) -> tuple:
    """Return the shape of a function's result for these messages, found on a template."""
    return tuple(function(torch.empty(lazy.shape, device="meta")).shape)


def _stack(func: Callable, args: tuple, kwargs: dict) -> Any:
    given = {**dict(zip(("tensors", "dim"), args, strict=False)), **kwargs}
    items, dim = given.get("tensors"), given.get("dim", 0)
    if type(items) not in (tuple, list) or type(dim) is not int or not all(map(_is_lazy, items)):
        return NotImplemented
    dims = len(items[0].shape) + 1
    dim %= dims
    forms = [_as_form(item) for item in items]
    if dim == 0 or any(form is None for form in forms) or any(item.shape != items[0].shape for item in items):
        return NotImplemented
    first = forms[0][0]
    for form, _ in forms[1:]:
        if len(form.terms) != len(first.terms) or (form.edges is None) != (first.edges is None):
            return NotImplemented
        if not all(same_index(a.index, b.index) for a, b in zip(form.terms, first.terms, strict=True)):
            return NotImplemented
    terms = tuple(
        Term(term.index, torch.stack([form.terms[k].features for form, _ in forms], dim))
        for k, term in enumerate(first.terms)
    )
    edges = None if first.edges is None else torch.stack([form.edges for form, _ in forms], dim)
    shape = _shape_of(items[0], lambda x: torch.stack([x] * len(items), dim))
    return _pair(items[0]._value, shape, Form(terms, edges), ())


def _view(func: Callable, args: tuple, kwargs: dict) -> Any:
    """Regroup the features of every message of a sum."""
    lazy = args[0]
    if not _is_lazy(lazy) or type(lazy._value) is not Pair:
        return NotImplemented
    value, edges = lazy._value, lazy.shape[0]
    try:
        shape = tuple(func(torch.empty(lazy.shape, device="meta"), *args[1:], **kwargs).shape)
    except (RuntimeError, TypeError, IndexError):
        return NotImplemented
    if edges < 2 or not shape or shape[0] != edges or value.settled or value.form.scale is not None:
        return NotImplemented

    def regroup(x: Tensor) -> Tensor:
        return x.reshape(x.size(0), *shape[1:])

    form = value.form
    new = form._replace(
        terms=tuple(Term(t.index, regroup(t.features)) for t in form.terms),
        edges=None if form.edges is None else regroup(form.edges),
        factors=tuple(Term(t.index, regroup(t.features)) for t in form.factors),
        shared=None if form.shared is None else regroup(form.shared),
    )
    return _pair(value, shape, new, value.bases)


register(
    {
        **{f: _activate for f in _ACTIVATIONS},
        **{f: _add for f in (*_ADDITIONS, *_SUBTRACTIONS)},
        **{f: _negate for f in (torch.neg, Tensor.neg, Tensor.__neg__)},
        **{f: _multiply for f in (torch.mul, torch.multiply, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)},
        **{f: _sum_features for f in (torch.sum, Tensor.sum)},
        F.linear: _linear,
        **{f: _concatenate for f in (torch.cat, torch.concat, torch.concatenate)},
        Tensor.__getitem__: _index,
        torch.stack: _stack,
        **{getattr(Tensor, name): _view for name in ("view", "reshape", "unsqueeze", "squeeze", "flatten")},
        **{getattr(torch, name): _view for name in ("reshape", "unsqueeze", "squeeze", "flatten")},
    }
)
