"""The CUDA kernels for building plans, SDDMM, gathering and padding rows, and the gradients of max and min, executed on
the CPU by tests/simt. Also the emulation itself: it must detect faulty kernels.
"""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from simt_driver import Case, run, start
from storage import STORAGES

IDS = [np.int32, np.int64]


def number(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def flags(*, dtype=None, ids=None) -> dict:
    return {**(dtype.flag() if dtype else {}), **({"int64": 1} if ids is np.int64 else {})}


def csr(row, col, rows):
    """Return (rowptr, col, perm) of an edge list, from a stable sort by row."""
    perm = np.argsort(row, kind="stable").astype(np.int32)
    rowptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))]).astype(np.int64)
    return rowptr, np.asarray(col)[perm].astype(np.int32), perm


# ---- plan building


@pytest.mark.parametrize("ids", IDS)
def test_check_edges(ids, tmp_path):
    rng = np.random.default_rng(0)
    cases, expected = [], []
    for edges in (0, 1, 2, 31, 256, 257, 5000):
        for fault in ("none", "row", "col", "both", "unsorted"):
            row, col = np.sort(rng.integers(0, 70, edges)).astype(ids), rng.integers(0, 50, edges).astype(ids)
            bad = [-1, np.iinfo(ids).max, np.iinfo(ids).min]
            if edges and fault in ("row", "both"):
                row[rng.integers(0, edges, 3)] = rng.choice([70, *bad], 3)
            if edges and fault in ("col", "both"):
                col[rng.integers(0, edges, 3)] = rng.choice([50, *bad], 3)
            if edges > 1 and fault == "unsorted":
                at = rng.integers(1, edges)  # rows decrease at one place only, which may lie between two blocks
                row[:at] = np.maximum(row[:at], 5)
                row[at:] = 4
            cases.append(Case("check", {"rows": 70, "cols": 50, **flags(ids=ids)}, {"row": row, "col": col}, 6, edges))
            outside = [np.flatnonzero((v < 0) | (v >= limit)) for v, limit in ((row, 70), (col, 50))]
            expected.append([*(at[0] if len(at) else -1 for at in outside), bool((row[1:] < row[:-1]).any())])
    for result, answer in zip(run(cases, tmp_path), expected, strict=True):
        assert number(result["error"]) == 0
        assert np.frombuffer(result["found"], np.int64).tolist() == answer


def test_check_edges_with_more_edges_than_threads(tmp_path):
    """With this many edges, 2048 blocks of 256 threads need two iterations."""
    edges = 2048 * 256 + 300
    row, col = np.zeros(edges, np.int32), np.zeros(edges, np.int32)
    row[-1] = 1
    col[[-7, -290]] = 9
    result = run([Case("check", {"rows": 2, "cols": 1}, {"row": row, "col": col}, 1)], tmp_path)[0]
    assert np.frombuffer(result["found"], np.int64).tolist() == [-1, edges - 290, 0]


@pytest.mark.parametrize("ids", IDS)
def test_build_csr_and_max_degree(ids, tmp_path):
    rng = np.random.default_rng(1)
    cases, expected = [], []
    for edges, rows in [(0, 0), (0, 5), (1, 1), (7, 3), (300, 40), (300, 257), (2000, 5), (500, 1500)]:
        for is_sorted in (False, True):
            low, high = (1, rows - 1) if rows > 2 else (0, rows)  # the first and the last row are empty
            row, col = rng.integers(low, max(high, 1), edges), rng.integers(0, 1000, edges).astype(ids)
            row = (np.sort(row) if is_sorted else row).astype(ids)
            numbers = {"rows": rows, "sorted": is_sorted, **flags(ids=ids)}
            cases.append(Case("csr", numbers, {"row": row, "col": col}, 4, edges + rows))
            expected.append((is_sorted, *csr(row, col, rows)))
    for result, (is_sorted, rowptr, col, perm) in zip(run(cases, tmp_path), expected, strict=True):
        assert number(result["error"]) == 0
        np.testing.assert_array_equal(np.frombuffer(result["rowptr"], np.int64), rowptr)
        np.testing.assert_array_equal(np.frombuffer(result["col"], np.int32), col)
        assert number(result["max_degree"]) == np.diff(rowptr).max(initial=0)
        if is_sorted:
            assert "perm" not in result
        else:
            np.testing.assert_array_equal(np.frombuffer(result["perm"], np.int32), perm)


