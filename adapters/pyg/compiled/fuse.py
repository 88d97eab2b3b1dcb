"""Fuses the gathers of a traced graph with their reductions.

A gather, products with weights, and a reduction become one spmm. The dot products of two gathers become one sddmm. All
other nodes stay. The graph is dynamo's, with the operations of the user's Python code. So it may write to tensors in
place, and every node has a fake value that tells its shape, dtype and storage.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

_ops = torch.ops.gnna
_MULTIPLY = (operator.mul, torch.mul, "mul", "__mul__", "__rmul__", "multiply")
_VIEWS = ("view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten")
_IN_PLACE = (
    "iadd",
    "isub",
    "imul",
    "itruediv",
    "ifloordiv",
    "imod",
    "ipow",
    "iand",
    "ior",
    "ixor",
    "imatmul",
    "setitem",
)
_MODES = ("_set_", "_enter_", "_exit_", "set_")  # beginnings of functions that switch modes, such as gradients


def value_of(node: fx.Node) -> Any:
    """Return the fake value of a node, or None."""
    return node.meta.get("example_value")


def _arguments(node: fx.Node) -> Any:  # any, because nothing is known about their types
    return node.args


def calls(node: Any, op: Any) -> bool:
    """Return whether a node calls this op."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in (op, op.default)


