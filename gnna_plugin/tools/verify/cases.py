"""Runs the plug-in's ops on random inputs, and judges every element against reference.py.

An element is right if its error is at most tolerance * scale. The scale is the sum of the absolute values of the terms
that it sums, so that cancellation, which no order of summation avoids, does not count as an error. The tolerance of a
sum of n terms is (CONSTANT + FACTOR * sqrt(n)) * u, where u is the unit roundoff of the accumulator, 6e-8 for float32.
If rounding errors are independent with mean 0, those of n additions in any order exceed FACTOR * sqrt(n) * u with a
probability below 1e-13 per element (Higham and Mary, SIAM J. Sci. Comput. 41, 2019). The worst-case bound n * u would
hide a dropped edge of average size in rows of 4,000 edges or more, this one in rows of some 16,000 or more. CONSTANT
covers the products and divisions of a term. Results of 16-bit dtypes are summed in float32 and rounded when they are
stored, which adds STORES * u of the 16-bit dtype.

Inputs of sums are normally distributed, so that wrong weights, rows and edges show (an input of ones would hide them).
Inputs of max and min are multiples of a power of two whose products are exact, so that float64 has the same winners.
They are never 0, because torch's gradient of a maximum of 0 counts the 0 that it starts from as one more equal message.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gnna_plugin.tools.verify import reference
from gnna_plugin.tools.verify.reference import Edges, Exact

FACTOR, CONSTANT, STORES = 8.0, 4.0, 4.0
SOFTMAX_CONSTANT = 32.0  # in place of CONSTANT: the exponential, and the rounding of its argument
HEADS = 4  # heads of the softmax

# The largest integer of the inputs of max and min: the product of two of them is exact.
_LARGEST = {torch.float64: 1 << 26, torch.float32: 4095, torch.float16: 45, torch.bfloat16: 15}


@dataclass(frozen=True)
class Verdict:
    """The verdict on one result.

    Attributes:
        operation: "spmm" or "softmax".
        part: what was checked: "forward", "gradient of x", "gradient of weights" or "gradient".
        reduce: "sum", "mean", "max" or "min", or "" for the softmax.
        weighted: whether every edge has a weight.
        width: features per node, or heads.
        error, tolerance: relative error and tolerance of the element that is closest to its tolerance, or exceeds it
            most.
    """

    operation: str
    part: str
    reduce: str
    weighted: bool
    width: int
    error: float
    tolerance: float

    @property
    def right(self) -> bool:
        return self.error <= self.tolerance


def unit(dtype: torch.dtype) -> float:
    """Return the unit roundoff of a dtype: half of the distance from 1 to the next number."""
    return torch.finfo(dtype).eps / 2


def tolerance(terms: Tensor | float, dtype: torch.dtype, constant: float = CONSTANT) -> Tensor:
    """Return the tolerance of sums of ``terms`` terms, relative to the sum of their absolute values."""
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    found = (constant + FACTOR * torch.as_tensor(terms, dtype=torch.float64).sqrt()) * unit(accumulator)
    return found + STORES * unit(dtype) if dtype.itemsize == 2 else found


def judge(found: Tensor, exact: Exact, allowed: Tensor) -> tuple[float, float]:
    """Return (relative error, tolerance) of the element whose error is largest in units of its tolerance.

    An element that is not finite has an infinite error, and so has one that is not 0 although its terms are.

    Args:
        found: the result that is judged.
        exact: the expected result and the scale of its error, of found's shape.
        allowed: the tolerances, which broadcast to found's shape.
    """
    if found.numel() == 0:
        return 0.0, float(allowed.max()) if allowed.numel() else 0.0
    difference = (found.detach().double() - exact.value).abs_()
    difference.nan_to_num_(nan=math.inf, posinf=math.inf)
    difference[difference <= torch.finfo(found.dtype).smallest_normal] = 0.0  # underflow is no error of a sum
    relative = torch.where(difference == 0, 0.0, difference / exact.scale)
    allowed = allowed.to(relative.device).expand_as(relative)
    worst = (relative / allowed).argmax()
    return float(relative.flatten()[worst]), float(allowed.reshape(-1)[worst])


def spmm_cases(
    edges: Edges, width: int, reduces: list[str], dtype: torch.dtype, generator: torch.Generator
) -> Iterator[list[Verdict]]:
    """Yield the verdicts on spmm and its gradients for every reduction, without and with weights per edge."""
    for reduce in reduces:
        for weighted in (False, True):
            yield _spmm(edges, width, reduce, weighted, dtype, generator)


def _spmm(edges, width, reduce, weighted, dtype, generator) -> list[Verdict]:
    draw = _integers if reduce in ("max", "min") else _normal
    x = draw((edges.nodes, width), dtype, generator).requires_grad_()
    weight = draw(edges.src.shape, dtype, generator).requires_grad_() if weighted else None
    grad = _normal((edges.nodes, width), dtype, generator)
    out = torch.ops.gnna.spmm(x, weight, edges.src, edges.dst, edges.nodes, reduce)
    inputs = [x] if weight is None else [x, weight]
    found = [out, *torch.autograd.grad(out, inputs, grad)]

    bare = [x.detach(), None if weight is None else weight.detach()]
    expected = [reference.reduced(edges, *bare, reduce), *reference.gradients(edges, *bare, reduce, grad)]
    into, out_of = edges.degrees(), Edges(edges.dst, edges.src, edges.nodes).degrees()
    terms = [0.0 if reduce in ("max", "min") else into, out_of, float(width)]
    parts = ["forward", "gradient of x", "gradient of weights"]
    return [
        Verdict("spmm", part, reduce, weighted, width, *judge(have, want, tolerance(count, dtype)))
        for part, have, want, count in zip(parts, found, expected, terms, strict=False)
    ]


def softmax_cases(edges: Edges, dtype: torch.dtype, generator: torch.Generator) -> list[Verdict]:
    """Return the verdicts on segment_softmax and its gradient, for scores of HEADS heads.

    The scores are large, so that their exponentials overflow unless the node's largest score is subtracted first.
    """
    shape = (edges.src.numel(), HEADS)
    scores = (_normal(shape, torch.float32, generator) * 4 + 200).to(dtype).requires_grad_()
    grad = _normal(shape, dtype, generator)
    out = torch.ops.gnna.segment_softmax(scores, edges.dst, edges.nodes)
    (found,) = torch.autograd.grad(out, [scores], grad)
    exact = reference.softmax(edges, scores.detach())
    allowed = tolerance(edges.degrees()[edges.dst], dtype, SOFTMAX_CONSTANT)
    of_scores = reference.gradient_of_scores(edges, exact, grad)
    forward = judge(out, Exact(exact, exact), allowed)
    backward = judge(found, of_scores, 3 * allowed)  # out itself, the inner sum, and their product
    return [
        Verdict("softmax", "forward", "", False, HEADS, *forward),
        Verdict("softmax", "gradient", "", False, HEADS, *backward),
    ]


def _normal(shape, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device).to(dtype)


def _integers(shape, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    largest = _LARGEST[dtype]
    found = torch.randint(0, 2 * largest, shape, generator=generator, device=generator.device) - largest
    found += found >= 0  # never 0: see above
    return (found.double() / 2 ** math.ceil(math.log2(largest))).to(dtype)
