"""Caches the edge tensors of DGL's graph indices, so that the plan cache recognises them.

DGL returns new edge tensors on every call, and new index objects for the same graph (reverse(), hg["rel"], clone()). A
cached entry belongs to one index object, is found only through that object, and dies with it. Indices that were derived
from each other share their edge tensors, so that the forward and backward passes share plans.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import settings

from .core import Edges

# Keyed by id(), because DGL's indices are not hashable. Known.reference shows whether the object is still the same.
_known: dict[int, Known] = {}


class Ends:
    """The source and destination tensors of one graph.

    Graph indices that were derived from each other share them. They are copies in the order of edge ids, because DGL's
    own tensors are views of the arrays from which the user created the graph. If the user writes to these arrays, DGL
    still computes with the formats that it created earlier, and so must the plans.
    """

    __slots__ = ("_pair",)

    def __init__(self) -> None:
        self._pair: tuple[Tensor, Tensor] | None = None

    def of(self, gidx: Any, swapped: bool) -> tuple[Tensor, Tensor]:
        """Return (src, dst) of gidx.

        Args:
            swapped: whether gidx is the reverse of the index that these tensors were first made for.

        Raises:
            DGLError: the formats of gidx provide no edge list.
        """
        if self._pair is None:
            with torch.inference_mode(False):  # inference tensors have no version and are not recognised
                src, dst, _ = gidx.edges(0, "eid")
                pair = tuple(torch.stack((dst, src) if swapped else (src, dst)))
                torch.ops.gnna.mark_constant(pair[0])  # both rows share a storage, which nobody else can write to
            if self._pair is None:  # if two threads arrive here, the tensors of the first are kept
                self._pair = pair
        return self._pair[::-1] if swapped else self._pair


class Entry:
    """The edges of one graph index.

    The positions 0 .. E - 1 and the in-degrees are created when a call first needs them.
    """

    __slots__ = ("_in_degrees", "_isolated", "_positions", "edges")

    def __init__(self, edges: Edges) -> None:
        self.edges = edges
        self._positions: Tensor | None = None
        self._in_degrees: Tensor | None = None
        self._isolated: tuple[Tensor | None] | None = None

    def in_degrees(self) -> Tensor:
        if self._in_degrees is None:
            with torch.inference_mode(False):
                self._in_degrees = torch.bincount(self.edges.dst, minlength=self.edges.num_dst)
        return self._in_degrees

    def isolated(self) -> Tensor | None:
        """Return which nodes have no in-edges, or None if all have."""
        if self._isolated is None:
            with torch.inference_mode(False):
                found = self.in_degrees() == 0
                self._isolated = (found if bool(found.any()) else None,)
        return self._isolated[0]

    def positions(self) -> Tensor:
        if self._positions is None:
            with torch.inference_mode(False):
                self._positions = torch.arange(
                    self.edges.dst.numel(), dtype=self.edges.dst.dtype, device=self.edges.dst.device
                )
        return self._positions


def _forget(entries: dict[int, Known], key: int, reference: weakref.ref) -> None:
    """Remove the entry of a dead graph index.

    It uses no global name, because graphs also die at interpreter exit, when globals may be gone.
    """
    found = entries.get(key)
    if found is not None and found.reference is reference:  # another index may have this address by now
        del entries[key]


class Known:
    """What is cached of one graph index.

    It is cached because each query to DGL costs a microsecond. num_edges is 0 if there are several edge types.
    """

    __slots__ = ("derived", "ends", "entry", "num_edges", "one_type", "order", "reference", "reverse_of", "small_uses",
                 "swapped")  # fmt: skip

    def __init__(self, gidx: Any, ends: Ends | None = None, swapped: bool = False) -> None:
        self.reference = weakref.ref(gidx, functools.partial(_forget, _known, id(gidx)))
        self.one_type: bool = gidx.number_of_etypes() == 1
        self.num_edges: int = gidx.num_edges(0) if self.one_type else 0
        self.entry: Entry | None = None
        self.order: Any = None  # winners.Order, set by the first max or min
        self.small_uses = 0  # calls that were too small to gain on a graph that is used once
        self.ends = (ends or Ends()) if self.one_type else None
        self.swapped = swapped
        self.derived: dict[tuple, Any] = {}  # (method, *arguments) -> the derived index, which this one owns
        self.reverse_of: weakref.ref | None = None  # weak, because that index owns this one


def _lookup(gidx: Any) -> Known | None:
    found = _known.get(id(gidx))
    return found if found is not None and found.reference() is gidx else None


def known(gidx: Any) -> Known:
    """Return the entry of a graph index, which the first call creates."""
    found = _lookup(gidx)
    if found is None:
        found = _known[id(gidx)] = Known(gidx)
    return found


def edges_of(gidx: Any) -> Entry:
    """Return the edges of a graph index with one edge type.

    Raises:
        DGLError: the formats of gidx provide no edge list.
    """
    found = known(gidx)
    if found.entry is None:
        assert found.ends is not None  # there is one edge type
        src, dst = found.ends.of(gidx, found.swapped)
        src_type, dst_type = gidx.metagraph.find_edge(0)
        found.entry = Entry(Edges(src, dst, gidx.num_nodes(src_type), gidx.num_nodes(dst_type)))
    return found.entry


def derived_hook(original: Callable) -> Callable:
    """Replace HeteroGraphIndex.get_relation_graph or reverse to return one object.

    DGL creates a new index object at every call: get_relation_graph in every update_all, reverse in every backward
    pass. Graph indices are immutable, because a changed graph has a new index, so the first object can be returned
    again.

    An index owns the indices derived from it. A reversed index refers to its original weakly, because otherwise the two
    would keep each other alive.
    """
    name = original.__name__

    @functools.wraps(original)
    def derive(self, *arguments):
        if not settings.active():
            return original(self, *arguments)
        found = known(self)
        if name == "reverse" and found.reverse_of is not None and (source := found.reverse_of()) is not None:
            return source
        key = (name, *arguments)
        made = found.derived.get(key)
        if made is None:
            made = original(self, *arguments)
            link = _known[id(made)] = Known(made, found.ends, found.swapped ^ (name == "reverse"))
            if name == "reverse":
                link.reverse_of = found.reference
            found.derived[key] = made
        return made

    return derive


def combined_hook(original: Callable) -> Callable:
    """Replace dgl.heterograph_index.create_heterograph_from_relations.

    DGL clones and changes graphs with it. The new index returns the relation graphs from which it was created, if these
    are known.
    """

    @functools.wraps(original)
    def combine(metagraph, rel_graphs, num_nodes_per_type):
        made = original(metagraph, rel_graphs, num_nodes_per_type)
        if settings.active():
            links = [_lookup(relation) for relation in rel_graphs]
            if len(links) == 1 and links[0] is not None:
                _known[id(made)] = Known(made, links[0].ends, links[0].swapped)
            for etype, (relation, link) in enumerate(zip(rel_graphs, links, strict=True)):
                if link is not None:
                    known(made).derived["get_relation_graph", etype] = relation
        return made

    return combine


def clear() -> None:
    """Drop the entries of all graphs."""
    _known.clear()
