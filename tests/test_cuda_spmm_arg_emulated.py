"""Max and min with the winning edge on CUDA, executed on the CPU by tests/simt, against a loop over the edges."""

from __future__ import annotations

import numpy as np
import pytest
from simt_driver import Case, run
from storage import FLOAT32, STORAGES

LONG = 256  # edges above which a row is split
REFUSED = 1  # cudaErrorInvalidValue
MAX, MIN = 2, 3  # as numbered in types.h


def winners(degrees, message, edge, reduce):
    """Return (out, arg) as DGL defines them, for messages [slots, width]."""
    start = -np.inf if reduce == MAX else np.inf
    out = np.full((len(degrees), message.shape[1]), start, message.dtype)
    arg = np.full(out.shape, -1, np.int32)
    for slot, row in enumerate(np.repeat(np.arange(len(degrees)), degrees)):
        wins = message[slot] > out[row] if reduce == MAX else message[slot] < out[row]
        out[row] = np.where(wins, message[slot], out[row])
        arg[row] = np.where(wins, edge[slot], arg[row])
    return out, arg


def problem(dtype, reduce, degrees, heads, head_dim, weighting, permuted, seed, special=True):
    """Return a case and its answer. Features are few different values, so that messages tie, also at 0 and -0."""
    rng = np.random.default_rng(seed)
    cols, width, edges = 21, heads * head_dim, int(degrees.sum())
    rowptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    x = dtype.round(rng.choice([-2, -1.1, -0.0, 0, 0.7, 1, 3], (cols, width)))
    if special:
        x[rng.random(x.shape) < 0.1] = np.nan
        x[rng.random(x.shape) < 0.05] = np.inf
        x[:5] = rng.choice([np.nan, -np.inf if reduce == MAX else np.inf], (5, width))  # cannot win
    col = rng.integers(0, cols, edges).astype(np.int32)
    for row in (2, len(degrees) - 2):
        col[rowptr[row] : rowptr[row + 1]] %= 5
    stride = width + int(rng.integers(0, 3))
    padded = np.full((cols, stride), np.nan)
    padded[:, :width] = x
    arrays = {"rowptr": rowptr, "col": col, "x": dtype.encode(padded)}
    edge = np.arange(edges, dtype=np.int32)
    if permuted:
        arrays["perm"] = edge = rng.permutation(edges).astype(np.int32)
    message = x[col]
    if weighting != "none":
        weight = dtype.round(rng.choice([-1, 0.3, 1, 1.7, np.nan], (edges, heads), p=[0.2, 0.3, 0.3, 0.19, 0.01]))
        arrays["weight"] = dtype.encode(weight)
        index = edge if weighting == "indexed" else np.arange(edges, dtype=np.int32)
        if weighting == "indexed":
            arrays["weight_index"] = index
        with np.errstate(all="ignore"):
            message = message * np.repeat(weight[index], head_dim, 1)  # in the type that the kernel computes in
    numbers = {"cols": cols, "x_stride": stride, "heads": heads, "head_dim": head_dim, "reduce": reduce, "out_shift": 0,
               "split_above": LONG, "chunk_edges": rng.choice([60, 130, LONG])}  # fmt: skip
    return Case("spmm_arg", {**numbers, **dtype.flag()}, arrays, 3, seed), winners(degrees, message, edge, reduce)


@pytest.mark.parametrize("dtype", STORAGES, ids=str)
def test_results_and_winning_edges(dtype, tmp_path):
    rng = np.random.default_rng(6)
    problems = []
    for at, (heads, head_dim) in enumerate([(1, 1), (1, 2), (3, 3), (1, 16), (4, 8), (1, 33), (2, 50), (1, 64)]):
        degrees = rng.permutation([*rng.integers(0, 9, 12), 31, 32, 33, LONG - 1, LONG, LONG + 1, 700])
        degrees = np.concatenate([[0, 900, 6], degrees, [300, 0]])  # rows 2 and -2 get only values that cannot win
        for reduce in (MAX, MIN):
            weighting = ("none", "slots", "indexed")[(at + reduce) % 3]
            problems.append(problem(dtype, reduce, degrees, heads, head_dim, weighting, at % 3 != 1, seed=at))
    for (case, (out, arg)), result in zip(problems, run([case for case, _ in problems], tmp_path), strict=True):
        assert int.from_bytes(result["error"], "little") == 0
        found = dtype.decode(result["out"]).reshape(out.shape)
        np.testing.assert_array_equal(found, dtype.round(out), str(case.numbers))
        np.testing.assert_array_equal(np.signbit(found), np.signbit(out), str(case.numbers))
        np.testing.assert_array_equal(np.frombuffer(result["arg"], np.int32).reshape(arg.shape), arg, str(case.numbers))
        assert (arg == -1).any() and (arg >= 0).any()


def test_chunks_are_combined_in_levels(tmp_path):
    """Chunks of one edge are combined in bundles of 32, as in kernel `row`."""
    degrees = np.array([3, LONG + 1, 2, 1024, 1025, 0, 1057, 2100, 4, 1])
    case, (out, arg) = problem(FLOAT32, MAX, degrees, 2, 24, "indexed", True, seed=3)
    case.numbers["chunk_edges"] = 1
    (result,) = run([case], tmp_path)
    assert int.from_bytes(result["error"], "little") == 0
    np.testing.assert_array_equal(FLOAT32.decode(result["out"]).reshape(out.shape), out)
    np.testing.assert_array_equal(np.frombuffer(result["arg"], np.int32).reshape(arg.shape), arg)


@pytest.mark.parametrize("degrees", [[], [0, 0, 0]])
def test_rows_without_edges_hold_the_start_value(degrees, tmp_path):
    arrays = {"rowptr": np.zeros(len(degrees) + 1, np.int64), "col": np.zeros(0, np.int32), "x": np.ones((2, 5), "f4")}
    numbers = {"cols": 2, "x_stride": 5, "heads": 1, "head_dim": 5, "out_shift": 0, "split_above": LONG,
               "chunk_edges": LONG}  # fmt: skip
    cases = [Case("spmm_arg", {**numbers, "reduce": reduce}, arrays) for reduce in (MAX, MIN)]
    for result, start in zip(run(cases, tmp_path), (-np.inf, np.inf), strict=True):
        assert np.frombuffer(result["out"], np.float32).tolist() == [start] * 5 * len(degrees)
        assert np.frombuffer(result["arg"], np.int32).tolist() == [-1] * 5 * len(degrees)


def test_a_sum_is_refused(tmp_path):
    case, _ = problem(FLOAT32, 0, np.array([2, 0, 3]), 1, 4, "none", False, 1, special=False)
    assert int.from_bytes(run([case], tmp_path)[0]["error"], "little") == REFUSED
