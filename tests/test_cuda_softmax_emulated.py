"""segment_softmax and its gradient on CUDA, executed on the CPU by tests/simt, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from simt_driver import Case, run
from storage import FLOAT32, STORAGES

SPLIT = 64  # edges above which a row is split into chunks of CHUNK edges
CHUNK = 48


def error_of(result) -> int:
    return int.from_bytes(result["error"], "little")


def problem(dtype, degrees, heads, permuted, seed, special=False):
    """Return the case and, in the user's order of edges, the rows, scores and gradients."""
    rng = np.random.default_rng(seed)
    edges = int(degrees.sum())
    rowptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    edge = (rng.permutation(edges) if permuted else np.arange(edges)).astype(np.int32)
    row = np.empty(edges, np.int64)
    row[edge] = np.repeat(np.arange(len(degrees)), degrees)
    scores = dtype.round(rng.standard_normal((edges, heads)) * 3 + rng.choice([-40, 0, 60], (len(degrees), 1))[row])
    if special:
        scores[rng.random(scores.shape) < 0.3] = -np.inf
        scores[rng.random(scores.shape) < 0.02] = np.nan
        scores[rng.random(scores.shape) < 0.02] = np.inf
    grad = dtype.round(rng.standard_normal(scores.shape))
    arrays = {
        "rowptr": rowptr,
        "col": np.zeros(edges, np.int32),
        "perm": edge if permuted else None,
        "index": row.astype(np.int64 if seed % 2 else np.int32),
        "scores": dtype.encode(scores),
        "grad": dtype.encode(grad),
    }
    numbers = {"cols": 1, "heads": heads, "split_above": SPLIT, "chunk_edges": CHUNK, **dtype.flag()}
    if seed % 2:
        numbers["int64"] = 1
    return Case("segment_softmax", numbers, arrays, 3, seed), row, scores.astype(np.float64), grad.astype(np.float64)


def softmax(scores, row, rows):
    with np.errstate(all="ignore"):
        most = np.full((rows, scores.shape[1]), -np.inf)
        np.maximum.at(most, row, scores)
        exponentials = np.exp(scores - most[row])
        total = np.zeros(most.shape)
        np.add.at(total, row, exponentials)
        return exponentials / total[row]


@pytest.mark.parametrize("dtype", STORAGES, ids=str)
def test_rows_of_every_length_with_few_and_many_heads(dtype, tmp_path):
    """The edges per row decide how many lanes share a row. A split row has one block per chunk."""
    rng = np.random.default_rng(8)
    short = np.concatenate([[0], rng.integers(0, 3, 150), [33, 0]])
    middle = np.concatenate([[0], rng.integers(0, 30, 30), [SPLIT - 1, SPLIT, SPLIT + 1, 0]])
    long = np.concatenate([[3 * SPLIT, 0, 700], rng.integers(0, 200, 5)])
    problems = [
        problem(dtype, degrees, heads, permuted, seed)
        for seed, (heads, permuted) in enumerate([(1, True), (2, False), (3, True), (8, True), (32, False), (40, True)])
        for degrees in (short, middle, long)
    ]
    for (case, row, scores, grad), result in zip(problems, run([p[0] for p in problems], tmp_path), strict=True):
        rows = len(case.arrays["rowptr"][0]) - 1
        assert error_of(result) == 0
        out = dtype.decode(result["out"]).reshape(scores.shape).astype(np.float64)
        wanted = softmax(scores, row, rows)
        bound = 60 * dtype.compute_eps * wanted + dtype.rounding(wanted) * (1 + 1e-6)
        assert (np.abs(out - wanted) <= bound).all(), case.numbers

        found = dtype.decode(result["grad_scores"]).reshape(scores.shape)
        total, scale = np.zeros((rows, scores.shape[1])), np.zeros((rows, scores.shape[1]))
        np.add.at(total, row, out * grad)
        np.add.at(scale, row, np.abs(out * grad))
        wanted = out * (grad - total[row])
        bound = 60 * dtype.compute_eps * out * (np.abs(grad) + scale[row]) + dtype.rounding(wanted) * (1 + 1e-6)
        assert (np.abs(found - wanted) <= bound).all(), case.numbers


def test_infinities_and_nan_spread_as_in_numpy(tmp_path):
    rng = np.random.default_rng(9)
    degrees = np.concatenate([[1, 1, 2, 2], rng.integers(0, 40, 40), [600]])
    problems = [problem(FLOAT32, degrees, heads, True, heads, special=True) for heads in (1, 5)]
    for (_, row, scores, _), result in zip(problems, run([p[0] for p in problems], tmp_path), strict=True):
        found = np.frombuffer(result["out"], np.float32).reshape(scores.shape)
        wanted = softmax(scores, row, len(degrees))
        assert np.isnan(wanted).any() and (wanted == 0).any()
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("degrees", [[], [0, 0]])
def test_graphs_without_edges(degrees, tmp_path):
    case, *_ = problem(FLOAT32, np.array(degrees, np.int64), 2, False, 0)
    assert error_of(run([case], tmp_path)[0]) == 0
