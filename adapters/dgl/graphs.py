"""From DGL's graph index to edge tensors, kept so that the plan cache recognises them.

DGL hands out fresh tensors over the same buffers on every call, and fresh index objects for the same graph (reverse(),
hg["rel"]). So the edges of an index object are remembered weakly by the object, and beneath that by the buffers'
addresses, with the first tensors held: an address cannot be reused while they are.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import settings
from gnna_plugin.adapters.dgl.core import Edges

_LIMIT = 64  # graphs whose edge tensors are held
# By id, with a weak reference that proves it: DGL's objects have no hash.
_by_object: dict[int, Known] = {}
_derived: dict[int, tuple[weakref.ref, dict[tuple, Any]]] = {}
_by_buffers: OrderedDict[tuple, tuple[Tensor, Tensor]] = OrderedDict()
_lock = threading.Lock()


class Entry:
    """The edges of one graph index, and 0 .. E - 1 once somebody needs it."""

    __slots__ = ("_positions", "edges")

    def __init__(self, edges: Edges) -> None:
        self.edges = edges
        self._positions: Tensor | None = None

    def positions(self) -> Tensor:
        if self._positions is None:
            self._positions = torch.arange(
                self.edges.dst.numel(), dtype=self.edges.dst.dtype, device=self.edges.dst.device
            )
        return self._positions


def _forget(entries: dict, key: int, _reference: weakref.ref) -> None:
    """Takes out what belonged to a dead graph index. Reaches nothing by name: graphs die when Python ends, too."""
    entries.pop(key, None)


class Known:
    """What is remembered of one graph index: asking DGL costs a microsecond each time. num_edges is 0 where there are
    several edge types."""

    __slots__ = ("entry", "num_edges", "one_type", "reference")

    def __init__(self, gidx: Any) -> None:
        self.reference = weakref.ref(gidx, functools.partial(_forget, _by_object, id(gidx)))
        self.one_type: bool = gidx.number_of_etypes() == 1
        self.num_edges: int = gidx.num_edges(0) if self.one_type else 0
        self.entry: Entry | None = None


def known(gidx: Any) -> Known:
    """Sizes of a graph index, cheaply."""
    found = _by_object.get(id(gidx))
    if found is None or found.reference() is not gidx:
        found = _by_object[id(gidx)] = Known(gidx)
    return found


def edges_of(gidx: Any) -> Entry:
    """The edges of a graph index with one edge type. Raises DGLError where its formats allow no list of edges."""
    found = known(gidx)
    if found.entry is None:
        src, dst, _ = gidx.edges(0, "eid")
        src_type, dst_type = gidx.metagraph.find_edge(0)
        found.entry = Entry(Edges(*_held(src, dst), gidx.num_nodes(src_type), gidx.num_nodes(dst_type)))
    return found.entry


def _held(src: Tensor, dst: Tensor) -> tuple[Tensor, Tensor]:
    if src.numel() == 0:
        return src, dst
    forward = (src.data_ptr(), dst.data_ptr(), src.numel(), src.dtype, src.device)
    backward = (dst.data_ptr(), src.data_ptr(), *forward[2:])
    with _lock:
        if forward in _by_buffers:
            _by_buffers.move_to_end(forward)
            return _by_buffers[forward]
        if backward in _by_buffers:  # the reverse of a known graph: the same two tensors, the other way round
            _by_buffers.move_to_end(backward)
            return _by_buffers[backward][::-1]
        _by_buffers[forward] = (src, dst)
        while len(_by_buffers) > _LIMIT:
            _by_buffers.popitem(last=False)
        return src, dst


def derived_hook(original: Callable) -> Callable:
    """A method of HeteroGraphIndex that makes another index of it: get_relation_graph, which update_all calls every
    time, or reverse, which every backward pass does. The same object comes back, so that its edges are known. Graph
    indices do not change; a changed graph has another one."""
    name = original.__name__

    @functools.wraps(original)
    def derive(self, *arguments):
        if not settings.active():
            return original(self, *arguments)
        key = id(self)
        known = _derived.get(key)
        if known is None or known[0]() is not self:
            known = _derived[key] = weakref.ref(self, functools.partial(_forget, _derived, key)), {}
        found = known[1].get((name, arguments))
        if found is None:
            found = known[1][name, arguments] = original(self, *arguments)
        return found

    return derive


def clear() -> None:
    """Lets go of all graphs."""
    with _lock:
        _derived.clear()
        _by_object.clear()
        _by_buffers.clear()
