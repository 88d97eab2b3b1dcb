"""The ops' expected results in plain torch (gather, scale, scatter), and graphs to compute them on."""

from __future__ import annotations

import torch
from torch import Tensor


def spmm(x: Tensor, weight: Tensor | None, src: Tensor, dst: Tensor, num_dst: int, reduce: str) -> Tensor:
    messages = x.index_select(0, src)
    if weight is not None:
        messages = messages * weight.reshape(weight.shape + (1,) * (x.dim() - weight.dim()))
    index = dst.long().view(-1, *[1] * (x.dim() - 1)).expand_as(messages)
    out = messages.new_zeros(num_dst, *x.shape[1:])
    if reduce in ("max", "min"):
        return out.scatter_reduce(0, index, messages, "a" + reduce, include_self=False)
    out = out.scatter_add(0, index, messages)
    if reduce == "mean":
        count = torch.bincount(dst.long(), minlength=num_dst).clamp(min=1).to(x.dtype)
        out = out / count.view(-1, *[1] * (x.dim() - 1))
    return out


def sddmm(a: Tensor, b: Tensor, src: Tensor, dst: Tensor, head_dims: int) -> Tensor:
    products = a.index_select(0, src) * b.index_select(0, dst)
    dims = list(range(1 + head_dims, products.dim()))
    return products.sum(dims) if dims else products


def edges(kind: str, device: torch.device, dtype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor, int, int]:
    """Return (src, dst, number of sources, number of destinations) of a graph of this kind. All are asymmetric."""
    if kind == "random":  # unsorted, with repeated edges and isolated first and last nodes
        src, dst, n, m = torch.randint(1, 29, (200,)), torch.randint(1, 37, (200,)), 31, 40
    elif kind == "sorted":  # as neighbour samplers produce them
        src, dst, n, m = torch.randint(0, 30, (150,)), torch.randint(0, 20, (150,)).sort().values, 30, 20
    elif kind == "hub":  # one very long row, which a GPU splits, and one just above the threshold for splitting
        dst = torch.cat([torch.full((5000,), 3), torch.full((300,), 7), torch.randint(0, 500, (400,))])
        dst = dst[torch.randperm(dst.numel())]
        src, n, m = torch.randint(0, 700, (dst.numel(),)), 700, 500
    elif kind == "sparse":  # average degree below one
        src, dst, n, m = torch.randint(0, 300, (40,)), torch.randint(0, 300, (40,)), 300, 300
    elif kind == "empty":
        src, dst, n, m = torch.empty(0), torch.empty(0), 5, 6
    else:
        raise ValueError(kind)
    return src.to(device, dtype), dst.to(device, dtype), n, m


KINDS = ("random", "sorted", "hub", "sparse", "empty")
