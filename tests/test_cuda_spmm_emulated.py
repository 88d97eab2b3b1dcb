"""The CUDA kernels `row` and `group` of spmm, executed on the CPU by tests/simt, against NumPy in float64. The tests
cover every reduction, type and weighting, with launch configurations of the decider and others, in several orders of
blocks and threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pytest
from simt_driver import Case, run
from storage import BFLOAT16, FLOAT32, STORAGES, Storage

WIDTHS = [*range(1, 21), 22, 31, 32, 64, 96, 100, 128, 300]
HALF_WIDTHS = [1, 7, 8, 9, 16, 22, 64, 100, 128, 300]
REDUCES = ["sum", "mean", "max", "min"]  # as numbered in types.h
WEIGHTINGS = ["none", "edge", "edge indexed", "head", "head indexed", "feature", "feature indexed"]
REFUSED = 1  # cudaErrorInvalidValue
ROWS, GROUPS = 0, 1  # kernels, as numbered in decide.h
H200 = {"processors": 132, "l2_bytes": 50 << 20}


BY_GROUPS = {"kernel": GROUPS, "group_size": 4, "lanes": 8, "groups": 1, "vectors": 1, "vector_width": 1, "block": 64,
             "split_above": 32, "chunk_edges": 32}  # fmt: skip


def divisor(rng, n: int) -> int:
    return int(rng.choice([d for d in range(1, n + 1) if n % d == 0]))


@dataclass
class Problem:
    """One call of spmm and its answer."""

    dtype: Storage
    width: int
    reduce: str
    weighting: str
    config: dict  # {"decide": 1, processors, l2_bytes} to let the decider choose, or the fields of a KernelConfig
    degrees: np.ndarray = field(repr=False)
    seed: int
    cols: int = 33
    special: bool = False  # NaN and infinities
    padding: int = 0  # elements between the rows of x
    x_padded: bool = False  # whether these may be read
    shift: int = 0  # elements between an aligned address and the start of x
    out_shift: int = 0
    schedules: int = 4
    head_dim: int = 0  # 0: follows from the weighting
    arrays: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        rows, edges = len(self.degrees), int(self.degrees.sum())
        self.heads = {"h": divisor(rng, self.width), "f": self.width}.get(self.weighting[0], 1)
        if self.head_dim:
            self.heads = self.width // self.head_dim
        self.rowptr = np.concatenate([[0], np.cumsum(self.degrees)]).astype(np.int64)
        self.col = rng.integers(0, self.cols, edges).astype(np.int32)
        self.x = self.dtype.round(rng.standard_normal((self.cols, self.width)))
        if self.special:
            where = rng.random(self.x.shape) < 0.03
            self.x[where] = rng.choice([np.nan, np.inf, -np.inf], where.sum())
            self.x[self.col[self.rowptr[rows // 2] : self.rowptr[rows // 2 + 1]]] = -np.inf  # a row with no other value
        stride = self.width + self.padding
        padded = np.full((self.cols, stride), np.nan)
        padded[:, : self.width] = self.x
        flat = padded.ravel()
        if not self.x_padded:
            flat = flat[: (self.cols - 1) * stride + self.width]  # the last row has no padding to read
        self.arrays = {
            "rowptr": self.rowptr,
            "col": self.col,
            "x": (self.dtype.encode(flat), self.shift * self.dtype.itemsize),
        }
        self.slot_weight = None
        if self.weighting != "none":
            weight = self.dtype.round(rng.choice([-1.5, -1, 0.3, 1, 2.7], (edges, self.heads)))
            self.slot_weight, self.arrays["weight"] = weight, self.dtype.encode(weight)
            if "indexed" in self.weighting:
                index = rng.permutation(edges).astype(np.int32)
                self.slot_weight, self.arrays["weight_index"] = weight[index], index
        self.numbers = {
            "cols": self.cols, "x_stride": stride, "heads": self.heads, "head_dim": self.width // self.heads,
            "reduce": REDUCES.index(self.reduce), "out_shift": self.out_shift * self.dtype.itemsize,
            "x_padded": int(self.x_padded),
            "decide": 0, "kernel": ROWS, "group_size": 0, "max_degree": self.degrees.max(initial=0),
            **self.config, **self.dtype.flag(),
        }  # fmt: skip

    def case(self) -> Case:
        return Case("spmm", self.numbers, self.arrays, self.schedules, self.seed)

    def refused(self) -> bool:
        """Return whether check_config must refuse this configuration."""
        if "lanes" not in self.config or not len(self.col):
            return False
        c = self.config
        n = c["vector_width"]
        of_groups = c.get("kernel") == GROUPS
        if not of_groups and c["block"] > 256:
            return True
        tiles = 2 * (c["block"] // c["lanes"]) if of_groups else c["block"] // 32
        if tiles * c["lanes"] * c["vectors"] * n * np.dtype(self.dtype.compute).itemsize > 48 << 10:
            return True
        if of_groups and (c["vectors"] > 2 or c["split_above"] > c["group_size"] * (c["block"] // c["lanes"])):
            return True
        head_dim = self.width // self.heads if self.weighting != "none" and self.heads > 1 else 0
        units = [self.width + self.padding, self.shift, head_dim, 0 if self.x_padded else self.width]
        return n > 1 and any(unit % n for unit in units)

    def check(self, result: dict) -> None:
        assert int.from_bytes(result["error"], "little") == (REFUSED if self.refused() else 0), self
        if self.refused():
            return
        out = self.dtype.decode(result["out"]).reshape(len(self.degrees), self.width)
        expected, tolerance = self.answer()
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(out[~finite], expected[~finite].astype(out.dtype), str(self))
        wrong = ~(np.abs(out[finite] - expected[finite]) <= tolerance[finite])
        assert not wrong.any(), f"{self}: {np.argwhere(finite)[wrong][:5]} (row, column) and {wrong.sum()} in all"

    def answer(self):
        """Return the result and the rounding error that is allowed, which is 0 for max and min."""
        message = self.x[self.col]
        weight = None if self.slot_weight is None else np.repeat(self.slot_weight, self.width // self.heads, 1)
        with np.errstate(all="ignore"):
            if self.reduce in ("max", "min"):
                message = message if weight is None else message * weight  # rounded once, as in the kernel
                found = self.by_row(np.maximum if self.reduce == "max" else np.minimum, message)
                return self.dtype.round(found).astype(np.float64), np.zeros(found.shape)
            message = message.astype(np.float64) * (1 if weight is None else weight.astype(np.float64))
            divide = np.maximum(self.degrees, 1)[:, None] if self.reduce == "mean" else 1
            bound = (self.degrees[:, None] + 2) * self.dtype.compute_eps * self.by_row(np.add, np.abs(message))
            expected = self.by_row(np.add, message) / divide
            return expected, (bound / divide + self.dtype.rounding(expected)) * (1 + 1e-6)

    def by_row(self, ufunc, message):
        out = np.zeros((len(self.degrees), self.width), message.dtype)
        full = self.degrees > 0
        if full.any():
            out[full] = ufunc.reduceat(message, self.rowptr[:-1][full], axis=0)
        return out


def uneven(rng) -> np.ndarray:
    """Return degrees with empty rows at both ends, rows around the thresholds, and one row of many chunks."""
    degrees = np.concatenate([rng.integers(0, 9, 30), [40, 31, 32, 33, 64, 65], [600]])
    rng.shuffle(degrees)
    return np.concatenate([[0, 0], degrees, [0]])


def random_config(rng, full: int, width: int) -> dict:
    lanes, kernel = 2 ** int(rng.integers(0, 6)), rng.choice([ROWS, GROUPS])
    block = min(rng.choice([32, 64, 64, 256, 512], p=[0.1, 0.4, 0.2, 0.2, 0.1]), 256 if kernel == ROWS else 512)
    config = {
        "kernel": kernel, "lanes": lanes, "vectors": rng.choice([1, 2] if kernel == GROUPS else [1, 2, 4]),
        "groups": 2 ** int(rng.integers(0, 6 - np.log2(lanes))), "vector_width": rng.choice([1, full]), "block": block,
        "group_size": rng.choice([1, 3, 8, 16]), "split_above": rng.choice([0, 16, 32]),
        "chunk_edges": rng.choice([8, 16, 64]),
    }  # fmt: skip
    if width > 16 * lanes * config["vectors"] * config["vector_width"]:
        config["block"] = min(config["block"], 64)  # many tiles of large blocks take half a minute to emulate
    if kernel == GROUPS:
        most = config["group_size"] * (config["block"] // lanes)
        config["split_above"] = min(most, config["split_above"]) if rng.random() < 0.3 else most
    return config


@pytest.mark.parametrize("dtype", STORAGES, ids=str)
def test_widths_and_configurations(dtype, tmp_path):
    rng = np.random.default_rng(1)
    problems, full, widths = [], dtype.full, WIDTHS if dtype.itemsize > 2 else HALF_WIDTHS * 3
    # The reduction has period 16 and the weighting has period 7, so every pair occurs within 112 problems.
    for number, (width, kind) in enumerate(product(widths, range(4))):
        aligned = rng.random() < 0.6
        problems.append(
            Problem(
                dtype, width, REDUCES[(number // 4 + kind) % 4], WEIGHTINGS[number % 7],
                {"decide": 1, **H200} if kind == 0 else random_config(rng, full, width), uneven(rng), seed=number,
                special=rng.random() < 0.3, padding=0 if aligned else rng.integers(0, 6), shift=0 if aligned else
                rng.integers(0, 3), out_shift=rng.integers(0, 2) if rng.random() < 0.1 else 0,
                schedules=3 if width > 32 else 4,
            )
        )  # fmt: skip
    results = run([p.case() for p in problems], tmp_path)
    for problem, result in zip(problems, results, strict=True):
        problem.check(result)
    done = [(p, r) for p, r in zip(problems, results, strict=True) if not p.refused()]
    # Together the problems cover every pair, both kernels, one and several tiles, and both load widths.
    assert {(p.reduce, p.weighting) for p, _ in done} == {(r, w) for r in REDUCES for w in WEIGHTINGS}
    assert {p.config.get("kernel", ROWS) for p, _ in done} == {ROWS, GROUPS}
    assert {int.from_bytes(r["tiles"], "little") > 1 for _, r in done} == {True, False}
    assert {int.from_bytes(r["vector_width"], "little") for _, r in done} == {1, full}
    assert len(done) < len(problems) < 2 * len(done)


@pytest.mark.parametrize("dtype", STORAGES, ids=str)
def test_rows_that_end_inside_a_load(dtype, tmp_path):
    """Kernels may read x to the end of its stride, but the NaN there must not reach a result.

    Rows of out have no padding.
    """
    rng = np.random.default_rng(6)
    problems = []
    for number, (width, kernel) in enumerate(product((1, 3, 22, 47, 130), (ROWS, GROUPS))):
        config = random_config(rng, dtype.full, width) | {"vector_width": dtype.full, "kernel": kernel, "block": 64}
        config["vectors"] = min(config["vectors"], 2)
        if kernel == GROUPS:
            config["split_above"] = config["group_size"] * (64 // config["lanes"])
        weighting = ("none", "edge", "edge indexed")[number % 3]
        problems.append(
            Problem(dtype, width, REDUCES[number % 4], weighting, config, uneven(rng), seed=number,
                    padding=-width % dtype.full, x_padded=True, out_shift=number % 2, schedules=2)
        )  # fmt: skip
    assert not any(p.refused() for p in problems)
    for problem, result in zip(problems, run([p.case() for p in problems], tmp_path), strict=True):
        problem.check(result)


@pytest.mark.parametrize("reduce", REDUCES)
def test_a_row_that_the_decider_splits_into_many_chunks(reduce, tmp_path):
    """Chunks have 256 edges. One row has 34 chunks, more than a block of 64 threads has groups; another has three."""
    degrees = np.array([0, 34 * 256 - 5, 3, 700, 0])
    problems = [
        Problem(dtype, width, reduce, weighting, {"decide": 1, **H200}, degrees, seed=width)
        for dtype in STORAGES
        for width, weighting in ((1, "edge indexed"), (20, "head"), (24, "none"))
    ]
    for problem, result in zip(problems, run([p.case() for p in problems], tmp_path), strict=True):
        problem.check(result)
        assert int.from_bytes(result["chunks"], "little") == 37


@pytest.mark.parametrize("config", [
    {"kernel": ROWS, "lanes": 4, "groups": 2, "vectors": 2, "vector_width": 4, "block": 64, "split_above": 16},
    BY_GROUPS | {"vector_width": 4, "split_above": 16},
], ids=["rows", "groups"])  # fmt: skip
def test_chunks_are_combined_in_levels(config, tmp_path):
    """Chunks are combined in bundles of 32.

    The degrees give a single bundle, a second bundle with a single member, only full bundles, and three levels. The
    bundles of the upper levels have one, two or several members.
    """
    degrees = np.array([32, 33, 0, 1024, 17, 1025, 1057, 2100])
    problems = [
        Problem(FLOAT32, width, reduce, weighting, config | {"chunk_edges": 1}, degrees, seed=width, schedules=2)
        for width, reduce, weighting in ((20, "sum", "edge indexed"), (40, "mean", "none"), (24, "max", "head"))
    ]
    for problem, result in zip(problems, run([p.case() for p in problems], tmp_path), strict=True):
        problem.check(result)
        assert int.from_bytes(result["chunks"], "little") == degrees.sum()


def test_the_decider_uses_tiles_if_the_cache_is_small(tmp_path):
    """The decider chooses tiles if the L2 cache holds only a part of x and degrees are high and uneven."""
    for dtype in STORAGES:
        config = {"decide": 1, "processors": 2, "l2_bytes": 33 * 256}
        problem = Problem(dtype, 304, "sum", "edge", config, np.array([300] + [6] * 40), seed=5)
        (result,) = run([problem.case()], tmp_path)
        problem.check(result)
        assert int.from_bytes(result["tiles"], "little") == -(-304 * dtype.itemsize // 256)


def test_more_tiles_than_a_grid_dimension_allows(tmp_path):
    config = {"lanes": 1, "groups": 4, "vectors": 1, "vector_width": 4, "block": 32, "split_above": 9, "chunk_edges": 9}
    problem = Problem(FLOAT32, 4 * 65537, "max", "edge", config, np.array([3]), seed=3, cols=3, schedules=1)
    (result,) = run([problem.case()], tmp_path)
    problem.check(result)
    assert int.from_bytes(result["tiles"], "little") == 65537


@pytest.mark.parametrize("degrees", [[], [0, 0, 0], [1], [0, 5]])
def test_small_graphs(degrees, tmp_path):
    degrees = np.array(degrees, np.int64)
    problems = [Problem(dtype, 7, r, "edge", config, degrees, 1, cols=4)
                for dtype in (FLOAT32, BFLOAT16) for r in REDUCES for config in ({"decide": 1, **H200}, BY_GROUPS)
                ]  # fmt: skip
    for problem, result in zip(problems, run([p.case() for p in problems], tmp_path), strict=True):
        problem.check(result)


def test_a_configuration_out_of_bounds_is_refused(tmp_path):
    good = {"lanes": 8, "groups": 2, "vectors": 1, "vector_width": 4, "block": 64, "split_above": 9, "chunk_edges": 9}
    bad = [{"lanes": 3}, {"lanes": 64}, {"lanes": 32}, {"groups": 0}, {"vectors": 3}, {"vector_width": 2},
           {"block": 48}, {"block": 1024}, {"block": 0}, {"kernel": GROUPS, "group_size": 1},
           {"kernel": GROUPS, "group_size": 4, "vectors": 4}]  # fmt: skip
    fine = [{}, {"lanes": 1, "vector_width": 1}, {"kernel": GROUPS, "group_size": 2}]
    degrees = np.array([4, 12])
    cases = [Problem(FLOAT32, 16, "sum", "none", {**good, **c}, degrees, 1, schedules=1).case() for c in [*fine, *bad]]
    errors = [int.from_bytes(r["error"], "little") for r in run(cases, tmp_path)]
    assert errors == [0] * len(fine) + [REFUSED] * len(bad)


@pytest.mark.parametrize("config", [{"decide": 1, **H200}, BY_GROUPS], ids=["rows", "groups"])
def test_the_bits_of_a_row_do_not_depend_on_the_rows_around_it(config, tmp_path):
    """A schedule may therefore use any order of the rows.

    Each of these graphs has other rows in front, so that block boundaries fall elsewhere.
    """
    rng = np.random.default_rng(2)
    own = np.array([7, 33, 0, 130, 12, 31, 1, 29])
    alone = Problem(FLOAT32, 24, "sum", "none", config, own, seed=4)
    problems = [alone]
    for before in range(1, 9):
        extra = rng.integers(0, 20, before)
        problem = Problem(FLOAT32, 24, "sum", "none", config, np.concatenate([extra, own]), seed=4)
        col = np.concatenate([rng.integers(0, 33, extra.sum()).astype(np.int32), alone.col])
        problem.col = problem.arrays["col"] = col
        problem.x, problem.arrays["x"] = alone.x, alone.arrays["x"]
        problems.append(problem)
    results = run([p.case() for p in problems], tmp_path)
    for problem, result in zip(problems, results, strict=True):
        problem.check(result)
        assert result["out"][-len(results[0]["out"]) :] == results[0]["out"]


def test_a_block_that_is_too_large_is_refused(tmp_path):
    """Kernel `row` accepts up to 256 threads, kernel `group` up to 512.

    With 512 threads and loads of eight 16-bit elements, kernel `group` would need more than 48 KiB of shared memory.
    """
    config = {"lanes": 32, "groups": 1, "vectors": 2, "split_above": 9, "chunk_edges": 9, "group_size": 9}
    problems = [
        Problem(dtype, 16, "sum", "none", {**config, "kernel": kernel, "vector_width": n, "block": block},
                np.array([4, 12]), 1, schedules=1)
        for kernel in (ROWS, GROUPS) for dtype, n in ((BFLOAT16, 8), (FLOAT32, 4)) for block in (256, 512)
    ]  # fmt: skip
    assert [p.refused() for p in problems] == [False, True, False, True, False, True, False, False]
    for problem, result in zip(problems, run([p.case() for p in problems], tmp_path), strict=True):
        problem.check(result)
