"""The pair ops, functions of the features of both ends of every edge, against plain torch in float64."""

from __future__ import annotations

from functools import partial

import pytest
import reference
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

FUNCTIONS = {
    "identity": (0.0, lambda z: z),
    "relu": (0.0, F.relu),
    "leaky_relu": (0.2, lambda z: F.leaky_relu(z, 0.2)),
    "square": (0.0, torch.square),
    "exp": (0.0, torch.exp),
    "elu": (1.5, lambda z: F.elu(z, 1.5)),
    "gelu": (0.0, F.gelu),
    "silu": (0.0, F.silu),
    "sigmoid": (0.0, torch.sigmoid),
    "tanh": (0.0, torch.tanh),
}
OPERANDS = ("rows", "cols", "edges", "weight", "left", "right")
# Operands of the calls that the adapters make, and the shapes of their features.
CALLS = (
    ("cols edges", (9,)),
    ("rows cols", (40,)),
    ("rows cols edges weight", (70,)),
    ("rows cols edges weight", (3, 7)),
    ("rows cols weight right", (2, 16)),
    ("rows cols edges left right", (4, 33)),
    ("edges", (5,)),
)


def operands(names, shape, src, n, m, dtype=torch.float64, heads=1):
    """Return a tensor for each operand, None for those that are not named."""
    rows = {"rows": m, "cols": n, "edges": src.numel(), "left": m, "right": n}
    made = {name: torch.randn(count, *shape, dtype=dtype, device=src.device) for name, count in rows.items()}
    made["weight"] = torch.randn(src.numel(), *shape[: len(shape) - 1], dtype=dtype, device=src.device)
    return [made[name] if name in names.split() else None for name in OPERANDS]


def with_dims(weight, dims):
    return weight.reshape(weight.shape + (1,) * (dims - weight.dim()))


def messages(given, src, dst, function, weighted=True):
    rows, cols, edges, weight, left, right = given
    terms = [
        t for t in (None if rows is None else rows[dst], None if cols is None else cols[src], edges) if t is not None
    ]
    value = FUNCTIONS[function][1](sum(terms[1:], terms[0]))
    for factor in (
        None
        if left is None
        else left.expand(int(dst.max()) + 1 if left.size(0) == 1 else left.size(0), *left.shape[1:])[dst],
        None if right is None else right[src],
        with_dims(weight, value.dim()) if weighted and weight is not None else None,
    ):
        value = value if factor is None else value * factor
    return value


def reduce_call(given, src, dst, n, m, function, reduce="sum", order=0):
    return torch.ops.gnna.pair_reduce(*given, src, dst, n, m, function, FUNCTIONS[function][0], order, reduce)


def dot_call(given, src, dst, n, m, function, head_dims):
    rows, cols, edges, _, left, right = given
    parameter = FUNCTIONS[function][0]
    return torch.ops.gnna.pair_dot(rows, cols, edges, left, right, src, dst, n, m, function, parameter, 0, head_dims)


def map_call(given, src, dst, n, m, function):
    return torch.ops.gnna.pair_map(*given, src, dst, n, m, function, FUNCTIONS[function][0], 0)


def reduced(values, dst, m, reduce):
    return reference.spmm(values, None, torch.arange(values.size(0), device=dst.device), dst, m, reduce)


def summed(values, head_dims):
    return values.flatten(1 + head_dims).sum(-1)


