"""Times the SpMM kernels of GE-SpMM (SC 2020) and RoDe (PPoPP 2024) against gnna's, in one process. Needs a GPU.

    git clone https://github.com/hgyhungry/ge-spmm; git clone https://github.com/CRAFT-THU/RoDe
    python benchmarks/research.py --ge-spmm ge-spmm --rode RoDe --graphs cora DD com-dblp [--widths 16 64 128]

The nvcc in the PATH compiles their sources in place. The time of a library is that of its fastest launch: one of three
kernels of GE-SpMM, or RoDe's two kernels on one stream or on two. RoDe needs widths that are multiples of 32. Its
kernels add to the result, which must be zeroed before; that is not timed. Both libraries multiply by a value per edge,
which is 1 here; "weighted" is gnna with such weights. Every result is compared with float64 before it is timed. Times
are medians of --rounds captured graphs, in microseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import gnna_plugin
from gnna_plugin.data import load_graph
from gnna_plugin.data.problem import Problem, error_of, exact
from gnna_plugin.tools.bench.timing import Rounds, buffers, time_calls

PART, STEP, PADDING = 512, 32, 4  # RoDe's, in slots (one per edge): largest part, unit of a part, a load
CALLS_TO_SORT = 8  # more than enough: a plan on a GPU sorts its rows by degree at its sixth call


def compiled(ge_spmm: Path, rode: Path, into: Path) -> ctypes.CDLL:
    library = into / "research.so"
    if not library.exists():
        into.mkdir(parents=True, exist_ok=True)
        text = (ge_spmm / "spmm_test.cu").read_text()
        kernels = text[text.index("template<typename T>") : text.index("void spmmWrapper")]
        (into / "ge_spmm.inl").write_text(kernels)
        major, minor = torch.cuda.get_device_capability() if torch.cuda.is_available() else (9, 0)
        command = [
            "nvcc", "-O3", "-std=c++17", f"-arch=sm_{major}{minor}", "-shared", "-Xcompiler=-fPIC", "-w",
            f'-DGE_SPMM="{(into / "ge_spmm.inl").resolve()}"', f'-DRODE="{(rode / "RoDe_SpMM/RoDeSpmm.cu").resolve()}"',
            f"-I{rode / 'RoDe_SpMM'}", f"-I{rode / 'utils'}", "-include", "cstdint",
            str(Path(__file__).with_suffix(".cu")), "-o", str(library),
        ]  # fmt: skip
        subprocess.run(command, check=True)
    return ctypes.CDLL(str(library.resolve()))


def parts_of(rowptr: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the rows into parts as RoDe does.

    Returns:
        int32 arrays: the row of every full part; the first slot of every full part, followed by the number of slots;
        the rows that have a rest.
    """
    part_row, part_start, rest_row = [], [], []
    for row, (begin, end) in enumerate(zip(rowptr[:-1].tolist(), rowptr[1:].tolist(), strict=True)):
        before = begin % PADDING
        slots = end - begin + before
        if slots > PART:
            part_row.append(row)
            part_start.append(begin)
            begin, slots = begin + PART - before, slots - PART
        while slots > PART:
            part_row.append(row)
            part_start.append(begin)
            begin, slots = begin + PART, slots - PART
        if slots >= STEP:
            part_row.append(row)
            part_start.append(begin)
        if slots % STEP:
            rest_row.append(row)
    if not part_row:  # RoDe cannot be launched without parts, and a part without slots adds nothing
        part_row, part_start = [0], [0]
        rowptr = np.zeros(1, dtype=rowptr.dtype)
    return tuple(np.asarray(a, dtype=np.int32) for a in (part_row, [*part_start, rowptr[-1]], rest_row))


