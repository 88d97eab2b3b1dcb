"""Names that programs of both frameworks may use: data from fixed seeds, small functions and containers."""

from __future__ import annotations

import collections
import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NODES, EDGES = 9, 30
Pair = collections.namedtuple("Pair", "i j")


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad * ctx.saved_tensors[0]


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return x * 2.0 + 1.0


def generator(name: str) -> torch.Generator:
    """Return a generator that depends on the name only, not on the order in which a program uses names."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def edges(k: int) -> Tensor:
    """Return the k-th edge list, int64 [2, EDGES], with repeated edges and self-loops. The last node is isolated."""
    return torch.randint(0, NODES - 1, (2, EDGES), generator=generator(f"edges {k}"))


def features(name: str, width: int, dtype: torch.dtype, coarse: bool) -> Tensor:
    values = torch.randn(NODES, width, generator=generator(name), dtype=torch.float64)
    return ((values * 2).round() / 2 if coarse else values).to(dtype)


def weights(name: str, dtype: torch.dtype) -> Tensor:
    return (torch.rand(EDGES, generator=generator(name), dtype=torch.float64) + 0.25).to(dtype)


def twice(grad: Tensor) -> Tensor:
    return grad * 2


def half(module: Any, args: Any, out: Tensor) -> Tensor:
    """Halve a layer's output, as a forward hook."""
    return out * 0.5


def halved(function: Callable) -> Callable:
    """Return a function that halves the result of `function`, to replace a method of an instance."""
    return lambda *args, **kwargs: 0.5 * function(*args, **kwargs)


class Namespace(dict):
    """The globals of a program. A name that is read before it is assigned gets its value from its maker, once."""

    def __init__(self, makers: dict[str, Callable[[], Any]], **names: Any) -> None:
        super().__init__(names)
        self._makers = makers

    def __missing__(self, name: str) -> Any:
        if name not in self._makers:
            raise KeyError(name)
        torch.default_generator.manual_seed(zlib.crc32(name.encode()))  # torch.manual_seed() takes milliseconds
        with torch.inference_mode(False), torch.enable_grad():  # in whatever mode a program first reads the name
            value = self[name] = self._makers[name]()
        return value
