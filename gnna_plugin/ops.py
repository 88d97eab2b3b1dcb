"""The aggregation ops for direct use, and their fake kernels, which torch needs for tracing.

The ops are implemented in C++ as torch.ops.gnna.*, with gradients of every order. Each call looks up or builds the plan
of its edge list, which is the list's CSR form. Plans stay in a cache as long as the index tensors live.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor


def spmm(
    x: Tensor, edge_index: Tensor, weight: Tensor | None = None, num_dst: int | None = None, reduce: str = "sum"
) -> Tensor:
    """Reduce the features of every node's in-neighbours.

    Row i of the result reduces weight[e] * x[src[e]] over the edges e with dst[e] = i.

    Args:
        x: features [N, *S] on CPU or CUDA, of dtype float32, float64, float16 or bfloat16. 16-bit features are computed
            in float32 and rounded once.
        edge_index: [2, E], int32 or int64; row 0 holds the source and row 1 the destination of every edge.
        weight: [E, *W] of x's dtype, where W is a prefix of S. [E] is one weight per edge, [E, H] with x [N, H, D] one
            per head, [E, F] with x [N, F] one per feature. None means ones.
        num_dst: number of output rows; None means N.
        reduce: "sum", "mean", "max" or "min". A row without edges is 0. max and min propagate NaN and divide the
            gradient equally among equal messages, as torch.scatter_reduce does.

    Returns:
        [num_dst, *S]. Repeated runs of the same program give the same bits.

    Raises:
        ValueError: an index is out of range (the text gives its position, value and limit), the shapes do not match, or
            reduce is unknown.
        TypeError: a dtype is not supported.

    >>> import torch, gnna_plugin
    >>> gnna_plugin.spmm(torch.eye(3), torch.tensor([[0, 1], [2, 2]]))
    tensor([[0., 0., 0.],
            [0., 0., 0.],
            [1., 1., 0.]])
    """
    _check_tensors(x=x, edge_index=edge_index)
    _check_optional(weight=weight)
    src, dst = _ends(edge_index)
    rows = _whole("num_dst", x.size(0) if num_dst is None else num_dst)
    return torch.ops.gnna.spmm(x, weight, src, dst, rows, _name_of(reduce), not torch.compiler.is_compiling())


def spmm_csr(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    weight: Tensor | None = None,
    perm: Tensor | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce the features of in-neighbours for a graph in CSR form.

    Row i of the result reduces x[col[k]] for rowptr[i] <= k < rowptr[i + 1]. The CSR form itself serves as the plan,
    and its edge list is written out once for the backward pass. Both are cached as long as rowptr and col live.

    Args:
        x: features [N, *S], as for spmm.
        rowptr: [M + 1], ascending from 0 to E; int32 or int64.
        col: [E], source ids below N, of rowptr's dtype.
        weight: [E, *W], as for spmm, in the order of col if perm is None.
        perm: [E], int32 or int64, a permutation: weight[perm[k]] is the weight of col[k]. DGL and SparseTensor number
            edges in this way.
        reduce: as for spmm.

    Returns:
        [M, *S].

    Raises:
        ValueError, TypeError: as for spmm; ValueError also if the arguments are no CSR form.

    >>> import torch, gnna_plugin
    >>> gnna_plugin.spmm_csr(torch.eye(3), torch.tensor([0, 2, 2]), torch.tensor([0, 1]))
    tensor([[1., 1., 0.],
            [0., 0., 0.]])
    """
    _check_tensors(x=x, rowptr=rowptr, col=col)
    _check_optional(weight=weight, perm=perm)
    cache = not torch.compiler.is_compiling()
    row, column = torch.ops.gnna.edges_of_csr(rowptr, col, perm, x.size(0), cache)
    return torch.ops.gnna.spmm(x, weight, column, row, rowptr.size(0) - 1, _name_of(reduce), cache)


