"""The CUDA kernels for 16-bit types, executed on the CPU by tests/simt: conversion and rounding of every number,
elements per load, and winners that differ only before they are rounded.
"""

from __future__ import annotations

import numpy as np
import pytest
from simt_driver import Case, run
from storage import BFLOAT16, FLOAT16
from test_cuda_kernels_emulated import csr, number
from test_cuda_spmm_emulated import H200, REDUCES, Problem, uneven


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_the_width_of_16_bit_heads_decides_the_load_width(dtype, tmp_path):
    """Heads of eight elements allow loads of 16 bytes. Heads of four elements need loads of single elements."""
    problems = [Problem(dtype, 64, reduce, "head indexed", {"decide": 1, **H200}, uneven(np.random.default_rng(9)),
                        seed=head_dim, head_dim=head_dim) for reduce in REDUCES for head_dim in (8, 4)]  # fmt: skip
    for problem, result in zip(problems, run([p.case() for p in problems], tmp_path), strict=True):
        problem.check(result)
        assert int.from_bytes(result["vector_width"], "little") == (8 if problem.head_dim == 8 else 1)


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_every_16_bit_number_is_read_and_rounded_correctly(dtype, tmp_path):
    """With one edge per row, the result is weight * x, rounded once.

    A weight of 1 must give x. The other weights cause ties in rounding, overflow and subnormal numbers.
    """
    width, rows = 64, 1024
    x = np.arange(-(2**15), 2**15, dtype=np.int16).reshape(rows, width)
    slots = np.arange(rows, dtype=np.int32)
    config = {"lanes": 8, "groups": 1, "vectors": 1, "vector_width": 8, "block": 256,
              "split_above": 9, "chunk_edges": 9}  # fmt: skip
    numbers = {"cols": rows, "x_stride": width, "heads": 1, "head_dim": width, "reduce": 2, "out_shift": 0,
               "x_padded": 0, "decide": 0, "kernel": 0, "group_size": 0, **config, **dtype.flag()}  # fmt: skip
    factors = dtype.round([1.0, 1.5, 3, 1 + dtype.eps, 2.0**-6, 2.0**-9 * (1 + dtype.eps), -300])
    cases = []
    for at, factor in enumerate(factors):
        arrays = {"rowptr": np.arange(rows + 1), "col": slots, "x": x, "weight": dtype.encode(np.full(rows, factor))}
        cases.append(Case("spmm", {**numbers, "vector_width": (8, 1)[at % 2]}, arrays, schedules=1))
    for factor, result in zip(factors, run(cases, tmp_path), strict=True):
        assert int.from_bytes(result["error"], "little") == 0
        with np.errstate(all="ignore"):
            expected = dtype.round(dtype.decode(x) * np.float32(factor))
        np.testing.assert_array_equal(dtype.decode(result["out"]), expected, f"times {factor}")


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_winners_are_found_among_rounded_messages(dtype, tmp_path):
    """Winners are compared after rounding. Some of these products differ, but are equal after they are rounded."""
    rng = np.random.default_rng(5)
    rows, cols, edges = 23, 19, 400
    into = dst, src = rng.integers(0, rows, edges), rng.integers(0, cols, edges)
    cases, expected = [], []
    for heads, head_dim in [(1, 7), (1, 8), (2, 16), (4, 4), (2, 40)]:
        base = 1 + dtype.eps * rng.integers(0, 12, (cols, heads, head_dim))
        x, weight = dtype.round(base), dtype.round(1 + dtype.eps * rng.integers(0, 12, (edges, heads)))
        grad = dtype.round(rng.standard_normal((rows, heads, head_dim)))
        exact = x[src] * weight[:, :, None]
        message = dtype.round(exact)
        out = np.stack([message[dst == row].max(0, initial=0) for row in range(rows)])
        wins = message == out[dst]
        best = np.stack([exact[dst == row].max(0, initial=0) for row in range(rows)])
        assert (wins != (exact == best[dst])).any()
        sharers = np.stack([wins[dst == row].sum(0) for row in range(rows)]) + (out == 0)
        share = (grad / sharers.astype(np.float32)).astype(np.float64)
        gained = wins * share[dst]
        grad_x = np.stack([(gained * weight[:, :, None])[src == col].sum(0) for col in range(cols)])
        expected.append({"share": share, "grad_x": grad_x, "grad_weight": (gained * x[src]).sum(-1)})
        sides = ("forward", csr(*into, rows)), ("transposed", csr(*into[::-1], cols))
        arrays = {f"{side}_{name}": array for side, three in sides
                  for name, array in zip(("rowptr", "col", "perm"), three, strict=True)}  # fmt: skip
        arrays |= {"src": src.astype(np.int32), "dst": dst.astype(np.int32)}
        arrays |= {n: dtype.encode(v) for n, v in (("grad", grad), ("x", x), ("out", out), ("weight", weight))}
        numbers = {"heads": heads, "head_dim": head_dim, "forward_cols": cols, "transposed_cols": rows,
                   "split_above": 20, "chunk_edges": 30}  # fmt: skip
        cases.append(Case("extremum", {**numbers, **dtype.flag()}, arrays, 3))
    for result, answer in zip(run(cases, tmp_path), expected, strict=True):
        assert number(result["error"]) == 0
        np.testing.assert_array_equal(np.frombuffer(result["share"], np.float32).ravel(), answer["share"].ravel())
        for name in ("grad_x", "grad_weight"):
            found, value = dtype.decode(result[name]), answer[name].ravel()
            np.testing.assert_allclose(found, value, rtol=dtype.eps / 2 + 2e-5, atol=2e-5, err_msg=name)
