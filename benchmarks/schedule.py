"""Times SpMM with different orders of the rows, and computes after how many calls an order has repaid its cost.

    python benchmarks/schedule.py --graphs com-dblp DD standin:amazon0601 --dims 16 64 128 [--device cuda] [--json FILE]

SpMM is a float32 sum on each graph, with its own ids and with shuffled ids. The variants are rows in ascending order
("unordered"), rows sorted by degree as in plans on a GPU after some calls ("sorted"; the same as unordered on a CPU),
rows ordered by community ("community"), and the graph renumbered by Rabbit order ("physical"). Every result is compared
with that of unordered rows before it is timed: bit for bit, except for the renumbered graph. The variants are timed in
turn. Times are medians in milliseconds. "cost" is the time of finding the order by community on the CPU and of storing
the plan in that order. "break-even" is the number of calls after which the order by community has saved its cost.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import gnna_plugin
from gnna_plugin.data import load_graph
from gnna_plugin.extractor import graph_summary, modularity
from gnna_plugin.orders import rabbit_order
from gnna_plugin.status import status
from gnna_plugin.tools.bench.timing import Rounds, buffers, time_calls

KINDS = ("sorted", "community")
CALLS_TO_SORT = 8  # more than enough: a plan on a GPU sorts its rows by degree at its sixth call


def spmm(x, ends, n):
    return torch.ops.gnna.spmm(x, None, ends[0], ends[1], n, "sum")


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work, device: torch.device):
    """Run work() and return (its result, seconds)."""
    finish(device)
    start = time.perf_counter()
    result = work()
    finish(device)
    return result, time.perf_counter() - start


def prepare(ends: torch.Tensor, n: int, device: torch.device):
    """Build an edge list for each variant, and store its plan in the variant's order.

    Returns:
        {variant: edge list}, {variant: cost in ms}, and the permutation and the communities of the renumbered graph.
    """
    lists, costs = {"unordered": ends}, {"unordered": 0.0}
    on_cpu = ends.cpu()
    for kind in KINDS:
        lists[kind] = ends.clone()
        spmm(torch.ones(n, 1, device=device), lists[kind], n)  # builds the plan, which is not part of the cost
        if kind == "sorted":
            torch.ops.gnna.set_auto_schedule(True)
            for _ in range(CALLS_TO_SORT):
                spmm(torch.ones(n, 1, device=device), lists[kind], n)
            torch.ops.gnna.set_auto_schedule(False)
            costs[kind] = sum(s.stored_in for s in status().schedules if s.kind == "degree") * 1e3
            continue
        order, found = seconds(lambda k=kind: torch.ops.gnna.community_order(*on_cpu, n, n), device)
        done, stored = seconds(lambda k=kind, o=order: torch.ops.gnna.set_schedule(*lists[k], n, n, o), device)
        assert done
        costs[kind] = (found + stored) * 1e3
    (permutation, community), found = seconds(lambda: rabbit_order(on_cpu, n), device)
    permutation = permutation.to(device)
    inverse = torch.empty_like(permutation)
    inverse[permutation] = torch.arange(n, device=device)
    lists["physical"], costs["physical"] = inverse[ends], found * 1e3
    return lists, costs, permutation, community


def measure(graph, shuffled: bool, dims: list[int], device: torch.device, rounds: int) -> list[dict]:
    n, ends = graph.num_nodes, torch.from_numpy(np.stack([graph.src, graph.dst]))
    if shuffled:
        ends = torch.from_numpy(np.random.default_rng(0).permutation(n))[ends]
    facts = graph_summary(ends, n)
    lists, costs, permutation, community = prepare(ends.to(device), n, device)
    after = graph_summary(lists["physical"].cpu(), n)
    rows = []
    for dim in dims:
        copies = buffers(n * dim * 8, device)
        inputs = [torch.randn(n, dim, device=device) for _ in range(copies)]
        moved = [x[permutation] for x in inputs]
        given = {name: moved if name == "physical" else inputs for name in lists}
        expected = spmm(inputs[0], lists["unordered"], n)
        for kind in KINDS:
            if not torch.equal(spmm(inputs[0], lists[kind], n), expected):
                raise SystemExit(f"the schedule {kind} changes bits on {graph.name} at width {dim}")
        torch.testing.assert_close(spmm(moved[0], lists["physical"], n), expected[permutation], rtol=1e-4, atol=1e-3)
        calls = {name: lambda i, x=given[name], e=edges: spmm(x[i], e, n) for name, edges in lists.items()}
        timings, _ = time_calls(calls, device, Rounds(rounds, 0.02), copies)
        found = {name: timing.ms for name, timing in timings.items()}
        saved = {name: found["unordered"] - found[name] for name in lists}
        rows.append({
            "graph": graph.name, "ids": "shuffled" if shuffled else "natural", "nodes": n, "edges": graph.num_edges,
            "dim": dim, "edge_span": facts.average_edge_span, "edge_span_after": after.average_edge_span,
            "modularity": modularity(ends, community), "ms": found, "cost_ms": costs,
            "break_even": {name: costs[name] / saved[name] if saved[name] > 0 else None for name in lists},
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", nargs="+", default=["community"])
    parser.add_argument("--dims", nargs="+", type=int, default=[16, 64, 128])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    gnna_plugin.allocator.keep_freed_memory()
    torch.ops.gnna.set_auto_schedule(False)
    torch.ops.gnna.set_max_plan_bytes(1 << 40)  # an evicted plan would be built again in ascending order
    rows = []
    table = Table(title=f"SpMM by schedule, float32 sum on {device}, ms (median)")
    columns = "graph|ids|D|unordered|sorted|community|physical|x sorted|x community|x physical|cost|break-even"
    for column in columns.split("|"):
        table.add_column(column, justify="right")
    for name in args.graphs:
        graph = load_graph(name)
        for shuffled in (False, True):
            gnna_plugin.clear_cache()
            for row in measure(graph, shuffled, args.dims, device, args.rounds):
                rows.append(row)
                ms, calls = row["ms"], row["break_even"]["community"]
                cells = [f"{ms[k]:.3f}" for k in ("unordered", *KINDS, "physical")]
                cells += [f"{ms['unordered'] / ms[k]:.2f}" for k in (*KINDS, "physical")]
                cells += [f"{row['cost_ms']['community']:.0f}", "never" if calls is None else f"{calls:.0f}"]
                table.add_row(row["graph"], row["ids"], str(row["dim"]), *cells)
    Console(width=160).print(table)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"device": str(device), "torch": torch.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