@pytest.mark.parametrize("ids", IDS)
def test_count_csr(ids, tmp_path):
    """The checks, the lists and the facts that check_edges, build_csr and max_degree find."""
    rng = np.random.default_rng(5)
    cases, expected = [], []
    for edges, rows in [(1, 1), (7, 3), (300, 40), (1500, 257), (2000, 5), (700, 20000)]:
        for kind in ("plain", "sorted", "symmetric", "bad row", "bad col"):
            row, col = rng.integers(0, rows, edges), rng.integers(0, rows, edges)
            if kind == "sorted":
                row = np.sort(row)
            if kind == "symmetric":
                row, col = np.concatenate([row, col]), np.concatenate([col, row])
            bad = [-1, -1]
            if kind.startswith("bad"):
                ends, which = (row, 0) if kind == "bad row" else (col, 1)
                places = rng.integers(0, edges, 2)
                ends[places] = rng.choice([rows, -1, np.iinfo(ids).max, np.iinfo(ids).min], 2)
                bad[which] = places.min()
            cases.append(Case("count", {"rows": rows, "cols": rows, **flags(ids=ids)},
                              {"row": row.astype(ids), "col": col.astype(ids)}, 3, edges + rows))  # fmt: skip
            expected.append((row, col, rows, bad))
    for result, (row, col, rows, bad) in zip(run(cases, tmp_path), expected, strict=True):
        assert number(result["error"]) == 0
        *found_bad, unsorted, max_degree, symmetric, fits = np.frombuffer(result["found"], np.int64)
        assert found_bad == bad and unsorted == (row[1:] < row[:-1]).any()
        if bad != [-1, -1]:
            continue
        rowptr, sorted_col, perm = csr(row, col, rows)
        np.testing.assert_array_equal(np.frombuffer(result["rowptr"], np.int64), rowptr)
        np.testing.assert_array_equal(np.frombuffer(result["col"], np.int32), sorted_col)
        np.testing.assert_array_equal(np.frombuffer(result["perm"], np.int32), perm)
        pairs = sorted(zip(row, col, strict=True))
        assert symmetric == (pairs == sorted(zip(col, row, strict=True)))
        assert fits and max_degree == np.diff(rowptr).max()


def test_count_csr_leaves_lists_with_very_long_rows(tmp_path):
    row = np.zeros(20000, np.int32)
    row[0] = 1
    result = run([Case("count", {"rows": 2, "cols": 20000}, {"row": row, "col": row}, 3)], tmp_path)[0]
    *_, max_degree, _, fits = np.frombuffer(result["found"], np.int64)
    assert max_degree == 19999 and not fits