def written_by(node: fx.Node) -> list[fx.Node]:
    """Return the nodes whose tensors this node may write to."""
    target, out = node.target, node.kwargs.get("out")
    found: list[Any] = [out]
    first = node.args[0] if node.args else None
    if isinstance(target, torch._ops.OpOverload):
        for argument, given in zip(target._schema.arguments, node.args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                found.append(given)
    elif isinstance(first, fx.Node) and node.op in ("call_method", "call_function"):
        name = target if isinstance(target, str) else getattr(target, "__name__", "")
        in_place = (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE
        if in_place or node.kwargs.get("inplace") is True:
            found.append(first)
    return [given for given in found if isinstance(given, fx.Node)]


def fuse(graph: fx.Graph) -> list[fx.Node]:
    """Fuse what has a fused form, and return the new calls of spmm and sddmm."""
    fused = []
    for node in list(graph.nodes):
        new = _fused_reduction(graph, node) if calls(node, _ops.segment_reduce) else _fused_scores(graph, node)
        if new is not None:
            fused.append(new)
    for node in reversed(list(graph.nodes)):  # the gathers and products that nothing uses any more
        pure = calls(node, _ops.gather_rows) or node.target in (*_MULTIPLY, *_VIEWS)
        if pure and not node.users and node.op != "placeholder":
            graph.erase_node(node)
    return fused


class _Messages:
    """The messages weight * x[src], where x has rows of `x_shape`, seen with rows of `shape`."""

    def __init__(self, gather: fx.Node) -> None:
        self.gather = gather
        self.x, self.src = _arguments(gather)[:2]
        self.value = value_of(gather)
        self.shape = self.x_shape = tuple(self.value.shape[1:])
        self.factors: list[fx.Node] = []  # of the weight, each of shape [E, *x_shape[:prefix], 1, ...]
        self.prefix = 0

    def multiply(self, node: fx.Node) -> bool:
        """Multiply by a weight per edge, head or feature; return whether spmm can do so."""
        factor = value_of(node)
        if not isinstance(factor, Tensor) or factor.dtype != self.value.dtype or factor.device != self.value.device:
            return False
        if factor.dim() != len(self.shape) + 1 or not statically_known_true(factor.shape[0] == self.value.shape[0]):
            return False
        prefix = len(self.shape)
        while prefix and statically_known_true(factor.shape[prefix] == 1):
            prefix -= 1
        if not _equal(factor.shape[1 : prefix + 1], self.shape[:prefix]):
            return False
        if self.factors and (prefix != self.prefix or not _equal(self.shape, self.x_shape)):
            return False
        self.factors.append(node)
        self.prefix, self.x_shape = prefix, self.shape
        return True

    def view(self, shape: tuple) -> bool:
        """Regroup the features of a row; return whether that is possible."""
        if not all(isinstance(size, int) and size > 0 for size in (*shape, *self.shape)):
            return False
        self.shape = shape
        if not self.factors:
            self.x_shape = shape
        return True


def _equal(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(statically_known_true(x == y) for x, y in zip(a, b, strict=True))


def _messages_of(node: Any) -> _Messages | None:
    """Follow products and views up to a gather."""
    if calls(node, _ops.gather_rows):
        return _Messages(node)
    if not isinstance(node, fx.Node) or not isinstance(value_of(node), Tensor) or node.kwargs:
        return None
    shape = tuple(value_of(node).shape)
    if node.target in _MULTIPLY and node.op != "placeholder" and len(node.args) == 2:
        for messages, weight in (node.args, node.args[::-1]):
            found = _messages_of(messages)
            if found is not None and isinstance(weight, fx.Node) and _equal(shape[1:], found.shape):
                if found.multiply(weight):
                    return found
    elif node.op == "call_method" and node.target in _VIEWS:
        found = _messages_of(node.args[0])
        if found is not None and _equal(shape[:1], found.value.shape[:1]) and found.view(shape[1:]):
            return found
    elif node.op == "call_method" and node.target == "contiguous":
        return _messages_of(node.args[0])
    return None


def _undisturbed(first: fx.Node, last: fx.Node) -> bool:
    """Return whether the gather `first` may run at the place of `last`: nothing is written and no mode switched between
    them."""
    node = first.next
    while node is not last:
        name = getattr(node.target, "__name__", "")
        if node.op == "call_module" or name.startswith(_MODES) or written_by(node):
            return False
        node = node.next
    return True


def _append(graph: fx.Graph, like: fx.Node, value: Any, target: Any, *args: Any) -> fx.Node:
    node = (graph.call_method if isinstance(target, str) else graph.call_function)(target, args)
    node.meta = {key: entry for key, entry in like.meta.items() if key != "unbacked_bindings"}
    node.meta["example_value"] = value
    return node


def _with_rows_of(graph: fx.Graph, like: fx.Node, node: fx.Node, shape: tuple) -> fx.Node:
    value = value_of(node)
    if _equal(value.shape[1:], shape):
        return node
    return _append(graph, like, value.reshape(value.shape[0], *shape), "reshape", node, -1, *shape)


def _fused_reduction(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    messages, dst, rows, reduce = _arguments(node)[:4]
    found = _messages_of(messages)
    if found is None or not _undisturbed(found.gather, node):
        return None
    out, weight = value_of(node), None
    with graph.inserting_before(node), found.value.fake_mode:
        x = _with_rows_of(graph, node, found.x, found.x_shape)
        for factor in found.factors:
            factor = _with_rows_of(graph, node, factor, found.x_shape[: found.prefix])
            if weight is None:
                weight = factor
            else:
                weight = _append(graph, node, value_of(weight) * value_of(factor), operator.mul, weight, factor)
        value = out.new_empty((out.shape[0], *found.x_shape))
        new = _append(graph, node, value, _ops.spmm.default, x, weight, found.src, dst, rows, reduce, False)
        node.replace_all_uses_with(_with_rows_of(graph, node, new, tuple(out.shape[1:])))
    graph.erase_node(node)
    return new


def _fused_scores(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Fuse (a[i] * b[j]).sum(-1)."""
    if node.target not in ("sum", torch.sum) or not node.args or set(node.kwargs) - {"dim"}:
        return None
    product, *dims = _arguments(node)
    if [*dims, *node.kwargs.values()] not in ([-1], [(-1,)], [[-1]]) or not isinstance(product, fx.Node):
        return None
    if product.target not in _MULTIPLY or len(product.args) != 2 or len(product.users) != 1:
        return None
    a, b = _arguments(product)
    if not (calls(a, _ops.gather_rows) and calls(b, _ops.gather_rows)):
        return None
    one, other = value_of(a), value_of(b)
    if one.dtype != other.dtype or one.dim() < 2 or not _equal(one.shape, other.shape):
        return None
    if not _undisturbed(min(a, b), node):
        return None
    (x, i), (y, j) = a.args[:2], b.args[:2]
    with graph.inserting_before(node):
        new = _append(graph, node, value_of(node), _ops.sddmm.default, x, y, i, j, one.dim() - 2, False)
    node.replace_all_uses_with(new)
    graph.erase_node(node)
    return new
