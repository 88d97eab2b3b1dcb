"""g-SpMM on plain tensors with DGL's semantics: broadcasting, scalar features, empty rows, winners.

Nothing here needs a DGL object, so it can be tested without DGL. Edges are (src, dst) in the order of edge ids, so that
row i of an edge feature belongs to edge i and no permutation is necessary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Edges:
    """The edges of a graph with one edge type.

    src and dst are [E], int32 or int64, in the order of edge ids.
    """

    src: Tensor
    dst: Tensor
    num_src: int
    num_dst: int


@dataclass(frozen=True)
class Operands:
    """The operands of one op.

    They are x [N, *K] and weight [E, *W], W a prefix of K; or x alone; or messages [E, *S] alone.
    """

    x: Tensor | None
    weight: Tensor | None
    messages: Tensor | None
    shape: tuple[int, ...]  # of an output row


def prepare(op: str, u: Tensor | None, e: Tensor | None) -> Operands | str:
    """Convert the operands of copy_lhs (u), copy_rhs (e) or mul (u, e).

    Each has at least two dimensions.

    Returns:
        The operands of the op, or the reason why the op does not support them.
    """
    if op == "copy_lhs" and u is not None:
        return Operands(u, None, None, tuple(u.shape[1:]))
    if op == "copy_rhs" and e is not None:
        return Operands(None, None, e, tuple(e.shape[1:]))
    if op != "mul" or u is None or e is None:
        return f"the binary operation {op}"
    try:
        shape = tuple(torch.broadcast_shapes(u.shape[1:], e.shape[1:]))
    except RuntimeError:
        return "shapes that do not broadcast"  # DGL's own code raises the error
    rank = len(shape)
    u = u.reshape(u.shape[:1] + (1,) * (rank + 1 - u.dim()) + u.shape[1:])
    weight_shape = (1,) * (rank + 1 - e.dim()) + tuple(e.shape[1:])
    shared = rank
    while shared > 0 and weight_shape[shared - 1] == 1:
        shared -= 1
    if weight_shape[:shared] != shape[:shared]:
        return "an edge feature that broadcasts over leading dimensions"
    if tuple(u.shape[1:]) != shape:
        u = u.expand(u.shape[:1] + shape)  # as wide as the output, but still one row per node
    return Operands(u, e.reshape((e.size(0),) + weight_shape[:shared]), None, shape)


def aggregate(edges: Edges, operands: Operands, reduce: str) -> Tensor:
    """Compute the sum or mean, [num_dst, *shape]. An empty row is 0.

    It is differentiable any number of times.
    """
    if operands.messages is not None:
        return torch.ops.gnna.segment_reduce(operands.messages, edges.dst, edges.num_dst, reduce, True)
    return torch.ops.gnna.spmm(operands.x, operands.weight, edges.src, edges.dst, edges.num_dst, reduce, True)


def product(edges: Edges, u: Tensor, v: Tensor, op: str) -> Tensor:
    """Multiply u[src] and v[dst] per edge, for features u [N, *S] and v [M, *S].

    Returns:
        For "mul" the elementwise product, [E, *S]. For "dot" its sum over the last dimension, [E, *S[:-1], 1], or [E]
        for scalar features.
    """
    out = torch.ops.gnna.sddmm(u, v, edges.src, edges.dst, u.dim() - (2 if op == "dot" and u.dim() > 1 else 1), True)
    return out.unsqueeze(-1) if op == "dot" and u.dim() > 1 else out


def edge_softmax(edges: Edges, scores: Tensor, norm_by: str) -> Tensor:
    """Compute the softmax of scores [E, *S] over the edges of each node.

    These are its in-edges, or its out-edges if norm_by is "src".
    """
    index, rows = (edges.src, edges.num_src) if norm_by == "src" else (edges.dst, edges.num_dst)
    return torch.ops.gnna.segment_softmax(scores, index, rows, True)


def extremum(
    edges: Edges, operands: Operands, reduce: str, positions: Tensor | None, last: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute max or min with the winning node and edge, each [num_dst, *shape].

    A row without a winner is -inf (for min: +inf), with node 0 and edge 0. If the graph has no edges, every row is 0.

    Args:
        positions: 0 .. E - 1 in the dtype of the indices, needed for messages alone.
        last: whether the last of equal edges wins, not the first.
    """
    x: Any  # a Tensor, because the operands have either x or messages
    x, src = (operands.x, edges.src) if operands.messages is None else (operands.messages, positions)
    if edges.dst.numel() == 0:
        zeros = x.new_zeros((edges.num_dst, *operands.shape))
        none = torch.zeros(zeros.shape, dtype=edges.dst.dtype, device=zeros.device)
        return zeros, none, none.clone()
    out, node, edge = torch.ops.gnna.spmm_arg(x, operands.weight, src, edges.dst, edges.num_dst, reduce, True, last)
    if out.is_cuda and out.dtype == torch.float16:  # DGL's CUDA kernels start from the largest finite float16 value
        limit = torch.finfo(torch.float16).max
        out = out.clamp(min=-limit) if reduce == "max" else out.clamp(max=limit)
    return out, node, edge


def extremum_in_order(
    edges: Edges, ids: Tensor, operands: Operands, reduce: str, positions: Tensor | None, last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the extremum over edges in another order than that of their ids.

    The order decides ties.

    Args:
        edges: the edges in that order.
        ids: their ids, int64 [E], which are their positions in the operands.
    """
    weight = None if operands.weight is None else operands.weight[ids]
    messages = None if operands.messages is None else operands.messages[ids]
    ordered = Operands(operands.x, weight, messages, operands.shape)
    out, node, edge = extremum(edges, ordered, reduce, positions, last)
    if edge.numel() == 0 or ids.numel() == 0:
        return out, node, edge
    rows = torch.arange(edge.size(0), device=edge.device).view(-1, *(1,) * (edge.dim() - 1))
    places = edge.long()
    nothing_won = edges.dst[places] != rows  # the op then returns edge 0, which is an edge of another row
    edge = ids[places].masked_fill_(nothing_won, 0).to(edge.dtype)
    return out, node if operands.messages is None else edge, edge