def launches(library, problem: Problem, operands: list[torch.Tensor], cut, csr) -> dict:
    """Return {name: call} of gnna and of every launch of the other libraries.

    All results are checked first. A call is a function of the operand's number that returns the result.

    Raises:
        RuntimeError: a launch failed, or a result is wrong.
    """
    device, width, rows = problem.src.device, problem.width, problem.num_nodes
    rowptr, col, values = csr
    part_row, part_start, rest_row = cut
    out = torch.zeros(rows, width, device=device)
    side = torch.cuda.Stream()

    def pointers(*tensors):
        return [ctypes.c_void_p(t.data_ptr()) for t in tensors]

    def checked(error: int):
        if error:
            raise RuntimeError(f"a research kernel's launch failed with CUDA error {error}")
        return out

    def ge_spmm(way: int):
        def call(i):
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            return checked(
                library.ge_spmm(way, rows, width, *pointers(rowptr, col, values, operands[i].detach(), out), stream)
            )

        return call

    def rode(two_streams: bool):
        def call(i):
            one = torch.cuda.current_stream()
            other = side if two_streams else one
            other.wait_stream(one)
            streams = [ctypes.c_void_p(s.cuda_stream) for s in (one, other)]
            where = pointers(values, col, rowptr, part_row, rest_row, part_start, operands[i].detach(), out)
            counts = (int(width % 64 == 0), part_row.numel(), rest_row.numel(), rows, width)
            result = checked(library.rode(*counts, *where, *streams))
            one.wait_stream(other)
            return result

        return call

    ones = torch.ones(problem.edges, device=device)
    found = {
        "gnna": lambda i: torch.ops.gnna.spmm(operands[i].detach(), None, problem.src, problem.dst, rows, "sum"),
        "weighted": lambda i: torch.ops.gnna.spmm(operands[i].detach(), ones, problem.src, problem.dst, rows, "sum"),
    }
    found |= {f"GE-SpMM {way}": ge_spmm(way) for way in (1, 2, 3)}
    if width % STEP == 0:
        found |= {"RoDe 1": rode(False), "RoDe 2": rode(True)}
    expected = exact(problem, [operands[0]], None)
    for name, call in found.items():
        for _ in range(CALLS_TO_SORT if name in ("gnna", "weighted") else 1):
            out.zero_()
            result = call(0)
        torch.cuda.synchronize()
        error = error_of([result], expected, False)
        if not error < 1e-5:
            raise RuntimeError(f"{name} is wrong at width {width}: relative error {error:.1e}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ge-spmm", type=Path, required=True, help="folder of the GE-SpMM checkout")
    parser.add_argument("--rode", type=Path, required=True, help="folder of the RoDe checkout")
    parser.add_argument("--graphs", nargs="+", default=["community"])
    parser.add_argument("--widths", nargs="+", type=int, default=[16, 32, 64, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--build", type=Path, default=Path("build/research"), help="folder of the compiled library")
    args = parser.parse_args()
    library = compiled(args.ge_spmm, args.rode, args.build)
    if not torch.cuda.is_available():
        sys.exit("compiled; timing needs a GPU that torch can use")
    device = torch.device("cuda")
    table = Table(title=f"sum, float32, us on {torch.cuda.get_device_name()}; x: time / time of gnna")
    for heading in ("graph", "width", "gnna", "weighted", "GE-SpMM", "x", "RoDe", "x"):
        table.add_column(heading, justify="right")
    ratios: dict[tuple[int, str], list[float]] = {}
    for name in args.graphs:
        graph = load_graph(name)
        order = np.argsort(graph.dst, kind="stable")
        rowptr = np.concatenate([[0], np.cumsum(np.bincount(graph.dst, minlength=graph.num_nodes))])
        # Four more slots, because RoDe loads four at a time.
        col = np.concatenate([graph.src[order], np.zeros(4, graph.src.dtype)])
        csr = [torch.from_numpy(a.astype(np.int32)).to(device) for a in (rowptr, col)]
        csr.append(torch.ones(len(col), device=device))
        cut = [torch.from_numpy(a).to(device) for a in parts_of(rowptr)]
        src, dst = (torch.from_numpy(a).to(device) for a in (graph.src, graph.dst))
        for width in args.widths:
            problem = Problem("spmm", src, dst, graph.num_nodes, width)
            copies = buffers(graph.num_nodes * width * 8, device)
            operands = [problem.operands(seed)[0] for seed in range(copies)]
            with torch.no_grad():
                calls = launches(library, problem, operands, cut, csr)
                times, _ = time_calls(calls, device, Rounds(args.rounds, 0.01, args.rounds), copies)
            best = {
                peer: min((t.ms for label, t in times.items() if label.startswith(peer)), default=None)
                for peer in ("gnna", "weighted", "GE-SpMM", "RoDe")
            }
            cells = [f"{best['gnna'] * 1e3:.1f}", f"{best['weighted'] * 1e3:.1f}"]
            for peer in ("GE-SpMM", "RoDe"):
                ratio = best[peer] / best["gnna"] if best[peer] else None
                cells += [f"{best[peer] * 1e3:.1f}", f"{ratio:.2f}"] if ratio else ["-", "-"]
                if ratio:
                    ratios.setdefault((width, peer), []).append(ratio)
            table.add_row(graph.name, str(width), *cells)
        gnna_plugin.clear_cache()
    console = Console(width=120)
    console.print(table)
    for (width, peer), found in sorted(ratios.items()):
        console.print(
            f"width {width}: gnna is {np.exp(np.mean(np.log(found))):.2f} times as fast as {peer} "
            f"(geometric mean of {len(found)} graphs)"
        )


if __name__ == "__main__":
    main()
