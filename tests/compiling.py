"""A backend of torch.compile for tests, which records what it compiles."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.backends.registry import lookup_backend

OLD = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11)
MARKS = [
    pytest.mark.skipif(OLD, reason="this dynamo passes its graphs on in another way"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("nothing_compiled"),
]


class Recorder:
    """A backend that records the ops of the plug-in in every graph that it compiles."""

    def __init__(self, backend="aot_eager"):
        self.backend, self.graphs = lookup_backend(backend), []

    def __call__(self, gm, example_inputs):
        self.graphs.append([n.target for n in gm.graph.nodes if n.op == "call_function"])
        return self.backend(gm, example_inputs)

    def count(self, *ops):
        return sum(target in (op, op.default) for graph in self.graphs for target in graph for op in ops)


SPMM, SDDMM = torch.ops.gnna.spmm, torch.ops.gnna.sddmm


def assert_same(found, expected, rtol=1e-9, atol=1e-11):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
