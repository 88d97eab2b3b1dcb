"""Moves what depends on the edges alone in front of a traced graph.

Rows of an edge index and the results of edge_ops.py become inputs of the graph. They are computed before every call of
the compiled code, with the caches of eager mode. Plans are cached for inputs only, because a backend writes later
results of the graph to the memory of earlier ones, without a new version.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx

from .edge_ops import EARLY
from .fuse import calls, value_of, written_by

_ops = torch.ops.gnna
# Op -> the positions of its indices, and the position of `cache`.
_INDEXED = {
    _ops.spmm: ((2, 3), 6),
    _ops.sddmm: ((2, 3), 5),
    _ops.segment_reduce: ((1,), 4),
    _ops.segment_softmax: ((1,), 3),
    _ops.gather_rows: ((1,), 2),
}


def move(gm: fx.GraphModule) -> tuple[Callable, list[Tensor]]:
    """Move what depends on the edges alone out of the graph, and cache the plans of the indices that are inputs then.

    Returns:
        A function from the graph's former inputs to the further inputs, and the fake values of these.
    """
    graph, early = gm.graph, _Early(gm.graph)
    for node in list(graph.nodes):
        if _early_function(node) is not None or (_picks(node) and not isinstance(value_of(node.args[0]), Tensor)):
            early.copy(node)
        for op, (positions, flag) in _INDEXED.items():
            if calls(node, op):
                known = [early.copy(node.args[p]) is not None for p in positions]
                node.update_arg(flag, all(known))
    moved = [n for n in early.copies if n.op != "placeholder" and any(user not in early.copies for user in n.users)]
    # The caller may write to a result that shares memory with one of the new inputs.
    returned = _storages(node for node in graph.nodes if any(user.op == "output" for user in node.users))
    last = max(early.inputs)
    further: dict[fx.Node, fx.Node] = {}  # node of early.graph -> the input with its value
    for node in moved:
        copy = early.copies[node]
        if copy not in further:
            with graph.inserting_after(last):
                last = further[copy] = graph.placeholder(f"edges_{node.name}")
            last.meta["example_value"] = value_of(node)
            last._dynamo_source = None
        new = further[copy]
        if _storage(node) in returned:
            with graph.inserting_before(node):
                new = graph.call_method("clone", (new,))
            new.meta["example_value"] = value_of(node)
        node.replace_all_uses_with(new)
    early.graph.output(tuple(further))
    fakes = [value_of(new) for new in further.values()]
    for node in reversed(list(graph.nodes)):
        if node in early.copies and node.op != "placeholder":
            graph.erase_node(node)
    return fx.GraphModule(gm, early.graph).forward, fakes


def _early_function(node: fx.Node) -> Callable | None:
    for op, function in EARLY.items():
        if calls(node, op):
            return function
    return None


def _picks(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target is operator.getitem and isinstance(node.args[1], int)


def _storage(node: fx.Node) -> int | None:
    value = value_of(node)
    return value.untyped_storage()._cdata if isinstance(value, Tensor) else None


def _storages(nodes: Iterable[fx.Node]) -> set[int | None]:
    return {_storage(node) for node in nodes} - {None}


class _Early:
    """A graph with copies of the nodes that depend on the inputs of another graph alone.

    Attributes:
        copies: node of the other graph -> its copy.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = fx.Graph()
        self.inputs = [node for node in graph.nodes if node.op == "placeholder"]
        self.copies = {node: self.graph.placeholder(node.name) for node in self.inputs}
        self._calls: dict[tuple, fx.Node] = {}  # (function, *arguments) -> its call, which layers share
        self._written = _storages(given for node in graph.nodes for given in written_by(node))

    def copy(self, node: Any) -> Any:
        """Return the copy of a node, made now if need be.

        Returns:
            None if the node depends on more than the edges, or if its memory is written to. Anything but a node is
            returned as it is.
        """
        if not isinstance(node, fx.Node):
            return node
        value = value_of(node)
        if isinstance(value, (int, torch.SymInt)):
            return self._size(value)
        if _storage(node) in self._written:
            return None
        if node not in self.copies:
            function = _early_function(node) or (operator.getitem if _picks(node) else None)
            args = [self.copy(arg) for arg in node.args]
            if function is None or any(
                new is None and old is not None for new, old in zip(args, node.args, strict=True)
            ):
                return None
            call = (function, *args)
            if call not in self._calls:
                self._calls[call] = self.graph.call_function(function, tuple(args))
            self.copies[node] = self._calls[call]
        return self.copies[node]

    def _size(self, size: Any) -> Any:
        """Return a size as a number, or find it among the inputs."""
        if isinstance(size, int):
            return size
        for node in self.inputs:
            value = value_of(node)
            if isinstance(value, torch.SymInt) and value.node.expr == size.node.expr:
                return self.copies[node]
            for dim, known in enumerate(value.shape if isinstance(value, Tensor) else ()):
                if isinstance(known, torch.SymInt) and known.node.expr == size.node.expr:
                    return self.graph.call_method("size", (self.copies[node], dim))
        return None
