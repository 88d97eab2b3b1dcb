"""Defines an aggregation that is timed: its function, its random operands, and its float64 result.

Every peer (another library, or torch itself) computes this function of the same operands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 25  # elements of the float64 messages that exist at a time: 256 MiB
_SCATTER = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin"}


class Unsupported(Exception):
    """Raised if a peer has no such operation. The text says what limits the peer."""


@dataclass(frozen=True)
class Problem:
    """The aggregation that is computed, over the edges src -> dst.

    Attributes:
        kind: "spmm", "segment" or "sddmm". The operands of spmm are x [N, F] and, if there is one, the weight [E].
            Those of segment are messages [E, F], those of sddmm a and b [N, F]. With H heads, [N, F] becomes [N, H, F /
            H], [E, F] becomes [E, H, F / H], and the weight is [E, H].
        src, dst: int64 [E].
        num_nodes: number of nodes N.
        width: elements F per node or message.
        reduce: "sum", "mean", "max" or "min".
        weight: "none", "static" (no gradient) or "learned".
        heads: number of heads H.
        dtype: dtype of the operands.
    """

    kind: str
    src: Tensor
    dst: Tensor
    num_nodes: int
    width: int
    reduce: str = "sum"
    weight: str = "none"
    heads: int = 1
    dtype: torch.dtype = torch.float32

    @property
    def edges(self) -> int:
        return self.src.numel()

    def feature_shape(self) -> tuple[int, ...]:
        return (self.width,) if self.heads == 1 else (self.heads, self.width // self.heads)

    def operands(self, seed: int = 0) -> list[Tensor]:
        """Draw random operands from ``seed``.

        Those that are differentiated require a gradient.
        """
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(*shape, generator=generator).to(self.src.device, self.dtype)

        rows = (self.edges if self.kind == "segment" else self.num_nodes, *self.feature_shape())
        if self.kind == "sddmm":
            return [draw(*rows).requires_grad_(), draw(*rows).requires_grad_()]
        found = [draw(*rows).requires_grad_()]
        if self.weight != "none":
            heads = () if self.heads == 1 else (self.heads,)
            found.append(draw(self.edges, *heads).requires_grad_(self.weight == "learned"))
        return found

    def output_shape(self) -> tuple[int, ...]:
        if self.kind == "sddmm":
            return (self.edges,) if self.heads == 1 else (self.edges, self.heads)
        return (self.num_nodes, *self.feature_shape())

    def plain(self, *operands: Tensor) -> Tensor:
        """Compute the function with torch's own gather, product and scatter."""
        if self.kind == "sddmm":
            a, b = operands
            return (a.index_select(0, self.src) * b.index_select(0, self.dst)).sum(-1)
        if self.kind == "segment":
            messages = operands[0]
        else:
            messages = operands[0].index_select(0, self.src)
            if len(operands) > 1:
                messages = messages * operands[1].unsqueeze(-1)
        index = self.dst.view(-1, *(1,) * (messages.dim() - 1)).expand_as(messages)
        zeros = messages.new_zeros(self.num_nodes, *messages.shape[1:])
        return zeros.scatter_reduce(0, index, messages, _SCATTER[self.reduce], include_self=False)


def exact(problem: Problem, operands: list[Tensor], grad: Tensor | None) -> list[Tensor]:
    """Compute the problem in float64, in chunks of feature columns.

    Returns:
        [output] if ``grad`` is None. Otherwise ``grad`` has the output's shape, and the result is the list of gradients
        of the operands that require one.
    """
    last = operands[0].size(-1)
    leading = problem.edges * operands[0][0].numel() // max(last, 1)
    step = max(1, min(last, _CHUNK_ELEMENTS // max(leading, 1)))
    parts: list[list[Tensor]] = []
    for begin in range(0, last, step):
        columns = slice(begin, begin + step)
        # A weight has no feature columns. Every chunk uses all of it, and its gradient is the sum over the chunks.
        cut = [
            t.detach().double() if _is_weight(problem, i) else t.detach()[..., columns].double()
            for i, t in enumerate(operands)
        ]
        if grad is None:
            parts.append([problem.plain(*cut)])
            continue
        leaves = [t.requires_grad_() for t, given in zip(cut, operands, strict=True) if given.requires_grad]
        out = problem.plain(*cut)
        out_grad = grad.double() if problem.kind == "sddmm" else grad[..., columns].double()
        parts.append(list(torch.autograd.grad(out, leaves, out_grad)))
    joined = []
    for i, pieces in enumerate(zip(*parts, strict=True)):
        adds_up = (grad is None and problem.kind == "sddmm") or (grad is not None and _is_weight(problem, i))
        joined.append(sum(pieces) if adds_up else torch.cat(pieces, -1))
    return joined


def _is_weight(problem: Problem, position: int) -> bool:
    return problem.kind == "spmm" and position == 1


def error_of(found: list[Tensor], expected: list[Tensor], by_norm: bool) -> float:
    """Return the largest relative error of any tensor.

    The error of a tensor is max |found - expected| / max |expected|. The result is nan if any error is nan. ``by_norm``
    compares Euclidean norms instead of maxima. It is for gradients of max and min: among millions of maxima, a few are
    so close that rounding selects another winner, which then gets the gradient.
    """
    worst = 0.0
    for have, want in zip(found, expected, strict=True):
        difference = have.detach().double().reshape(want.shape) - want
        size = torch.linalg.vector_norm if by_norm else (lambda t: t.abs().max())
        error = float(size(difference) / size(want).clamp(min=1e-300)) if want.numel() else 0.0
        worst = error if error != error else max(worst, error)
        if worst != worst:
            break
    return worst


Peer = Callable[[Problem], Callable[..., Tensor]]