def spmm_csc(
    x: Tensor,
    colptr: Tensor,
    row: Tensor,
    weight: Tensor | None = None,
    perm: Tensor | None = None,
    num_dst: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce the features of in-neighbours for a graph in CSC form.

    Source j sends x[j] to the rows row[k] for colptr[j] <= k < colptr[j + 1]. The CSC form itself serves as the plan of
    the backward pass. The plan of the forward pass, by destination, is built once.

    Args:
        x: features [N, *S], as for spmm.
        colptr: [N + 1], ascending from 0 to E; int32 or int64.
        row: [E], destination ids below num_dst, of colptr's dtype.
        weight, perm: as for spmm_csr, with row in the place of col.
        num_dst: number of output rows; None means N.
        reduce: as for spmm.

    Returns:
        [num_dst, *S].

    Raises:
        ValueError, TypeError: as for spmm_csr.
    """
    _check_tensors(x=x, colptr=colptr, row=row)
    _check_optional(weight=weight, perm=perm)
    cache = not torch.compiler.is_compiling()
    num_dst = _whole("num_dst", x.size(0) if num_dst is None else num_dst)
    column, dst = torch.ops.gnna.edges_of_csr(colptr, row, perm, num_dst, cache)
    if colptr.size(0) - 1 != x.size(0):
        raise ValueError(
            f"colptr has {colptr.size(0)} elements, but x has {x.size(0)} rows; colptr must have one element more"
        )
    return torch.ops.gnna.spmm(x, weight, column, dst, num_dst, _name_of(reduce), cache)


def sddmm(a: Tensor, b: Tensor, edge_index: Tensor, head_dims: int = 0) -> Tensor:
    """Compute the dot product of the features at both ends of every edge.

    out[e] is the sum of a[src[e]] * b[dst[e]] over all feature dimensions but the first head_dims.

    Args:
        a: [N, *S], features of the sources, of a dtype that spmm supports.
        b: [M, *S], features of the destinations, of a's dtype and device.
        edge_index: [2, E], int32 or int64, as for spmm.
        head_dims: number of leading dimensions of S that the result keeps. With features [N, H, D], 1 gives [E, H].

    Raises:
        ValueError, TypeError: as for spmm.
    """
    _check_tensors(a=a, b=b, edge_index=edge_index)
    src, dst = _ends(edge_index)
    kept = _whole("head_dims", head_dims)
    return torch.ops.gnna.sddmm(a, b, src, dst, kept, not torch.compiler.is_compiling())


def clear_cache() -> None:
    """Drop every cached plan. The next call with an edge list builds its plan again."""
    torch.ops.gnna.clear_cache()


def release_captures() -> None:
    """Release the plug-in's memory that captured CUDA graphs read.

    No graph that was captured with the plug-in may be replayed afterwards. The plug-in cannot see when such a graph is
    destroyed, so it keeps the plans and normalised weights that the graph reads until this call.
    """
    torch.ops.gnna.release_captures()


def _check_tensors(**arguments: Any) -> None:
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            kind = type(value).__module__.partition(".")[0]
            to_do = f"; torch.from_numpy({name}) makes one" if kind == "numpy" else ""
            raise TypeError(f"{name} is of type {type(value).__qualname__}; it must be a torch.Tensor{to_do}")
        if name == "x" and value.dim() == 0:
            raise ValueError("x has no dimensions; the first must count the nodes")


def _check_optional(**arguments: Any) -> None:
    _check_tensors(**{name: value for name, value in arguments.items() if value is not None})


def _whole(name: str, value: Any) -> Any:
    """Return a count as the ops take it. A SymInt of torch.compile stays one."""
    if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
        return value
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    return int(value)


def _name_of(reduce: Any) -> str:
    if not isinstance(reduce, str):
        raise TypeError(f"reduce is {reduce!r}; accepted are 'sum', 'mean', 'max' and 'min'")
    return reduce


def _ends(edge_index: Tensor) -> tuple[Tensor, Tensor]:
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"edge_index has shape {list(edge_index.shape)}; it must be [2, number of edges]")
    return edge_index[0], edge_index[1]


# Fake kernels, which compute shapes only. Index values are checked when the op runs.


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


@torch.library.register_fake("gnna::segment_extremum_backward")
def _(grad: Tensor, messages: Tensor, best: Tensor, index: Tensor, cache: bool = True) -> Tensor:
    return messages.new_empty(messages.shape)


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


def _pair_shape(*operands: Tensor | None) -> Tensor:
    return next(t for t in operands if t is not None)


@torch.library.register_fake("gnna::pair_reduce")
def _(
    rows: Tensor | None, cols: Tensor | None, edges: Tensor | None, weight: Tensor | None, left: Tensor | None,
    right: Tensor | None, src: Tensor, dst: Tensor, num_src: int, num_dst: int, function: str, parameter: float,
    order: int, reduce: str, cache: bool = True,
) -> Tensor:  # fmt: skip
    like = _pair_shape(rows, cols, edges)
    return like.new_empty((num_dst, *like.shape[1:]))


@torch.library.register_fake("gnna::pair_dot")
def _(
    rows: Tensor | None, cols: Tensor | None, edges: Tensor | None, left: Tensor | None, right: Tensor | None,
    src: Tensor, dst: Tensor, num_src: int, num_dst: int, function: str, parameter: float, order: int, head_dims: int,
    cache: bool = True,
) -> Tensor:  # fmt: skip
    like = _pair_shape(rows, cols, edges)
    return like.new_empty((src.shape[0], *like.shape[1 : 1 + head_dims]))


@torch.library.register_fake("gnna::pair_map")
def _(
    rows: Tensor | None, cols: Tensor | None, edges: Tensor | None, weight: Tensor | None, left: Tensor | None,
    right: Tensor | None, src: Tensor, dst: Tensor, num_src: int, num_dst: int, function: str, parameter: float,
    order: int, cache: bool = True,
) -> Tensor:  # fmt: skip
    like = _pair_shape(rows, cols, edges)
    return like.new_empty((src.shape[0], *like.shape[1:]))


@torch.library.register_fake("gnna::mean_divisor")
def _(like: Tensor, src: Tensor, dst: Tensor, num_src: int, num_dst: int, cache: bool = True) -> Tensor:
    return like.new_empty((num_dst,), dtype=torch.promote_types(like.dtype, torch.float32))


@torch.library.register_fake("gnna::lift")
def _(x: Tensor, weight: Tensor | None, src: Tensor) -> Tensor:
    return x.new_empty((1,)).expand(src.shape[0], *x.shape[1:])