def assert_same(given, call, wanted, further=()):
    """Assert that an op's result and the gradients of its operands are those of plain torch."""
    results = []
    for run in (partial(call, **dict(further)), wanted):
        leaves = [None if t is None else t.clone().requires_grad_() for t in given]
        out = run(leaves)
        upstream = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).view(out.shape)
        out.backward(upstream)
        results.append([out.detach(), *(None if t is None or t.grad is None else t.grad for t in leaves)])
    for found, expected in zip(*results, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("names, shape", CALLS)
@pytest.mark.parametrize("kind", ["random", "hub"])
def test_values_and_gradients(device, function, names, shape, kind):
    src, dst, n, m = reference.edges(kind, device)
    given = operands(names, shape, src, n, m)
    calls = (
        (reduce_call, lambda g: reduced(messages(g, src, dst, function), dst, m, "sum"), {}),
        (reduce_call, lambda g: reduced(messages(g, src, dst, function), dst, m, "mean"), {"reduce": "mean"}),
        (
            dot_call,
            lambda g: summed(messages(g, src, dst, function, weighted=False), len(shape) - 1),
            {"head_dims": len(shape) - 1},
        ),
        (map_call, lambda g: messages(g, src, dst, function), {}),
    )
    for call, wanted, further in calls:
        assert_same(given, partial(call, src=src, dst=dst, n=n, m=m, function=function), wanted, further)


@pytest.mark.parametrize("reduce", ["max", "min"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("names", ["cols edges", "rows cols edges", "rows cols"])
def test_extrema_share_gradients_as_torch_does(device, function, reduce, names):
    src, dst, n, m = reference.edges("random", device)
    given = [None if t is None else t.round() for t in operands(names, (2, 5), src, n, m)]  # many ties
    assert_same(
        given,
        partial(reduce_call, src=src, dst=dst, n=n, m=m, function=function, reduce=reduce),
        lambda g: reduced(messages(g, src, dst, function), dst, m, reduce),
    )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_derivatives_of_second_order(device, function):
    src, dst = torch.randint(0, 4, (9,), device=device), torch.randint(0, 3, (9,), device=device)
    given = [t.requires_grad_() for t in operands("rows cols edges weight left right", (2, 3), src, 4, 3)]
    one_left = [*given[:3], torch.randn(1, 2, 3, dtype=torch.float64, device=device, requires_grad=True), given[5]]

    def dot(rows, cols, edges, left, right):
        return dot_call((rows, cols, edges, None, left, right), src, dst, 4, 3, function, 1)

    for run, inputs in (
        (lambda *g: reduce_call(g, src, dst, 4, 3, function), given),
        (lambda *g: map_call(g, src, dst, 4, 3, function), given),
        (dot, one_left),
    ):
        assert gradcheck(run, inputs)
        assert gradgradcheck(run, inputs)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes_round_once(device, function, dtype):
    src, dst, n, m = reference.edges("random", device)
    given = [None if t is None else t.to(dtype) for t in operands("rows cols edges right", (37,), src, n, m)]
    exact = [None if t is None else t.double() for t in given]
    tolerance = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    for found, wanted in (
        (map_call(given, src, dst, n, m, function), messages(exact, src, dst, function)),
        (reduce_call(given, src, dst, n, m, function), reduced(messages(exact, src, dst, function), dst, m, "sum")),
    ):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_extreme_arguments(device, function):
    """NaN, infinities and numbers whose exponential overflows or vanishes give torch's values and derivatives."""
    z = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e-4, -1e-4, 30, -30, 800, -800, torch.inf, -torch.inf, torch.nan])
    z = z.double().to(device).view(-1, 1)
    index = torch.arange(z.size(0), device=device)
    if function == "gelu":  # torch's is NaN at -inf
        z[-2] = -40
    leaf, other = z.clone().requires_grad_(), z.clone().requires_grad_()
    found = map_call((None, leaf, None, None, None, None), index, index, len(z), len(z), function)
    wanted = FUNCTIONS[function][1](other)
    atol = 1e-16 if function == "gelu" else 0  # torch's vanishes too early
    exact = wanted.detach()
    if function == "elu":  # torch 2.4 computes exp(z) - 1, which is inexact near 0
        exact = torch.where(z > 0, z, FUNCTIONS[function][0] * torch.expm1(z))
    torch.testing.assert_close(found.detach(), exact, rtol=1e-13, atol=atol, equal_nan=True)
    found[:10].sum().backward()
    wanted[:10].sum().backward()
    torch.testing.assert_close(leaf.grad[:10], other.grad[:10], rtol=1e-12, atol=1e-300 + atol)


def test_graphs_without_edges_and_features_without_columns(device):
    none = torch.empty(0, dtype=torch.long, device=device)
    given = operands("rows cols edges weight", (3,), none, 4, 5)
    for reduce in ("sum", "mean"):
        assert torch.equal(reduce_call(given, none, none, 4, 5, "relu", reduce), torch.zeros_like(given[0]))
    assert dot_call(given, none, none, 4, 5, "relu", 0).shape == (0,)
    src = torch.tensor([0, 1], device=device)
    given = operands("rows cols", (0,), src, 2, 2)
    assert reduce_call(given, src, src, 2, 2, "sigmoid").shape == (2, 0)
    assert torch.equal(
        dot_call(given, src, src, 2, 2, "sigmoid", 0), torch.zeros(2, dtype=torch.float64, device=device)
    )


def test_bad_arguments_are_refused(device):
    src, dst = torch.tensor([0, 3], device=device), torch.tensor([0, 1], device=device)
    given = operands("rows cols", (3,), src, 4, 2)
    with pytest.raises(ValueError, match="function is 'exponential'; accepted are"):
        torch.ops.gnna.pair_reduce(*given, src, dst, 4, 2, "exponential", 0.0, 0, "sum")
    with pytest.raises(ValueError, match="at least one of them must be given"):
        reduce_call([None] * 6, src, dst, 4, 2, "relu")
    with pytest.raises(ValueError, match="cols has 4 rows; it must have 3"):
        reduce_call(given, src, dst, 3, 2, "relu")
    with pytest.raises(ValueError, match=r"dst\[1\] = 7 is out of range"):
        reduce_call(given, src, torch.tensor([0, 7], device=device), 4, 2, "relu")
    with pytest.raises(ValueError, match="takes rows, cols and edges only"):
        reduce_call(operands("rows right", (3,), src, 4, 2), src, dst, 4, 2, "relu", "max")


def test_the_ops_pass_torchs_checks(device):
    src, dst, n, m = reference.edges("random", device)
    given = [t.requires_grad_() for t in operands("rows cols edges weight left right", (2, 3), src, n, m)]
    torch.library.opcheck(torch.ops.gnna.pair_reduce.default, (*given, src, dst, n, m, "silu", 0.0, 0, "mean", False))
    rest = [given[i] for i in (0, 1, 2, 4, 5)]
    torch.library.opcheck(torch.ops.gnna.pair_dot.default, (*rest, src, dst, n, m, "tanh", 0.0, 0, 1, False))
    torch.library.opcheck(torch.ops.gnna.pair_map.default, (*given, src, dst, n, m, "elu", 1.0, 0, False))
