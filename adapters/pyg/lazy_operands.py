"""The operands of rewritten messages: gathered features, sums of them, and plain tensors per edge or for all edges.

lazy_functions.py and lazy_shapes.py use these functions to rewrite an operation on messages. Each rewrite is exact in
real arithmetic, and is applied only where it computes fewer rows than there are edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import report, settings

from . import consume, own_code
from .lazy import LazyMessage, Value, lift_rows
from .lazy_pairs import Form, Pair, Term, register_expression, same_index

PLAIN = (Tensor, torch.nn.Parameter)


def is_lazy(item: Any) -> bool:
    return type(item) is LazyMessage


def moves(value: Value) -> bool:
    """Return whether functions of this value may be rewritten at all."""
    if not settings.current.rewrite or value.settled or value.lead or value.weight is not None:
        return False
    return value.src.numel() > 0 and not own_code.watches_gradients(value.conv)


def as_form(item: Any) -> tuple[Form, tuple[Value, ...]] | None:
    """Return a lazy operand as a sum of gathered features and edges, and the values whose versions it depends on."""
    value = item._value
    if not moves(value):
        return None
    if type(value) is Pair:
        return (value.form, value.bases) if value.form.is_sum() else None
    if type(value) is not Value:
        return None
    x = value.x
    if x.shape[1:] != item.shape[1:]:
        x = x.reshape(x.size(0), *item.shape[1:])
    return Form((Term(value.src, x),)), (value,)


def as_edges(item: Any, lazy: Any) -> Tensor | None:
    """Return a plain operand as values [E, *S] of the edges, of the shape and dtype of the lazy one."""
    if type(item) not in PLAIN or item.shape != lazy.shape or item.dtype != lazy.dtype:
        return None
    if item.device != lazy._value.x.device or item.layout is not torch.strided:
        return None
    return kept_edges(item)


def kept_edges(edges: Tensor) -> Tensor:
    """Return values of the edges as they are now, whatever is written to the tensor later."""
    if not torch.is_grad_enabled():
        return torch.ops.gnna.snapshot(edges.detach())
    if edges.requires_grad:
        return consume.kept_features(edges)
    return edges if edges.is_cuda and edges.is_leaf else torch.ops.gnna.snapshot(edges)


def detached(form: Form) -> Form:
    """Return a form without gradients if none are recorded now."""
    return form if torch.is_grad_enabled() else form.map(Tensor.detach)


def count_moved(value: Value, what: str) -> None:
    report.moved(value.layer, what)


def is_shared(other: Any, lazy: Any) -> bool:
    """Return whether a plain operand is the same for all edges: it broadcasts to [1, *S]."""
    if type(other) not in PLAIN or other.dtype != lazy.dtype or other.device != lazy._value.x.device:
        return False
    trail, given = tuple(lazy.shape[1:]), tuple(other.shape)
    if len(given) == len(trail) + 1 and given[0] == 1 and lazy.shape[0] != 1:
        given = given[1:]
    if not 0 < len(given) <= len(trail):
        return False
    return all(own in (1, wanted) for own, wanted in zip(given[::-1], trail[::-1], strict=False))


def of_rows(lazy: Any, what: str, function: Callable[[Tensor], Tensor]) -> Any:
    """Compute a function of every row of gathered features from the features of the nodes."""
    value = lazy._value
    if type(value) is not Value or not moves(value) or value.x.size(0) > value.src.numel():
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
    count_moved(value, what)
    return lift_rows(result, value)


def of_terms(lazy: Any, function: Callable[[Tensor], Tensor], shape: tuple) -> Any:
    """Apply a linear function of every row, whose result has this shape, to all operands of a sum."""
    found = as_form(lazy)
    if found is None:
        return NotImplemented
    form, bases = found
    try:
        mapped = form.map(function)
    except (RuntimeError, TypeError, IndexError):
        return NotImplemented
    return pair(lazy._value, shape, mapped, bases)


def pair(like: Value, shape: tuple, form: Form, bases: tuple[Value, ...]) -> Any:
    return register_expression(Pair(like, shape, detached(form), bases))


def sum_of(a: Form, b: Form, sign: int) -> Form | None:
    """Return a + b or a - b, or None if it has more than two different indices."""
    terms = list(a.terms)
    for term in b.terms:
        at = next((i for i, known in enumerate(terms) if same_index(known.ids, term.ids)), None)
        features = term.features if sign > 0 else -term.features
        if at is None:
            terms.append(Term(term.ids, features))
        else:
            terms[at] = Term(term.ids, terms[at].features + features)
    if len(terms) > 2:
        return None
    edges = a.edges
    if b.edges is not None:
        signed = b.edges if sign > 0 else -b.edges
        edges = signed if edges is None else edges + signed
    return Form(tuple(terms), edges)
