"""Times SpMM against what a user can install: torch.sparse.mm (cuSPARSE or MKL) and PyG's gather + scatter.

    python benchmarks/spmm.py --graphs cora com-dblp --dims 16 64 128 [--device cuda] [--weighted] [--json FILE]

Every timed result is first compared with float64 on random input. On a GPU two figures are taken: "eager", many calls
between two events, as a training loop issues them; and "graph", the same calls captured in a CUDA graph with inputs and
outputs rotating over 160 MB, which leaves the kernel alone. torch.sparse.mm cannot be captured everywhere, so where
capturing it fails its eager time stands. Medians; milliseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

import gnna_plugin
from gnna_plugin.graphs import load_graph

ROTATED_BYTES = 160 << 20


def time_eager(call, device: torch.device, inputs: list, repeats: int = 7) -> float:
    """Median over `repeats` batches of the time per call, inputs rotating."""
    for x in inputs[:2]:
        call(x)
    batch = max(3, min(50, len(inputs) * 3)) if device.type == "cuda" else 3
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for i in range(batch):
            call(inputs[i % len(inputs)])
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / batch * 1e3)
    return statistics.median(times)


def time_captured(call, inputs: list, repeats: int = 7) -> float | None:
    """Median time per call inside a replayed CUDA graph; None where the call cannot be captured."""
    calls = max(8, len(inputs))
    graph = torch.cuda.CUDAGraph()
    try:
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            call(inputs[0])
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            kept = [call(inputs[i % len(inputs)]) for i in range(calls)]
        del kept
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    times = []
    for _ in range(repeats + 1):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / calls)
    return statistics.median(times[1:])


def candidates(graph, device: torch.device, weight):
    """Name -> function of x, all computing the same sum; and the float64 answer."""
    src, dst = torch.from_numpy(graph.src).to(device), torch.from_numpy(graph.dst).to(device)
    n, values = graph.num_nodes, torch.ones(src.numel(), device=device) if weight is None else weight
    adjacency = torch.sparse_coo_tensor(torch.stack([dst, src]), values, (n, n)).coalesce().to_sparse_csr()

    def gather_scatter(x):
        messages = x.index_select(0, src)
        if weight is not None:
            messages = messages * weight.view(-1, 1)
        return x.new_zeros(n, x.size(1)).scatter_add_(0, dst.view(-1, 1).expand_as(messages), messages)

    def exact(x):
        messages = x.double().index_select(0, src) * values.double().view(-1, 1)
        return torch.zeros(n, x.size(1), dtype=torch.float64, device=device).index_add_(0, dst, messages)

    def ours(x):
        return torch.ops.gnna.spmm(x, weight, src, dst, n, "sum")

    return {"gnna": ours, "torch.sparse.mm": lambda x: torch.sparse.mm(adjacency, x), "PyG": gather_scatter}, exact


def measure(name: str, dim: int, device: torch.device, weighted: bool) -> dict:
    graph = load_graph(name)
    weight = torch.rand(len(graph.src), device=device) if weighted else None
    calls, exact = candidates(graph, device, weight)
    copies = 1
    if device.type == "cuda":
        copies = max(1, min(8, ROTATED_BYTES // max(graph.num_nodes * dim * 8, 1)))
    inputs = [torch.randn(graph.num_nodes, dim, device=device) for _ in range(copies)]
    answer = exact(inputs[0])
    row = {"graph": graph.name, "nodes": graph.num_nodes, "edges": len(graph.src), "dim": dim, "weighted": weighted}
    for label, call in calls.items():
        error = ((call(inputs[0]).double() - answer).abs().max() / answer.abs().max()).item()
        if error > 1e-4:
            raise SystemExit(f"{label} is wrong on {name} at width {dim}: relative error {error:.1e}")
        row[f"{label} eager"] = time_eager(call, device, inputs)
        if device.type == "cuda":
            row[f"{label} graph"] = time_captured(call, inputs) if label != "torch.sparse.mm" else None
        row[f"{label} error"] = error
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", nargs="+", default=["community"])
    parser.add_argument("--dims", nargs="+", type=int, default=[16, 64, 128])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--weighted", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    gnna_plugin.allocator.keep_freed_memory()  # every candidate alike, so that no one is charged for page faults
    rows = [measure(name, dim, device, args.weighted) for name in args.graphs for dim in args.dims]

    table = Table(title=f"SpMM, {'weighted ' if args.weighted else ''}float32 sum on {device}, ms (median)")
    timed = [key for key in rows[0] if key.endswith((" eager", " graph"))]
    for column in ("graph", "D", *timed, "x sparse.mm", "x PyG"):
        table.add_column(column, justify="right")
    for row in rows:
        row["x sparse.mm"] = row["torch.sparse.mm eager"] / row["gnna eager"]
        row["x PyG"] = row["PyG eager"] / row["gnna eager"]
        cells = ["-" if row[key] is None else f"{row[key]:.4f}" for key in timed]
        table.add_row(row["graph"], str(row["dim"]), *cells, f"{row['x sparse.mm']:.2f}", f"{row['x PyG']:.2f}")
    Console(width=180).print(table)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"device": str(device), "torch": torch.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
