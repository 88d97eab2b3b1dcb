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

# Elements of the float64 messages that exist at a time. On a CPU, chunks that fit the cache are twice as fast.
CHUNK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 25}


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
        step = max(1, CHUNK_ELEMENTS[self.src.device.type] // max(width, 1))
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


def gradients(edges: Edges, x: Tensor, weight: Tensor | None, reduce: str, grad: Tensor) -> list[Exact]:
    """Return the gradients with respect to x and, if there is one, weight, for the gradient ``grad`` of the result."""
    if reduce in ("max", "min"):
        return _gradients_of_winners(edges, x, weight, reduce, grad)
    grad = grad.double() / edges.degrees().clamp_(min=1) if reduce == "mean" else grad.double()
    found = [Exact(*(_summed(edges.src, edges.dst, edges, grad, weight, absolute) for absolute in (False, True)))]
    if weight is not None:
        of_weight = _zeros(edges.src)
        for part in edges.chunks(x.size(1)):
            products = x[edges.src[part]].double() * grad[edges.dst[part]]
            of_weight.value[part], of_weight.scale[part] = products.sum(1), products.abs_().sum(1)
        found.append(of_weight)
    return found


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


def _zeros(like: Tensor) -> Exact:
    """Return an Exact of zeros in the shape of a tensor, on its device."""
    return Exact(*(torch.zeros(like.shape, dtype=torch.float64, device=like.device) for _ in range(2)))


# ---- max and min -----------------------------------------------------------------------------------------------------


def _extreme(edges: Edges, x: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    start = -torch.inf if reduce == "max" else torch.inf
    out = torch.full((edges.nodes, x.size(1)), start, dtype=torch.float64, device=x.device)
    for part in edges.chunks(x.size(1)):
        messages = _messages(edges, part, x, weight, edges.src)
        out.scatter_reduce_(0, edges.dst[part][:, None].expand_as(messages), messages, "a" + reduce)
    return out.masked_fill_(edges.degrees() == 0, 0.0)


def _gradients_of_winners(edges: Edges, x: Tensor, weight: Tensor | None, reduce: str, grad: Tensor) -> list[Exact]:
    """As gradients(). The messages that equal a row's maximum share its gradient equally."""
    out = _extreme(edges, x, weight, reduce)
    count, width = torch.zeros_like(out), x.size(1)
    for part in edges.chunks(width):
        wins = _messages(edges, part, x, weight, edges.src) == out[edges.dst[part]]
        count.index_add_(0, edges.dst[part], wins.double())
    shares = grad.double() / count.clamp_(min=1)
    of_x, of_weight = _zeros(x), _zeros(edges.src)
    for part in edges.chunks(width):
        src, dst = edges.src[part], edges.dst[part]
        won = shares[dst].mul_(_messages(edges, part, x, weight, edges.src) == out[dst])
        to_x = won if weight is None else won * weight[part].double()[:, None]
        of_x.value.index_add_(0, src, to_x)
        of_x.scale.index_add_(0, src, to_x.abs())
        if weight is not None:
            products = won.mul_(x[src])
            of_weight.value[part], of_weight.scale[part] = products.sum(1), products.abs_().sum(1)
    return [of_x] if weight is None else [of_x, of_weight]
