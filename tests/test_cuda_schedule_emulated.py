"""Plans with a schedule on CUDA, executed on the CPU by tests/simt: the reordered lists are correct, and every kernel
that processes rows gives the same bits as without the schedule.
"""

from __future__ import annotations

import numpy as np
import pytest
from simt_driver import Case, run
from storage import STORAGES
from test_cuda_kernels_emulated import csr, extremum_problem, number
from test_cuda_spmm_emulated import BY_GROUPS, H200, REDUCES, WEIGHTINGS, Problem, uneven


def in_order(rowptr, col, perm, order):
    """Return (rowptr, col, perm) of the same lists, stored in this order of the rows."""
    degrees = np.diff(rowptr)[order]
    slots = np.concatenate([np.arange(rowptr[r], rowptr[r + 1]) for r in order] or [np.empty(0)]).astype(np.int64)
    moved = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    return moved, col[slots], slots.astype(np.int32) if perm is None else perm[slots]


@pytest.mark.parametrize("with_perm", [False, True])
def test_lists_are_stored_in_the_given_order(with_perm, tmp_path):
    rng = np.random.default_rng(0)
    cases, expected = [], []
    for degrees in ([], [0], [5], [0, 0, 3, 0], uneven(rng), rng.integers(0, 4, 1000)):
        degrees = np.asarray(degrees, np.int64)
        rowptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
        col = rng.integers(0, 50, rowptr[-1]).astype(np.int32)
        perm = rng.permutation(len(col)).astype(np.int32) if with_perm else None
        order = rng.permutation(len(degrees)).astype(np.int32)
        arrays = {"rowptr": rowptr, "col": col, "perm": perm, "places": order}
        cases.append(Case("schedule", {"cols": 50}, arrays, 5, len(degrees)))
        expected.append(in_order(rowptr, col, perm, order))
    for result, answer in zip(run(cases, tmp_path), expected, strict=True):
        assert number(result["error"]) == 0
        for name, value, dtype in zip(("rowptr", "col", "perm"), answer, (np.int64, np.int32, np.int32), strict=True):
            np.testing.assert_array_equal(np.frombuffer(result[name], dtype), value)


def same_results(pairs, tmp_path):
    """Assert that both cases of every pair give the same bytes."""
    results = run([case for pair in pairs for case in pair], tmp_path)
    for before, after in zip(results[::2], results[1::2], strict=True):
        assert number(before["error"]) == number(after["error"]) == 0
        assert before.keys() == after.keys()
        for name in before:
            assert before[name] == after[name], name


@pytest.mark.parametrize("config", [{"decide": 1, **H200}, BY_GROUPS], ids=["rows", "groups"])
@pytest.mark.parametrize("dtype", STORAGES, ids=str)
def test_spmm_and_its_winners_keep_every_bit(dtype, config, tmp_path):
    """Covers split rows, empty rows, every reduction and weighting, and widths of one tile and of several."""
    rng = np.random.default_rng(1)
    pairs = []
    for at, (width, reduce) in enumerate((w, r) for w in (1, 7, 16, 64, 136) for r in REDUCES):
        problem = Problem(dtype, width, reduce, WEIGHTINGS[at % 7], config, uneven(rng), seed=at,
                          special=at % 3 == 0, schedules=2)  # fmt: skip
        edges = len(problem.col)
        order = rng.permutation(len(problem.degrees)).astype(np.int32)
        rowptr, col, perm = in_order(problem.rowptr, problem.col, None, order)
        index = problem.arrays.get("weight_index", np.arange(edges, dtype=np.int32))
        arrays = {**problem.arrays, "rowptr": rowptr, "col": col, "perm": perm, "order": order}
        if "weight" in arrays:
            arrays["weight_index"] = index[perm]
        for operation in ("spmm", "spmm_arg") if reduce in ("max", "min") else ("spmm",):
            numbers = {"split_above": 40, "chunk_edges": 60} if operation == "spmm_arg" else {}
            pairs.append([Case(operation, {**problem.numbers, **numbers}, a, 2, at) for a in (problem.arrays, arrays)])
    same_results(pairs, tmp_path)


@pytest.mark.parametrize("dtype", STORAGES, ids=str)
def test_gradients_of_max_and_min_keep_every_bit(dtype, tmp_path):
    rng = np.random.default_rng(2)
    pairs = []
    for at, (head_dim, heads, weighted) in enumerate([(1, 1, False), (5, 3, True), (16, 1, True), (64, 2, False)]):
        numbers, arrays, _ = extremum_problem(rng, dtype, heads, head_dim, weighted, np.int32, "max", at % 2 == 0)
        moved = dict(arrays)
        for side in ("forward", "transposed"):
            lists = [arrays[f"{side}_{name}"] for name in ("rowptr", "col", "perm")]
            order = rng.permutation(len(lists[0]) - 1).astype(np.int32)
            for name, value in zip(("rowptr", "col", "perm"), in_order(*lists, order), strict=True):
                moved[f"{side}_{name}"] = value
            moved[f"{side}_order"] = order
        pairs.append([Case("extremum", numbers, a, 2, at) for a in (arrays, moved)])
    same_results(pairs, tmp_path)


def test_the_comparison_detects_rows_in_the_wrong_place(tmp_path):
    row = np.array([0, 1, 1, 2])
    rowptr, col, perm = csr(row, np.array([2, 0, 1, 1]), 3)
    x = np.arange(12, dtype=np.float32) + 1
    numbers = {"cols": 3, "x_stride": 4, "heads": 1, "head_dim": 4, "reduce": 0, "decide": 1, "max_degree": 2,
               "out_shift": 0, "x_padded": 0, **H200}  # fmt: skip
    arrays = {"rowptr": rowptr, "col": col, "perm": perm, "x": x}
    wrong = {**arrays, "order": np.array([2, 1, 0], np.int32)}  # the lists are not stored in this order
    with pytest.raises(AssertionError, match="out"):
        same_results([[Case("spmm", numbers, a) for a in (arrays, wrong)]], tmp_path)
