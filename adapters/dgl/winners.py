"""Determines which of equal neighbours wins a max or min in DGL, so that ties get the same gradients with the plug-in.

DGL visits a row's neighbours in the order of its CSC. In its libxsmm kernels (CPU, float32 and bfloat16, operands of
one shape) the last of equal neighbours wins, in its other kernels the first.
"""

from __future__ import annotations

import functools
from typing import Any

import dgl
import torch
from torch import Tensor

from .core import Edges


class Order:
    """The order in which DGL visits the neighbours of a graph index.

    Attributes:
        csc: whether DGL computes on its CSC. Otherwise it computes on its COO, where the first of equals wins.
        ids: the edge ids in CSC order, int64 [E], or None if they ascend within every row.
    """

    __slots__ = ("_edges", "csc", "ids")

    def __init__(self, csc: bool, ids: Tensor | None = None) -> None:
        self.csc, self.ids = csc, ids
        self._edges: Edges | None = None

    def edges(self, edges: Edges) -> Edges:
        """Return the same edges in CSC order. Needs ids."""
        if self._edges is None:
            with torch.inference_mode(False):
                src, dst = edges.src[self.ids], edges.dst[self.ids]
            self._edges = Edges(src, dst, edges.num_src, edges.num_dst)
        return self._edges


def order_of(gidx: Any) -> Order:
    """Return the order of a graph index with one edge type.

    Call it before the edges are listed. Listing them makes DGL create a COO, and a CSC created from a COO has another
    order than one created from a CSR.
    """
    formats = gidx.formats()
    created = formats["created"]
    if "csc" not in created:
        if "csc" not in formats["not created"]:
            return Order(csc=False)
        if "coo" in created:
            return Order(csc=True)  # the conversion from COO keeps the order of ids
    with torch.inference_mode(False):
        _, _, indptr, _, ids = gidx.adjacency_matrix_tensors(0, True, "csr")
        if ids.numel() < 2:  # no ids means 0 .. E - 1
            return Order(csc=True)
        descends = ids[1:] < ids[:-1]
        starts = indptr[(indptr > 0) & (indptr < ids.numel())]
        descends[starts.long() - 1] = False
        return Order(csc=True, ids=ids.to(torch.int64, copy=True) if descends.any() else None)


def last_wins(order: Order, operands: list[Tensor]) -> bool:
    """Return whether the last of equal neighbours wins in DGL's own kernel.

    Args:
        operands: the operands that the operation uses.
    """
    tensor = operands[0]
    if tensor.is_cuda or not order.csc or tensor.dtype not in (torch.float32, torch.bfloat16):
        return False
    shapes = {t.shape[1:] or (1,) for t in operands}
    return len(shapes) == 1 and _probe(tensor.dtype, dgl.is_libxsmm_enabled())  # libxsmm does not broadcast


def rounds_first(order: Order, operands: list[Tensor]) -> bool:
    """Return whether DGL rounds products before it compares them.

    Products can then tie that differ in the plug-in's kernels.
    """
    tensor = operands[0]
    is_product = len(operands) == 2
    return is_product and tensor.dtype is torch.bfloat16 and not tensor.is_cuda and not last_wins(order, operands)


@functools.cache
def _probe(dtype: torch.dtype, libxsmm: bool) -> bool:
    """Run DGL's kernel and return whether the last of equal neighbours wins.

    Whether DGL uses libxsmm depends on its build, the processor and dgl.use_libxsmm(). `libxsmm` is part of the cache
    key only.
    """
    from dgl._sparse_ops import _gspmm  # DGL's own, not the replacement; a DGL that install() refuses may lack it

    with torch.inference_mode(False), torch.no_grad():
        ends = torch.tensor([[0, 1], [0, 0]], device="cpu")
        graph = dgl.graph((ends[0], ends[1]), num_nodes=2)
        _, (winner, _) = _gspmm(graph._graph, "copy_lhs", "max", torch.zeros(2, 1, dtype=dtype, device="cpu"), None)
    return bool(winner[0] == 1)
