"""The pair kernels on CUDA, executed on the CPU by tests/simt, against NumPy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from simt_driver import Case, run
from storage import FLOAT32, STORAGES

SPLIT, CHUNK = 64, 48  # edges above which a row is split into chunks of CHUNK edges
SUM, MAX, MIN = 0, 2, 3
ERF = np.vectorize(math.erf)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


# By the numbers of gnna/types.h: each function with its derivative; the parameter is 0.3.
FUNCTIONS = {
    0: (lambda z: z, np.ones_like),
    1: (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    2: (lambda z: np.where(z > 0, z, 0.3 * z), lambda z: np.where(z > 0, 1, 0.3)),
    3: (np.square, lambda z: 2 * z),
    4: (np.exp, np.exp),
    5: (lambda z: np.where(z > 0, z, 0.3 * np.expm1(z)), lambda z: np.where(z > 0, 1, 0.3 * np.exp(z))),
    6: (
        lambda z: z * (1 + ERF(z / math.sqrt(2))) / 2,
        lambda z: (1 + ERF(z / math.sqrt(2))) / 2 + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi),
    ),
    7: (lambda z: z * sigmoid(z), lambda z: sigmoid(z) * (1 + z * (1 - sigmoid(z)))),
    8: (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    9: (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
}
LIGHT = (0, 1, 2, 3, 4)
# Operands that have a kernel of their own, and others.
GIVEN = (
    "of_cols",
    "rows of_cols",
    "of_cols edges",
    "rows of_cols weight",
    "rows of_cols right",
    "rows edges right",
    "right",
    "rows of_cols edges weight left right",
)


def problem(dtype, given, function, order, heads, head_dim, seed, reduce=SUM, shared_left=False):
    """Return the case and the expected results, in float64, each with the largest sum of magnitudes per element."""
    rng = np.random.default_rng(seed)
    degrees = np.concatenate([[0], rng.integers(0, 9, 12), [SPLIT, SPLIT + 1, 3 * SPLIT, 0]])
    rows, cols, edges, width = len(degrees), 23, int(degrees.sum()), heads * head_dim
    rowptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    perm = (rng.permutation(edges) if seed % 3 else np.arange(edges)).astype(np.int32)
    col = rng.integers(0, cols, edges).astype(np.int32)
    src, dst = np.empty(edges, np.int64), np.empty(edges, np.int64)
    src[perm], dst[perm] = col, np.repeat(np.arange(rows), degrees)
    counts = {"rows": rows, "of_cols": cols, "edges": edges, "left": 1 if shared_left else rows, "right": cols}
    made = {name: dtype.round(rng.standard_normal((n, width))) for name, n in counts.items() if name in given.split()}
    if "weight" in given.split():
        made["weight"] = dtype.round(rng.standard_normal((edges, heads)))

    z = sum(
        (made[name].astype(np.float64)[index] for name, index in (("rows", dst), ("of_cols", src)) if name in made),
        np.zeros((edges, width)),
    ) + made.get("edges", np.zeros(())).astype(np.float64)
    value = FUNCTIONS[function][order](z)
    value = value * (made["right"].astype(np.float64)[src] if "right" in made else 1)
    left = made["left"].astype(np.float64) if "left" in made else np.ones((1, width))
    of_edge = left if left.shape[0] == 1 else left[dst]
    weight = np.repeat(made["weight"].astype(np.float64), head_dim, axis=1) if "weight" in made else 1
    reduced, scale = np.zeros((rows, width)), np.zeros((rows, width))
    if reduce == SUM:
        np.add.at(reduced, dst, value * weight)
    else:
        reduced[:] = -np.inf if reduce == MAX else np.inf
        (np.maximum if reduce == MAX else np.minimum).at(reduced, dst, value * weight)
        reduced[degrees == 0] = 0  # empty rows may get any value
    np.add.at(scale, dst, np.abs(value * weight))
    by_head = (edges, heads, head_dim)
    expected = {
        "reduced": (reduced * left, scale * np.abs(left)),
        "mapped": (value * weight * of_edge, np.abs(value * weight * of_edge)),
        "dots": ((value * of_edge).reshape(by_head).sum(-1), np.abs(value * of_edge).reshape(by_head).sum(-1)),
    }
    numbers = {
        "cols": cols, "heads": heads, "head_dim": head_dim, "function": function, "order": order, "reduce": reduce,
        "parameter_percent": 30, "shared_left": shared_left, "split_above": SPLIT, "chunk_edges": CHUNK,
        **dtype.flag(), **({"int64": 1} if seed % 2 else {}),
    }  # fmt: skip
    ids = np.int64 if seed % 2 else np.int32
    arrays = {
        "rowptr": rowptr, "col": col, "perm": perm if seed % 3 else None, "src": src.astype(ids),
        "dst": dst.astype(ids), **{name: dtype.encode(array) for name, array in made.items()},
    }  # fmt: skip
    return Case("pair", numbers, arrays, 2, seed), expected, degrees


def assert_right(dtype, problems, folder):
    for (case, expected, degrees), result in zip(problems, run([p[0] for p in problems], folder), strict=True):
        assert int.from_bytes(result["error"], "little") == 0
        for name, (wanted, scale) in expected.items():
            found = dtype.decode(result[name]).reshape(wanted.shape).astype(np.float64)
            bound = 100 * dtype.compute_eps * (scale + np.abs(wanted) + 1) + dtype.rounding(wanted) * (1 + 1e-6)
            wrong = np.abs(found - wanted) > bound
            if name == "reduced":
                wrong[degrees == 0] = False
            assert not wrong.any(), (name, case.numbers)


@pytest.mark.parametrize("dtype", STORAGES, ids=str)
@pytest.mark.parametrize("given", GIVEN)
def test_operands(dtype, given, tmp_path):
    shapes = ((1, 16), (2, 8), (3, 5), (1, 40))
    problems = [
        problem(dtype, given, function, order, *shape, seed)
        for seed, (shape, function, order) in enumerate(zip(shapes, (0, 2, 9, 1), (0, 1, 0, 0), strict=True))
    ]
    assert_right(dtype, problems, tmp_path)


def test_functions_and_derivatives(tmp_path):
    problems = [
        problem(FLOAT32, "rows of_cols edges", function, order, 1, 12, 7 + function)
        for function in FUNCTIONS
        for order in (0, 1)
    ]
    assert_right(FLOAT32, problems, tmp_path)


@pytest.mark.parametrize("reduce", [MAX, MIN])
def test_extrema(reduce, tmp_path):
    problems = [
        problem(FLOAT32, given, function, 0, 1, width, width, reduce)
        for given in ("of_cols", "rows of_cols", "of_cols edges", "rows of_cols edges")
        for function in (0, 1, 8)
        for width in (5, 16)
    ]
    assert_right(FLOAT32, problems, tmp_path)


def test_a_left_operand_that_all_rows_share(tmp_path):
    problems = [problem(FLOAT32, "rows of_cols left", 2, 0, heads, 8, heads, shared_left=True) for heads in (1, 4)]
    assert_right(FLOAT32, problems, tmp_path)


@pytest.mark.parametrize("given", ["of_cols", "rows of_cols", "of_cols right", "rows of_cols edges"])
def test_winners_are_selected_exactly(given, tmp_path):
    """With the maxima as `best`, the sum counts the messages that equal them."""
    case, expected, degrees = problem(FLOAT32, given.replace("right", "").strip(), 1, 0, 1, 16, 4, MAX)
    (first,) = run([case], tmp_path)
    best = FLOAT32.decode(first["reduced"]).reshape(len(degrees), 16)
    mapped = FLOAT32.decode(first["mapped"]).reshape(-1, 16)
    dst = case.arrays["dst"][0]
    wins = (mapped == best[dst]).astype(np.float64)
    if "right" in given:
        right = np.random.default_rng(1).standard_normal((23, 16)).astype(np.float32)
        case.arrays["right"] = (right, 0)
        wins = wins * right[case.arrays["src"][0]]
    case.arrays["best"] = (best, 0)
    case.numbers["reduce"] = SUM
    (second,) = run([case], tmp_path)
    counts = np.zeros(best.shape)
    np.add.at(counts, dst, wins)
    found = FLOAT32.decode(second["reduced"]).reshape(best.shape)
    np.testing.assert_allclose(found[degrees > 0], counts[degrees > 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(FLOAT32.decode(second["mapped"]).reshape(mapped.shape), wins, rtol=1e-6)
