"""g-SpMM on plain tensors, with DGL's meaning of every case: broadcasting, scalar features, empty rows, winners.

No DGL object is needed here, so all of it is testable wherever torch runs. Edges come as (src, dst) in edge-id order:
an edge feature's row is its edge's position, and no permutation is left to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Edges:
    """A graph with one edge type: src and dst [E], int32 or int64, in edge-id order, and the sizes of both sides."""

    src: Tensor
    dst: Tensor
    num_src: int
    num_dst: int


@dataclass(frozen=True)
class Operands:
    """One call in the ops' terms: x [N, *K] and weight [E, *W], W a prefix of K; or x alone; or messages alone."""

    x: Tensor | None
    weight: Tensor | None
    messages: Tensor | None
    shape: tuple[int, ...]  # of an output row


def prepare(op: str, u: Tensor | None, e: Tensor | None) -> Operands | str:
    """The operands of copy_lhs (u), copy_rhs (e) or mul (u, e), each at least 2-D; or why they do not fit."""
    if op == "copy_lhs" and u is not None:
        return Operands(u, None, None, tuple(u.shape[1:]))
    if op == "copy_rhs" and e is not None:
        return Operands(None, None, e, tuple(e.shape[1:]))
    if op != "mul" or u is None or e is None:
        return f"the binary operation {op}"
    try:
        shape = tuple(torch.broadcast_shapes(u.shape[1:], e.shape[1:]))
    except RuntimeError:
        return "shapes that do not broadcast"  # the framework's own code says so to the user
    rank = len(shape)
    u = u.reshape(u.shape[:1] + (1,) * (rank + 1 - u.dim()) + u.shape[1:])
    weight_shape = (1,) * (rank + 1 - e.dim()) + tuple(e.shape[1:])
    shared = rank
    while shared > 0 and weight_shape[shared - 1] == 1:
        shared -= 1
    if weight_shape[:shared] != shape[:shared]:
        return "an edge feature that broadcasts over leading dimensions"
    if tuple(u.shape[1:]) != shape:
        u = u.expand(u.shape[:1] + shape)  # as wide as the output, but only one row per node
    return Operands(u, e.reshape((e.size(0),) + weight_shape[:shared]), None, shape)


def aggregate(edges: Edges, operands: Operands, reduce: str) -> Tensor:
    """Sum or mean, [num_dst, *shape]; differentiable, any order. An empty row is 0."""
    if operands.messages is not None:
        return torch.ops.gnna.segment_reduce(operands.messages, edges.dst, edges.num_dst, reduce, True)
    return torch.ops.gnna.spmm(operands.x, operands.weight, edges.src, edges.dst, edges.num_dst, reduce, True)


def product(edges: Edges, u: Tensor, v: Tensor, op: str) -> Tensor:
    """u[src] times v[dst] per edge, for features [N, *S] and [M, *S]: "mul" element by element, [E, *S]; "dot" summed
    over the last dimension, [E, *S[:-1], 1], of scalar features [E]."""
    out = torch.ops.gnna.sddmm(u, v, edges.src, edges.dst, u.dim() - (2 if op == "dot" and u.dim() > 1 else 1), True)
    return out.unsqueeze(-1) if op == "dot" and u.dim() > 1 else out


def edge_softmax(edges: Edges, scores: Tensor, norm_by: str) -> Tensor:
    """Softmax of scores [E, *S] over the edges that enter each node, or with norm_by "src" that leave it."""
    index, rows = (edges.src, edges.num_src) if norm_by == "src" else (edges.dst, edges.num_dst)
    return torch.ops.gnna.segment_softmax(scores, index, rows, True)


def extremum(
    edges: Edges, operands: Operands, reduce: str, positions: Tensor | None, last: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Max or min with the winning node and edge, each [num_dst, *shape].

    Without edges everything is 0; otherwise a row that nothing won is -inf (min: +inf) and 0, 0.

    Args:
        positions: 0 .. E - 1 in the indices' dtype, needed for messages alone.
        last: the last of equal edges wins, not the first.
    """
    x: Any  # a Tensor: operands hold the one or the other
    x, src = (operands.x, edges.src) if operands.messages is None else (operands.messages, positions)
    if edges.dst.numel() == 0:
        zeros = x.new_zeros((edges.num_dst, *operands.shape))
        none = torch.zeros(zeros.shape, dtype=edges.dst.dtype, device=zeros.device)
        return zeros, none, none.clone()
    out, node, edge = torch.ops.gnna.spmm_arg(x, operands.weight, src, edges.dst, edges.num_dst, reduce, True, last)
    if out.is_cuda and out.dtype == torch.float16:  # DGL's CUDA kernels start at the type's largest finite value
        limit = torch.finfo(torch.float16).max
        out = out.clamp(min=-limit) if reduce == "max" else out.clamp(max=limit)
    return out, node, edge


def extremum_in_order(
    edges: Edges, ids: Tensor, operands: Operands, reduce: str, positions: Tensor | None, last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The extremum over edges whose order is that of ids, in which equal edges are compared.

    Args:
        edges: in the order of ids.
        ids: int64 [E], the positions of these edges in the order of the operands.
    """
    weight = None if operands.weight is None else operands.weight[ids]
    messages = None if operands.messages is None else operands.messages[ids]
    ordered = Operands(operands.x, weight, messages, operands.shape)
    out, node, edge = extremum(edges, ordered, reduce, positions, last)
    if edge.numel() == 0 or ids.numel() == 0:
        return out, node, edge
    rows = torch.arange(edge.size(0), device=edge.device).view(-1, *(1,) * (edge.dim() - 1))
    places = edge.long()
    nothing_won = edges.dst[places] != rows  # the op then returns edge 0, which belongs to another row
    edge = ids[places].masked_fill_(nothing_won, 0).to(edge.dtype)
    return out, node if operands.messages is None else edge, edge
