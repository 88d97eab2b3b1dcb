"""Linear functions, concatenation and views of messages that stay lazy (docs/message-algebra.md).

W [x_i; x_j] = (W1 x)_i + (W2 x)_j: two products over nodes replace one over edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import own_code
from .lazy import Value, lift_rows, register
from .lazy_operands import (
    PLAIN,
    as_form,
    count_moved,
    detached,
    is_lazy,
    kept_edges,
    moves,
    of_rows,
    of_terms,
    pair,
    sum_of,
)
from .lazy_pairs import Concatenation, Form, Pair, Term, register_expression, same_index

# ---- linear functions ------------------------------------------------------------------------------------------------


def _linear(func: Callable, args: tuple, kwargs: dict) -> Any:
    given: dict[str, Any] = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
    lazy: Any = given.get("input")
    weight: Any = given.get("weight")
    bias: Any = given.get("bias")
    if not is_lazy(lazy) or type(weight) not in PLAIN or weight.dim() != 2:
        return NotImplemented
    value = lazy._value
    if type(value) is Value:
        return of_rows(lazy, "linear", lambda x: F.linear(x, weight, bias))
    if type(value) is Concatenation:
        if not moves(value):
            return NotImplemented
        pieces = value.pieces
    else:
        found = as_form(lazy)
        if found is None:
            return NotImplemented
        pieces = [found[0]]
    nodes = sum(t.features.size(0) for piece in pieces for t in piece.terms)
    width = sum(_width(piece) for piece in pieces)
    if nodes > value.src.numel() or width != weight.size(1):
        return NotImplemented
    value.check_versions()
    form: Form | None = None
    rest = [] if bias is None else [bias]
    for piece, columns in zip(pieces, weight.split([_width(piece) for piece in pieces], dim=1), strict=True):
        # The bias joins the first gathered features.
        terms = tuple(Term(t.ids, F.linear(t.features, columns, rest.pop() if rest else None)) for t in piece.terms)
        edges = None if piece.edges is None else F.linear(piece.edges, columns)
        part = Form(terms, edges)
        form = part if form is None else sum_of(form, part, 1)
        if form is None:
            return NotImplemented
    if form is None or not form.terms:
        return NotImplemented
    count_moved(value, "linear")
    shape = (*lazy.shape[:-1], weight.size(0))
    if len(form.terms) == 1 and form.edges is None:
        return lift_rows(form.terms[0].features, value, form.terms[0].ids)
    return pair(value, shape, form, ())


def _width(form: Form) -> int:
    return (form.terms[0].features if form.terms else form.edges).size(-1)  # type: ignore[union-attr]


# ---- concatenation and indexing of features --------------------------------------------------------------------------


def _concatenate(func: Callable, args: tuple, kwargs: dict) -> Any:
    given: dict[str, Any] = {**dict(zip(("tensors", "dim"), args, strict=False)), **kwargs}
    items: Any = given.get("tensors")
    if type(items) not in (tuple, list) or set(given) - {"tensors", "dim"}:
        return NotImplemented
    lazy = next(item for item in items if is_lazy(item))
    dims = len(lazy.shape)
    if given.get("dim", 0) not in (-1, dims - 1) or dims < 2:
        return NotImplemented
    pieces: list[Form] = []
    bases: list[Value] = []
    width = 0
    for item in items:
        if getattr(item, "shape", ())[:-1] != lazy.shape[:-1] or item.dtype != lazy.dtype:
            return NotImplemented
        if is_lazy(item):
            found = as_form(item)
            if found is None:
                return NotImplemented
            pieces.append(detached(found[0]))
            bases += found[1]
        elif type(item) in PLAIN and item.device == lazy._value.x.device:
            pieces.append(Form(edges=kept_edges(item)))
        else:
            return NotImplemented
        width += item.shape[-1]
    value = Concatenation(lazy._value, (*lazy.shape[:-1], width), pieces, tuple(bases))
    return register_expression(value)


def _index(func: Callable, args: tuple, kwargs: dict) -> Any:
    """x_j[:, ...]: select features of every message."""
    if kwargs or len(args) != 2 or not is_lazy(args[0]) or type(args[1]) is not tuple:
        return NotImplemented
    lazy, index = args
    if own_code.writes_in_place(lazy._value.conv):  # the result would have to share the messages' memory
        return NotImplemented
    if not index or index[0] != slice(None) or not all(type(i) in (int, slice) for i in index[1:]):
        return NotImplemented
    value = lazy._value
    if type(value) is Value:
        return of_rows(lazy, "getitem", lambda x: x[index])
    if type(value) is Concatenation and moves(value) and len(index) < len(lazy.shape):
        pieces = [piece.map(lambda x: x[index]) for piece in value.pieces]
        shape = _shape_of(lazy, lambda x: x[index])
        return register_expression(Concatenation(value, shape, pieces, value.bases))
    return of_terms(lazy, lambda x: x[index], _shape_of(lazy, lambda x: x[index]))


def _shape_of(lazy: Any, function: Callable[[Tensor], Tensor]) -> tuple:
    """Return the shape of a function's result for these messages, found on a template."""
    return tuple(function(torch.empty(lazy.shape, device="meta")).shape)


