"""The aggregation ops for direct use, and what torch's tracing needs to know about them (fake kernels).

The ops live in C++ as torch.ops.gnna.*; their gradients of every order are built there. Each builds or looks up the
plan of its edge list: the CSR form, kept in a cache as long as the index tensors live.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spmm(
    x: Tensor, edge_index: Tensor, weight: Tensor | None = None, num_dst: int | None = None, reduce: str = "sum"
) -> Tensor:
    """Reduces, for every destination node, the features of its sources: out[i] = reduce of weight[e] * x[src[e]].

    Args:
        x: features [N, *S], float32, float64, float16 or bfloat16 (computed in float32, rounded once), CPU or CUDA.
        edge_index: [2, E], int32 or int64; row 0 holds the source and row 1 the destination of every edge.
        weight: [E, *W] of x's dtype, W a prefix of S: [E] one weight per edge, [E, H] against [N, H, D] one per head,
            [E, F] against [N, F] one per feature; None for ones.
        num_dst: number of output rows; None for N.
        reduce: "sum", "mean", "max" or "min". A row without edges is 0; max and min propagate NaN and share the
            gradient among equal messages, as torch.scatter_reduce does.

    Returns:
        [num_dst, *S]. The same program gives the same bits on every run.

    Raises:
        ValueError: an index out of range (names its position, value and limit), shapes that do not fit, an unknown
            reduce.
        TypeError: dtypes that are not supported.

    >>> import torch, gnna_plugin
    >>> gnna_plugin.spmm(torch.eye(3), torch.tensor([[0, 1], [2, 2]]))
    tensor([[0., 0., 0.],
            [0., 0., 0.],
            [1., 1., 0.]])
    """
    src, dst = _ends(edge_index)
    return torch.ops.gnna.spmm(
        x, weight, src, dst, x.size(0) if num_dst is None else num_dst, reduce, not torch.compiler.is_compiling()
    )


def spmm_csr(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    weight: Tensor | None = None,
    perm: Tensor | None = None,
    reduce: str = "sum",
) -> Tensor:
    """spmm for a graph that is already in CSR form: row i reduces x[col[k]] for k from rowptr[i] to rowptr[i + 1].

    No plan is built: the CSR form is used as it is, and its edges are listed once for the backward pass. As long as
    rowptr and col live, they are recognised again.

    Args:
        x: features [N, *S], as spmm's.
        rowptr: [M + 1], ascending from 0 to E; col: [E], below N; both int32 or both int64.
        weight: [E, *W] as spmm's, in the order of col, or where perm is given in the order that it points to.
        perm: [E], int32 or int64: weight[perm[k]] belongs to col[k], as DGL and SparseTensor number edges. It must be a
            permutation.
        reduce: as spmm's.

    Returns:
        [M, *S].

    Raises:
        ValueError, TypeError: as spmm, and for what is no CSR form.

    >>> import torch, gnna_plugin
    >>> gnna_plugin.spmm_csr(torch.eye(3), torch.tensor([0, 2, 2]), torch.tensor([0, 1]))
    tensor([[1., 1., 0.],
            [0., 0., 0.]])
    """
    cache = not torch.compiler.is_compiling()
    row, column = torch.ops.gnna.edges_of_csr(rowptr, col, perm, x.size(0), cache)
    return torch.ops.gnna.spmm(x, weight, column, row, rowptr.size(0) - 1, reduce, cache)


def spmm_csc(
    x: Tensor,
    colptr: Tensor,
    row: Tensor,
    weight: Tensor | None = None,
    perm: Tensor | None = None,
    num_dst: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """spmm for a graph in CSC form: source j carries x[j] to row[k] for k from colptr[j] to colptr[j + 1].

    The form given serves the backward pass; the forward pass builds the plan by destination once. Arguments, result
    [num_dst, *S] (default: N rows) and errors are spmm_csr's with the two sides exchanged.
    """
    cache = not torch.compiler.is_compiling()
    num_dst = x.size(0) if num_dst is None else num_dst
    column, dst = torch.ops.gnna.edges_of_csr(colptr, row, perm, num_dst, cache)
    if colptr.size(0) - 1 != x.size(0):
        raise ValueError(
            f"colptr has {colptr.size(0)} elements for {x.size(0)} sources; it must have one more than those"
        )
    return torch.ops.gnna.spmm(x, weight, column, dst, num_dst, reduce, cache)


def sddmm(a: Tensor, b: Tensor, edge_index: Tensor, head_dims: int = 0) -> Tensor:
    """Dot product of both ends of every edge: out[e] = sum of a[src[e]] * b[dst[e]] over all but the first head_dims
    feature dimensions.

    Args:
        a: [N, *S] and b: [M, *S], one dtype (as spmm's) and device.
        edge_index: [2, E], int32 or int64, as in spmm.
        head_dims: how many leading dimensions of S the result keeps; 1 for [N, H, D] gives [E, H].

    Raises:
        ValueError, TypeError: as spmm.
    """
    src, dst = _ends(edge_index)
    return torch.ops.gnna.sddmm(a, b, src, dst, head_dims, not torch.compiler.is_compiling())


def clear_cache() -> None:
    """Drops every cached plan; the next call with an edge list builds its plan again."""
    torch.ops.gnna.clear_cache()


def release_captures() -> None:
    """Gives back what captured CUDA graphs read of the plug-in's memory. No such graph may be replayed afterwards.

    A graph does not tell when it ends, so its plans and normalised weights are held until this call.
    """
    torch.ops.gnna.release_captures()


def _ends(edge_index: Tensor) -> tuple[Tensor, Tensor]:
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"edge_index has shape {list(edge_index.shape)}; it must be [2, number of edges]")
    return edge_index[0], edge_index[1]


# Where a graph is traced rather than run, only shapes are computed. Index values are checked when the op runs.


@torch.library.register_fake("gnna::spmm")
def _(
    x: Tensor, weight: Tensor | None, src: Tensor, dst: Tensor, num_dst: int, reduce: str, cache: bool = True
) -> Tensor:
    return x.new_empty((num_dst, *x.shape[1:]))


@torch.library.register_fake("gnna::spmm_arg")
def _(
    x: Tensor,
    weight: Tensor | None,
    src: Tensor,
    dst: Tensor,
    num_dst: int,
    reduce: str,
    cache: bool = True,
    last: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    out = x.new_empty((num_dst, *x.shape[1:]))
    return out, src.new_empty(out.shape), src.new_empty(out.shape)


@torch.library.register_fake("gnna::edges_of_csr")
def _(rowptr: Tensor, col: Tensor, perm: Tensor | None, num_cols: int, cache: bool = True) -> tuple[Tensor, Tensor]:
    return torch.empty_like(col), torch.empty_like(col)


@torch.library.register_fake("gnna::segment_reduce")
def _(messages: Tensor, index: Tensor, num_rows: int, reduce: str, cache: bool = True) -> Tensor:
    return messages.new_empty((num_rows, *messages.shape[1:]))


@torch.library.register_fake("gnna::gather_rows")
def _(x: Tensor, index: Tensor, cache: bool = True) -> Tensor:
    return x.new_empty((index.shape[0], *x.shape[1:]))


@torch.library.register_fake("gnna::scatter_rows")
def _(messages: Tensor, index: Tensor, num_rows: int, cache: bool = True) -> Tensor:
    return messages.new_empty((num_rows, *messages.shape[1:]))


@torch.library.register_fake("gnna::segment_softmax")
def _(scores: Tensor, index: Tensor, num_rows: int, cache: bool = True) -> Tensor:
    return scores.new_empty(scores.shape)


@torch.library.register_fake("gnna::segment_softmax_backward")
def _(grad: Tensor, out: Tensor, index: Tensor, num_rows: int, cache: bool = True) -> Tensor:
    return out.new_empty(out.shape)


@torch.library.register_fake("gnna::sddmm")
def _(a: Tensor, b: Tensor, src: Tensor, dst: Tensor, head_dims: int = 0, cache: bool = True) -> Tensor:
    return a.new_empty((src.shape[0], *a.shape[1 : 1 + head_dims]))


@torch.library.register_fake("gnna::extremum_backward")
def _(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    out: Tensor,
    src: Tensor,
    dst: Tensor,
    with_weight: bool,
    cache: bool = True,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(weight.shape if with_weight and weight is not None else (0,))


@torch.library.register_fake("gnna::mean_divisor")
def _(like: Tensor, src: Tensor, dst: Tensor, num_src: int, num_dst: int, cache: bool = True) -> Tensor:
    return like.new_empty((num_dst,), dtype=torch.promote_types(like.dtype, torch.float32))


@torch.library.register_fake("gnna::lift")
def _(x: Tensor, weight: Tensor | None, src: Tensor) -> Tensor:
    return x.new_empty((1,)).expand(src.shape[0], *x.shape[1:])
