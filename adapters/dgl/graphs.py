"""The edge tensors of DGL's graph indices, remembered so that the plan cache recognises them.

DGL returns new tensors on every call and new index objects of one graph (reverse(), hg["rel"], clone()). What is
remembered belongs to an index object, is found only through that very object and dies with it. Indices that were
derived from each other share their edge tensors, so that forward and backward passes share plans.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import settings
from gnna_plugin.adapters.dgl.core import Edges

# By id(), and Known.reference proves that the object is the same: DGL's indices have no hash.
_known: dict[int, Known] = {}


class Ends:
    """The source and destination tensors of one graph, shared by the indices that were derived from each other.

    They are copies in the order of edge ids. DGL's own are views of the arrays that the graph was made from, and writes
    of the user to these arrays do not reach the formats that DGL computes with.
    """

    __slots__ = ("_pair",)

    def __init__(self) -> None:
        self._pair: tuple[Tensor, Tensor] | None = None

    def of(self, gidx: Any, swapped: bool) -> tuple[Tensor, Tensor]:
        """(src, dst) of gidx; swapped: gidx is reversed. Raises DGLError if its formats allow no list of edges."""
        if self._pair is None:
            with torch.inference_mode(False):  # inference tensors have no version and are not recognised
                src, dst, _ = gidx.edges(0, "eid")
                pair = tuple(torch.stack((dst, src) if swapped else (src, dst)))
                torch.ops.gnna.mark_constant(pair[0])  # and with it the other row: nobody else has them
            if self._pair is None:  # of two threads, the first one's stay
                self._pair = pair
        return self._pair[::-1] if swapped else self._pair


class Entry:
    """The edges of one graph index, and 0 .. E - 1 once a call needs it."""

    __slots__ = ("_positions", "edges")

    def __init__(self, edges: Edges) -> None:
        self.edges = edges
        self._positions: Tensor | None = None

    def positions(self) -> Tensor:
        if self._positions is None:
            with torch.inference_mode(False):
                self._positions = torch.arange(
                    self.edges.dst.numel(), dtype=self.edges.dst.dtype, device=self.edges.dst.device
                )
        return self._positions


def _forget(entries: dict[int, Known], key: int, reference: weakref.ref) -> None:
    """Removes what belonged to a dead graph index. Uses no global name: graphs also die at interpreter exit."""
    found = entries.get(key)
    if found is not None and found.reference is reference:  # another index may live at this address by now
        del entries[key]


class Known:
    """What is remembered of one graph index: asking DGL costs a microsecond each time. num_edges is 0 if there are
    several edge types."""

    __slots__ = ("derived", "ends", "entry", "num_edges", "one_type", "order", "reference", "reverse_of", "swapped")

    def __init__(self, gidx: Any, ends: Ends | None = None, swapped: bool = False) -> None:
        self.reference = weakref.ref(gidx, functools.partial(_forget, _known, id(gidx)))
        self.one_type: bool = gidx.number_of_etypes() == 1
        self.num_edges: int = gidx.num_edges(0) if self.one_type else 0
        self.entry: Entry | None = None
        self.order: Any = None  # winners.Order, once a max or min asks for it
        self.ends = (ends or Ends()) if self.one_type else None
        self.swapped = swapped
        self.derived: dict[tuple, Any] = {}  # indices that this one owns, by method and arguments
        self.reverse_of: weakref.ref | None = None  # weak, because that index owns this one


def _lookup(gidx: Any) -> Known | None:
    found = _known.get(id(gidx))
    return found if found is not None and found.reference() is gidx else None


def known(gidx: Any) -> Known:
    """Sizes of a graph index, cheaply."""
    found = _lookup(gidx)
    if found is None:
        found = _known[id(gidx)] = Known(gidx)
    return found


def edges_of(gidx: Any) -> Entry:
    """The edges of a graph index with one edge type. Raises DGLError if its formats allow no list of edges."""
    found = known(gidx)
    if found.entry is None:
        assert found.ends is not None  # there is one edge type
        src, dst = found.ends.of(gidx, found.swapped)
        src_type, dst_type = gidx.metagraph.find_edge(0)
        found.entry = Entry(Edges(src, dst, gidx.num_nodes(src_type), gidx.num_nodes(dst_type)))
    return found.entry


def derived_hook(original: Callable) -> Callable:
    """HeteroGraphIndex.get_relation_graph, which update_all calls every time, or reverse, which every backward pass
    calls: the same index object is returned each time. Graph indices do not change; a changed graph has another one.

    An index owns what was derived from it. A reversed index refers to its original weakly, or neither would ever die.
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
    """dgl.heterograph_index.create_heterograph_from_relations, by which graphs are cloned and changed: the new index
    returns the relation graphs that it was made from, if these are known."""

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
    """Forgets all graphs."""
    _known.clear()
