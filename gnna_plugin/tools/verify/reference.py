"""The expected results in float64, by torch's index_add_ and scatter_reduce_ on the plain list of edges.

Nothing here uses the plug-in's kernels, plans or formulas for gradients. Messages exist for a chunk of edges at a time,
so that memory is bounded by the arrays of the nodes, the result and one chunk.

Every function returns the exact value and the scale of its rounding error, which cases.py multiplies by a tolerance:
for a sum, the sum of the absolute values of its terms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 23  # elements of the float64 messages that exist at a time: 64 MiB


class Exact(NamedTuple):
    """An expected result, float64, and the scale of its rounding error, of the same shape."""

    value: Tensor
    scale: Tensor


class Edges(NamedTuple):
    """The edges src -> dst, int64 [E], of a graph with ``nodes`` nodes."""

    src: Tensor
    dst: Tensor
    nodes: int

    def chunks(self, width: int) -> Iterator[slice]:
        """Yield slices of the edges, whose messages of ``width`` elements fit CHUNK_ELEMENTS."""
        step = max(1, CHUNK_ELEMENTS // max(width, 1))
        for begin in range(0, self.src.numel(), step):
            yield slice(begin, begin + step)

    def degrees(self) -> Tensor:
        """Return the number of edges into every node, float64 [N, 1]."""
        return torch.bincount(self.dst, minlength=self.nodes).double()[:, None]


def reduced(edges: Edges, x: Tensor, weight: Tensor | None, reduce: str) -> Exact:
    """Reduce weight * x[src] by destination: the forward pass. x: [N, F]; weight: [E] or None."""
    if reduce in ("max", "min"):
        value = _extreme(edges, x, weight, reduce)
        return Exact(value, value.abs())
    value, scale = (_summed(edges.dst, edges.src, edges, x, weight, absolute) for absolute in (False, True))
    if reduce == "mean":
        count = edges.degrees().clamp_(min=1)
        value, scale = value / count, scale / count
    return Exact(value, scale)


def gradient_of_features(edges: Edges, x: Tensor, weight: Tensor | None, reduce: str, grad: Tensor) -> Exact:
    """Return the gradient with respect to x for the gradient ``grad`` [N, F] of the result."""
    if reduce in ("max", "min"):
        return _winners(edges, x, weight, reduce, grad)[0]
    grad = _per_edge_gradient(edges, reduce, grad)
    return Exact(*(_summed(edges.src, edges.dst, edges, grad, weight, absolute) for absolute in (False, True)))


def gradient_of_weights(edges: Edges, x: Tensor, weight: Tensor, reduce: str, grad: Tensor) -> Exact:
    """Return the gradient with respect to weight [E] for the gradient ``grad`` [N, F] of the result."""
    if reduce in ("max", "min"):
        return _winners(edges, x, weight, reduce, grad)[1]
    grad = _per_edge_gradient(edges, reduce, grad)
    value = torch.empty(edges.src.shape, dtype=torch.float64, device=x.device)
    scale = torch.empty_like(value)
    for part in edges.chunks(x.size(1)):
        products = x[edges.src[part]].double() * grad[edges.dst[part]]
        value[part], scale[part] = products.sum(1), products.abs_().sum(1)
    return Exact(value, scale)


def softmax(edges: Edges, scores: Tensor) -> Tensor:
    """Return the softmax of scores [E, H] over the edges into every node, float64."""
    heads = scores.size(1)
    index = edges.dst[:, None]
    largest = torch.full((edges.nodes, heads), -torch.inf, dtype=torch.float64, device=scores.device)
    total = torch.zeros_like(largest)
    out = torch.empty(scores.shape, dtype=torch.float64, device=scores.device)
    for part in edges.chunks(heads):
        largest.scatter_reduce_(0, index[part].expand(-1, heads), scores[part].double(), "amax")
    for part in edges.chunks(heads):
        out[part] = (scores[part].double() - largest[edges.dst[part]]).exp_()
        total.index_add_(0, edges.dst[part], out[part])
    for part in edges.chunks(heads):
        out[part] /= total[edges.dst[part]]
    return out


def gradient_of_scores(edges: Edges, out: Tensor, grad: Tensor) -> Exact:
    """Return the gradient with respect to the scores: out * (grad - sum over the node's edges of out * grad).

    Args:
        out: softmax(edges, scores), [E, H].
        grad: gradient of the softmax, [E, H].
    """
    inner = torch.zeros(edges.nodes, out.size(1), dtype=torch.float64, device=out.device)
    absolute = torch.zeros_like(inner)
    products = out * grad.double()
    inner.index_add_(0, edges.dst, products)
    absolute.index_add_(0, edges.dst, products.abs_())
    wide = grad.double()
    return Exact(out * (wide - inner[edges.dst]), out * (wide.abs() + absolute[edges.dst]))


# ---- sums ------------------------------------------------------------------------------------------------------------


def _messages(edges: Edges, part: slice, x: Tensor, weight: Tensor | None, ends: Tensor) -> Tensor:
    found = x[ends[part]].double()
    return found if weight is None else found * weight[part].double()[:, None]


def _summed(into: Tensor, ends: Tensor, edges: Edges, x: Tensor, weight: Tensor | None, absolute: bool) -> Tensor:
    """Sum weight * x[ends], or the absolute values, by ``into``."""
    out = torch.zeros(edges.nodes, x.size(1), dtype=torch.float64, device=x.device)
    for part in edges.chunks(x.size(1)):
        messages = _messages(edges, part, x, weight, ends)
        out.index_add_(0, into[part], messages.abs_() if absolute else messages)
    return out


def _per_edge_gradient(edges: Edges, reduce: str, grad: Tensor) -> Tensor:
    """Return the gradient of a message of every node, float64 [N, F]."""
    return grad.double() / edges.degrees().clamp_(min=1) if reduce == "mean" else grad.double()


# ---- max and min -----------------------------------------------------------------------------------------------------


def _extreme(edges: Edges, x: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    start = -torch.inf if reduce == "max" else torch.inf
    out = torch.full((edges.nodes, x.size(1)), start, dtype=torch.float64, device=x.device)
    for part in edges.chunks(x.size(1)):
        messages = _messages(edges, part, x, weight, edges.src)
        out.scatter_reduce_(0, edges.dst[part][:, None].expand_as(messages), messages, "a" + reduce)
    return out.masked_fill_(edges.degrees() == 0, 0.0)


def _winners(edges: Edges, x: Tensor, weight: Tensor | None, reduce: str, grad: Tensor) -> tuple[Exact, Exact]:
    """Return the gradients with respect to x and weight. Equal messages share the gradient of their maximum equally."""
    out = _extreme(edges, x, weight, reduce)
    count, width = torch.zeros_like(out), x.size(1)
    for part in edges.chunks(width):
        wins = _messages(edges, part, x, weight, edges.src) == out[edges.dst[part]]
        count.index_add_(0, edges.dst[part], wins.double())
    of_x = Exact(torch.zeros(x.shape, dtype=torch.float64, device=x.device), torch.zeros_like(out))
    of_weight = Exact(*(torch.zeros(edges.src.shape, dtype=torch.float64, device=x.device) for _ in range(2)))
    for part in edges.chunks(width):
        src, dst = edges.src[part], edges.dst[part]
        wins = _messages(edges, part, x, weight, edges.src) == out[dst]
        share = torch.where(wins, grad[dst].double() / count[dst].clamp(min=1), 0.0)
        to_x = share if weight is None else share * weight[part].double()[:, None]
        of_x.value.index_add_(0, src, to_x)
        of_x.scale.index_add_(0, src, to_x.abs())
        products = share * x[src].double()
        of_weight.value[part], of_weight.scale[part] = products.sum(1), products.abs_().sum(1)
    return of_x, of_weight