@pytest.mark.parametrize("chunk_edges", [1, 7, 32, 100])
def test_split_rows_are_cut_into_even_chunks(chunk_edges, tmp_path):
    rng = np.random.default_rng(2)
    threshold = 31
    degrees = rng.choice([0, 1, 5, 30, 31, 32, 33, 64, 65, 1000], 600)
    degrees[[0, -1]] = 0, 500
    rowptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    case = Case("chunks", {"threshold": threshold, "chunk_edges": chunk_edges}, {"rowptr": rowptr})
    fields = [("begin", "i8"), ("end", "i8"), ("row", "i4"), ("index", "i4"), ("count", "i4"), ("first", "i4")]
    record = np.dtype(fields)
    chunks = np.frombuffer(run([case], tmp_path)[0]["chunks"], record)
    assert (chunks["end"] - chunks["begin"] <= chunk_edges).all()
    at = 0
    for row in np.flatnonzero(degrees > threshold):
        count = -(-degrees[row] // chunk_edges)
        own = chunks[at : at + count]
        assert (own["row"] == row).all() and (own["count"] == count).all() and (own["first"] == at).all()
        assert (own["index"] == np.arange(count)).all()
        assert own["begin"][0] == rowptr[row] and own["end"][-1] == rowptr[row + 1]
        assert (own["begin"][1:] == own["end"][:-1]).all()
        assert np.ptp(own["end"] - own["begin"]) <= 1
        at += count
    assert at == len(chunks)


@pytest.mark.parametrize("group_size", [1, 7, 32])
def test_neighbour_groups(group_size, tmp_path):
    rng = np.random.default_rng(3)
    degrees = rng.choice([0, 1, 5, 31, 32, 33, 64, 65, 1000], 600)
    split_above = 4 * group_size
    rowptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    case = Case("groups", {"group_size": group_size, "split_above": split_above}, {"rowptr": rowptr})
    (result,) = run([case], tmp_path)
    first, row = np.frombuffer(result["first"], np.int64), np.frombuffer(result["row"], np.int32)
    of_row = np.where(degrees > split_above, 1, np.maximum(1, -(-degrees // group_size)))  # a split row counts as one
    np.testing.assert_array_equal(first, np.concatenate([[0], np.cumsum(of_row)]))
    np.testing.assert_array_equal(row, np.repeat(np.arange(600), of_row))


# ---- SDDMM


@pytest.mark.parametrize("dtype", STORAGES, ids=str)
def test_sddmm(dtype, tmp_path):
    rng = np.random.default_rng(3)
    cases, expected = [], []
    for at, head_dim in enumerate([*range(1, 21), 22, 31, 32, 64, 96, 100, 128, 300]):
        for heads, edges in [(1, 700), (4, 90), (3, 1)]:
            ids, shift = IDS[(at + heads) % 2], dtype.itemsize * (at % 3 == 1)
            src, dst = rng.integers(0, 40, edges).astype(ids), rng.integers(0, 50, edges).astype(ids)
            a, b = (dtype.round(rng.standard_normal((n, heads, head_dim))) for n in (40, 50))
            numbers = {"heads": heads, "head_dim": head_dim, **flags(dtype=dtype, ids=ids)}
            arrays = {"src": src, "dst": dst, "a": (dtype.encode(a), shift), "b": dtype.encode(b)}
            cases.append(Case("sddmm", numbers, arrays, 3, at))
            products = a[src].astype(np.float64) * b[dst]
            bound = (head_dim + 2) * dtype.compute_eps * np.abs(products).sum(-1)
            expected.append((products.sum(-1), (bound + dtype.rounding(products.sum(-1))) * (1 + 1e-6)))
    for result, (answer, bound) in zip(run(cases, tmp_path), expected, strict=True):
        assert number(result["error"]) == 0
        out = dtype.decode(result["out"]).reshape(answer.shape)
        assert (np.abs(out - answer) <= bound).all()


# ---- gathering rows


@pytest.mark.parametrize("row_bytes", [2, 4, 6, 16, 20, 48, 64, 600, 2064])
def test_gather(row_bytes, tmp_path):
    rng = np.random.default_rng(row_bytes)
    cases, expected = [], []
    for at, (edges, shift, out_shift) in enumerate([(1, 0, 0), (700, 0, 0), (1025, 0, 4), (300, 2, 0), (0, 0, 0)]):
        ids = IDS[at % 2]
        x, index = rng.integers(0, 256, (90, row_bytes), np.uint8), rng.integers(0, 90, edges).astype(ids)
        numbers = {"row_bytes": row_bytes, "out_shift": out_shift, **flags(ids=ids)}
        cases.append(Case("gather", numbers, {"x": (x, shift), "index": index}, 2, at))
        expected.append(x[index])
    for result, wanted in zip(run(cases, tmp_path), expected, strict=True):
        assert number(result["error"]) == 0
        assert result["out"] == wanted.tobytes()


# ---- padding rows


@pytest.mark.parametrize("dtype", STORAGES, ids=str)
def test_rows_are_padded(dtype, tmp_path):
    """Covers odd and even widths and strides, and x with and without an alignment of 4 bytes.

    These decide whether 16-bit elements are copied in pairs. The array ends with the last element of the last row, so
    that AddressSanitizer detects a read beyond it.
    """
    rng, size, whole = np.random.default_rng(3), dtype.itemsize, 16 // dtype.itemsize
    cases, expected = [], []
    for rows, width, gap, shift in [
        (1, 1, 0, 0), (33, 22, 0, 0), (34, 22, 0, size), (35, 22, 1, 0), (67, 33, 0, 0), (3, 33, 3, 0), (6, 70, 2, 0),
        (0, 5, 0, 0),
    ]:  # fmt: skip
        padded, stride = -(-width // whole) * whole, width + gap
        x = rng.standard_normal(max(rows * stride - gap, 0))
        numbers = {"rows": rows, "width": width, "stride": stride, "padded": padded, **dtype.flag()}
        cases.append(Case("pad", numbers, {"x": (dtype.encode(x), shift)}, 2))
        wanted = np.zeros((rows, padded))
        for row in range(rows):
            wanted[row, :width] = x[row * stride : row * stride + width]
        expected.append(dtype.encode(wanted).tobytes())
    for result, wanted in zip(run(cases, tmp_path), expected, strict=True):
        assert number(result["error"]) == 0
        assert result["out"] == wanted


# ---- gradients of max and min


def extremum_problem(rng, dtype, heads, head_dim, weighted, ids, reduce, special):
    """Return the numbers, arrays and answer of an extremum case.

    Features are few different numbers, so that messages tie, also at zero. The first and last rows have no edges, in
    both directions.
    """
    rows, cols, edges = 41, 37, 420
    dst, src = rng.integers(1, rows - 1, edges), rng.integers(1, cols - 1, edges)
    dst[:100] = 7
    src[50:150] = 9
    x = rng.integers(-2, 3, (cols, heads, head_dim)).astype(np.float64)
    weight = rng.choice([-1, 0, 0.5, 1, 2], (edges, heads)).astype(np.float64) if weighted else None
    grad = dtype.round(rng.standard_normal((rows, heads, head_dim))).astype(np.float64)
    if special:
        x[3, 0, 0], x[5, -1, -1], grad[7, 0, 0], grad[8, -1, -1] = np.nan, np.inf, np.inf, np.nan
    leaf_x = torch.tensor(x, requires_grad=True)
    leaf_weight = None if weight is None else torch.tensor(weight, requires_grad=True)
    ends = torch.tensor(src), torch.tensor(dst)
    out = reference.spmm(leaf_x, leaf_weight, *ends, rows, reduce)
    out.backward(torch.tensor(grad))
    result = out.detach().numpy()
    with np.errstate(all="ignore"):
        wins = x[src] * (1 if weight is None else weight[:, :, None]) == result[dst]
    into_row = (np.arange(rows)[:, None] == dst).astype(np.float64)
    sharers = (into_row @ wins.reshape(edges, -1)).reshape(result.shape) + (result == 0)
    forward, transposed = csr(dst, src, rows), csr(src, dst, cols)
    arrays = {f"{side}_{name}": array for side, three in (("forward", forward), ("transposed", transposed))
              for name, array in zip(("rowptr", "col", "perm"), three, strict=True)}  # fmt: skip
    arrays |= {"src": src.astype(ids), "dst": dst.astype(ids), "grad": dtype.encode(grad), "x": dtype.encode(x),
               "out": dtype.encode(result)}  # fmt: skip
    if weighted:
        arrays["weight"] = dtype.encode(weight)
    with np.errstate(all="ignore"):
        share = (grad.astype(dtype.compute) / sharers.astype(dtype.compute)).astype(np.float64)
    numbers = {"heads": heads, "head_dim": head_dim, "forward_cols": cols, "transposed_cols": rows,
               "split_above": rng.choice([40, 10**6]), "chunk_edges": rng.choice([17, 60, 200])}  # fmt: skip
    answer = {"share": share, "grad_x": leaf_x.grad.numpy()}
    if weighted:
        answer["grad_weight"] = leaf_weight.grad.numpy()
    return {**numbers, **flags(dtype=dtype, ids=ids)}, arrays, answer


@pytest.mark.parametrize("dtype", STORAGES, ids=str)
def test_extremum_gradients(dtype, tmp_path):
    rng = np.random.default_rng(4)
    cases, expected = [], []
    every = [1, 2, 3, 4, 5, 7, 8, 12, 16, 20, 31, 32, 64, 100, 128, 300]
    for at, head_dim in enumerate(every if dtype.itemsize > 2 else [1, 4, 7, 8, 9, 16, 22, 64, 128]):
        shapes = [(1, False), (1, True), (3, True), (2, False)]
        for heads, weighted in shapes[: 2 if head_dim > 64 else 4]:  # the reference takes long for wide heads
            special = (at + heads) % 4 == 0
            problem = rng, dtype, heads, head_dim, weighted, IDS[at % 2], ("max", "min")[(at + heads) % 2], special
            numbers, arrays, answer = extremum_problem(*problem)
            if at % 5 == 3:  # if one operand is not aligned to 16 bytes, all loads are of single elements
                name = ("grad", "x", "out")[at % 3]
                arrays[name] = (arrays[name], dtype.itemsize)
            cases.append(Case("extremum", numbers, arrays, 3, at))
            expected.append(answer)
    for case, result, answer in zip(cases, run(cases, tmp_path), expected, strict=True):
        assert number(result["error"]) == 0
        assert result.keys() == answer.keys() | {"error"}
        for name, value in answer.items():
            if name == "share":  # exact, and stored in the type that the kernels compute in
                found, eps, rounding = np.frombuffer(result[name], dtype.compute), 0, 0
            else:
                found, eps = dtype.decode(result[name]), 2000 * dtype.compute_eps
                rounding = 0 if dtype.itemsize > 2 else dtype.eps / 2
            np.testing.assert_allclose(found.reshape(value.shape), value, rtol=eps + rounding, atol=eps,
                                       err_msg=f"{name} of {case.numbers}")  # fmt: skip


# ---- the emulation itself


@pytest.mark.parametrize(
    ("which", "complaint"),
    [
        (1, "lane leaves the kernel while lanes 0000ffff wait for it in __shfl_xor_sync"),
        (2, "__any_sync, mask ffffffff: lanes 0000ffff are in __syncwarp"),
        (3, "leaves the kernel while 40 threads wait in __syncthreads"),
        (4, "leaves the kernel while 7 threads wait in __syncthreads"),
        (5, "the bits of value depend on the schedule"),
        (6, "the bits of value depend on the schedule"),
        (7, "AddressSanitizer: use-after-poison"),
        (8, "AddressSanitizer: heap-buffer-overflow"),
    ],
)
def test_the_emulation_detects_a_faulty_kernel(which, complaint, tmp_path):
    done, _ = start([Case("self_test", {"which": which}, {}, schedules=60)], tmp_path)
    if which in (7, 8) and "Sanitizer" not in done.stderr:
        pytest.skip("the compiler has no AddressSanitizer")
    assert done.returncode != 0
    assert complaint in done.stderr


def test_the_emulation_lets_a_correct_kernel_pass(tmp_path):
    (result,) = run([Case("self_test", {"which": 0}, {}, schedules=60)], tmp_path)
    assert number(result["value"]) == sum(range(5 * 64))
