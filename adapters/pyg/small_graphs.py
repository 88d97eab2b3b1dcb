"""Decides which calls are too small for the plug-in, and runs them with little overhead.

Below min_work PyG's own operations are faster even if everything is cached. In a range above it, a plan and cached
results pay only for a graph that is used repeatedly, so a graph is left to PyG until it has been used several times. If
the user gave min_work, there is no such range.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch_geometric import Index

from gnna_plugin import report, settings, surroundings

# Multiple of min_work from which a plan pays at its first use, on a CPU. A graph of 8,000 edges x 64 features that was
# used once took PyG and the plug-in the same time (GIN, GCN, GAT).
_FIRST_USE = 16
# The same threshold for results that depend on the edges alone: edges per element of min_work, at 64 features.
_FIRST_USE_EDGES = _FIRST_USE / 64
# Multiple of min_work from which messages of several operations (lazy_operands.py, lazy_products.py) gain on a GPU. The
# host takes 0.3 to 1 ms longer for a training step of such a layer than for PyG's, which the GPU saves at 20 to 30 M
# elements (H200; benchmarks/layers.py on pubmed).
_COMPOSED = 16
_composed: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()  # layers whose messages were found to be such
COMES_ONCE, below = report.COMES_ONCE, report.below
COMPOSED = f"too small to gain on a GPU from a message of several operations (below {_COMPOSED} x min_work)"
_is_repeated = torch.ops.gnna.is_repeated.default


def too_small(work: int, index: Any, cuda: bool, known: bool = False) -> str | None:
    """Return why messages of this size are left to PyG, or None if a plan pays.

    Args:
        work: elements of the messages, edges times feature width.
        index: the edges, [E] or [2, E]. Checking how often they were used counts as a use.
        known: an earlier check found that a plan pays for this graph, so its uses are not counted again.
    """
    least = settings.current.least_work("cuda" if cuda else "cpu")
    if work < least:
        return below(least)
    if cuda or known or settings.current.min_work is not None or work >= _FIRST_USE * least:
        return None
    if surroundings.saved_tensor_hooks():  # a checkpoint's second pass must take the path of its first
        return COMES_ONCE
    return None if _is_repeated(index.as_tensor() if isinstance(index, Index) else index) else COMES_ONCE


def mark_composed(conv: torch.nn.Module) -> None:
    """Remember that a layer's messages consist of several operations."""
    _composed.add(conv)


def too_small_to_compose(conv: torch.nn.Module, work: int, cuda: bool) -> str | None:
    """Return why gathers of a layer are left to PyG although a plan pays, or None."""
    if not cuda or conv not in _composed or settings.current.min_work is not None:
        return None
    return COMPOSED if work < _COMPOSED * settings.current.least_work("cuda") else None


def is_small(values: Any, index: Any, known: bool) -> bool:
    """Return whether existing messages are too few to be worth a plan."""
    # Under torch.jit.trace sizes are tensors. The caller's next check leaves the call to PyG and gives that reason.
    if not isinstance(values, Tensor) or surroundings.tracing():
        return False
    return too_small(values.numel(), index, values.is_cuda, known) is not None


def is_small_softmax(scores: Tensor) -> bool:
    """Return whether the scores are too few for the plug-in's softmax.

    On a CPU it is faster than PyG's at any size.
    """
    least = settings.current.min_work
    if surroundings.tracing() or (least is None and not scores.is_cuda):
        return False
    return scores.numel() < settings.current.least_work("cuda" if scores.is_cuda else "cpu")


def comes_once(edge_index: Tensor) -> bool:
    """Return whether caching results of these edges would cost more than it saves.

    The check counts as a use of the edges.
    """
    if edge_index.is_cuda or settings.current.min_work is not None:
        return False
    if edge_index.size(-1) >= _FIRST_USE_EDGES * settings.current.least_work("cpu"):
        return False
    return not _is_repeated(edge_index)


def of_call(conv: Any, edge_index: Tensor, given: dict) -> tuple[str | None, bool]:
    """Apply too_small and too_small_to_compose to a whole propagate(edge_index, **given).

    Returns:
        The reason or None, and whether the call has the usual form, with features x [N, F].
    """
    edges, x = edge_index.size(-1), None if surroundings.tracing() else features_of(given)
    if x is None or not edges:
        return None, False
    work = edges * width_of(x)
    usual = x.dim() == 2 and conv.node_dim in (-2, 0) and "x" in given
    reason = too_small(work, edge_index, x.is_cuda) if usual else None
    return reason or too_small_to_compose(conv, work, x.is_cuda), usual


def features_of(given: dict) -> Tensor | None:
    """Return the features x of a call's arguments, or else the first tensor with rows of features among them."""
    for x in (given.get("x"), *(value for name, value in given.items() if name != "edge_index")):
        first = x[0] if type(x) is tuple and x else x
        if type(first) is Tensor and first.dim() >= 2:
            return first
    return None


def width_of(x: Tensor) -> int:
    return x.numel() // max(x.size(0), 1)


def scattered(x: Tensor, rows: Any, dim_size: int | None, dim: int, reduce: str) -> Tensor | Any:
    """Reduce x [E, F] with the operations of PyG's sum, mean, max and min.

    PyG's Python code between them is left out. On a small graph it takes as long as the operations, so this repays the
    plug-in's own checks.

    Returns:
        [dim_size, F], or NotImplemented if this is not the plain case.
    """
    if type(x) is not Tensor or type(rows) is not Tensor or dim_size is None or rows.numel() != x.size(dim):
        return NotImplemented
    if rows.dim() != 1 or x.dim() != 2 or dim not in (0, -2):
        return NotImplemented
    if reduce in ("sum", "mean"):
        out = x.new_zeros((dim_size, x.size(1))).scatter_add_(0, rows.view(-1, 1).expand_as(x), x)
        if reduce == "sum":
            return out
        count = x.new_zeros(dim_size).scatter_add_(0, rows, x.new_ones(x.size(0))).clamp(min=1)
        return out / count.view(-1, 1).expand_as(out)
    if reduce not in ("max", "min") or x.is_cuda:
        return NotImplemented
    out = x.new_zeros((dim_size, x.size(1)))
    return out.scatter_reduce_(0, rows.view(-1, 1).expand_as(x), x, f"a{reduce}", include_self=False)
