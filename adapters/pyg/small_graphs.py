"""Which calls are too small for the plug-in, and how they pass it by with the least delay.

Below min_work PyG's own operations are faster whatever is remembered. Above it, up to some times as much, a plan and a
memory pay only for a graph that comes again: it is left to PyG until it has come several times. A min_work that the
user gave is taken as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric import Index

from gnna_plugin import settings, surroundings

# A plan pays at its first use from so many times min_work on, on a CPU: a graph of 8,000 edges x 64 took PyG and the
# plug-in the same time when it came once (GIN, GCN, GAT).
_FIRST_USE = 16
# The same for what is remembered of the edges alone, at 64 features: edges per element of min_work.
_FIRST_USE_EDGES = _FIRST_USE / 64
COMES_ONCE = "a small graph that has come only a few times"
BELOW = "below min_work"
_is_repeated = torch.ops.gnna.is_repeated.default


def too_small(work: int, index: Any, cuda: bool, known: bool = False) -> str | None:
    """Why so many elements of messages over this index are left to PyG; None when a plan pays. known: the graph was
    asked about already, and is repeated or large."""
    least = settings.current.least_work("cuda" if cuda else "cpu")
    if work < least:
        return BELOW
    if cuda or known or settings.current.min_work is not None or work >= _FIRST_USE * least:
        return None
    return None if _is_repeated(index.as_tensor() if isinstance(index, Index) else index) else COMES_ONCE


def is_small(values: Any, index: Any, known: bool) -> bool:
    """Whether messages that exist are too few to be worth a plan."""
    # Under torch.jit.trace sizes are tensors; what is asked next says why the plug-in steps aside there.
    if not isinstance(values, Tensor) or surroundings.tracing():
        return False
    return too_small(values.numel(), index, values.is_cuda, known) is not None


def is_small_softmax(scores: Tensor) -> bool:
    """The same for a softmax over edges. On a CPU the plug-in's is three times as fast as PyG's at any size."""
    least = settings.current.min_work
    if surroundings.tracing() or (least is None and not scores.is_cuda):
        return False
    return scores.numel() < settings.current.least_work("cuda" if scores.is_cuda else "cpu")


def comes_once(edge_index: Tensor) -> bool:
    """Whether remembering what follows from these edges alone would cost more than it saves."""
    if edge_index.is_cuda or settings.current.min_work is not None:
        return False
    if edge_index.size(-1) >= _FIRST_USE_EDGES * settings.current.least_work("cpu"):
        return False
    return not _is_repeated(edge_index)


def of_call(edge_index: Tensor, x: Any, node_dim: int) -> tuple[str | None, bool]:
    """too_small for a whole propagate(edge_index, x=x), the usual form of a layer; and whether this was that form."""
    if type(x) is tuple:
        x = x[0]
    if type(x) is not Tensor or x.dim() != 2 or node_dim not in (-2, 0) or surroundings.tracing():
        return None, False
    edges = edge_index.size(-1)
    return (too_small(edges * x.size(1), edge_index, x.is_cuda) if edges else None), True


def scattered(x: Tensor, rows: Any, dim_size: int | None, dim: int, reduce: str) -> Tensor | Any:
    """The operations of PyG's sum, max and min without the Python between them, which takes as long as they do on a
    small graph: it repays what the plug-in's questions cost. NotImplemented for what is not the plain case."""
    if type(x) is not Tensor or type(rows) is not Tensor or dim_size is None or rows.numel() != x.size(dim):
        return NotImplemented
    if rows.dim() != 1 or x.dim() != 2 or dim not in (0, -2):
        return NotImplemented
    if reduce == "sum":
        return x.new_zeros((dim_size, x.size(1))).scatter_add_(0, rows.view(-1, 1).expand_as(x), x)
    if reduce not in ("max", "min") or x.is_cuda:
        return NotImplemented
    out = x.new_zeros((dim_size, x.size(1)))
    return out.scatter_reduce_(0, rows.view(-1, 1).expand_as(x), x, f"a{reduce}", include_self=False)