def _stack(func: Callable, args: tuple, kwargs: dict) -> Any:
    given: dict[str, Any] = {**dict(zip(("tensors", "dim"), args, strict=False)), **kwargs}
    items: Any = given.get("tensors")
    dim = given.get("dim", 0)
    if type(items) not in (tuple, list) or type(dim) is not int or not all(map(is_lazy, items)):
        return NotImplemented
    dims = len(items[0].shape) + 1
    dim %= dims
    forms: list[Any] = [as_form(item) for item in items]
    if dim == 0 or any(form is None for form in forms) or any(item.shape != items[0].shape for item in items):
        return NotImplemented
    first = forms[0][0]
    terms = []
    for term in first.terms:
        stacked = [t.features for form, _ in forms for t in form.terms if same_index(t.ids, term.ids)]
        if len(stacked) != len(forms):
            return NotImplemented
        terms.append(Term(term.ids, torch.stack(stacked, dim)))
    if any(len(form.terms) != len(terms) or (form.edges is None) != (first.edges is None) for form, _ in forms):
        return NotImplemented
    edges = None if first.edges is None else torch.stack([form.edges for form, _ in forms], dim)
    shape = _shape_of(items[0], lambda x: torch.stack([x] * len(items), dim))
    return pair(items[0]._value, shape, Form(tuple(terms), edges), ())


def _view(func: Callable, args: tuple, kwargs: dict) -> Any:
    """Regroup the features of every message of a sum."""
    lazy = args[0]
    if not is_lazy(lazy) or type(lazy._value) is not Pair:
        return NotImplemented
    value, edges = lazy._value, lazy.shape[0]
    if own_code.writes_in_place(value.conv):
        return NotImplemented
    try:
        shape = tuple(func(torch.empty(lazy.shape, device="meta"), *args[1:], **kwargs).shape)
    except (RuntimeError, TypeError, IndexError):
        return NotImplemented
    if edges < 2 or not shape or shape[0] != edges or value.settled or value.form.scale is not None:
        return NotImplemented

    def regroup(x: Tensor) -> Tensor:
        return x.reshape(x.size(0), *shape[1:])

    return pair(value, shape, value.form.map(regroup), value.bases)


register(
    {
        F.linear: _linear,
        **{f: _concatenate for f in (torch.cat, torch.concat, torch.concatenate)},
        Tensor.__getitem__: _index,
        torch.stack: _stack,
        **{getattr(Tensor, name): _view for name in ("view", "reshape", "unsqueeze", "squeeze", "flatten")},
        **{getattr(torch, name): _view for name in ("reshape", "unsqueeze", "squeeze", "flatten")},
    },
    first=True,
)
