"""Times edge operations of DGL against the plug-in's: edge_softmax, and products of the features at both ends.

    python benchmarks/dgl_edges.py --graphs com-dblp facebook-links [--threads 1] [--json FILE]

The operations are called through dgl.ops, as in a user's script, by DGL and the plug-in in turn. edge_softmax is also
timed with its backward pass. Results are compared before they are timed. Times are medians in milliseconds; with one
thread they are its CPU time, which a busy machine changes least. "as stored" has the edges by row, as files do.
"shuffled" has them in random order, so that the features of a row's edges are far apart in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("DGLBACKEND", "pytorch")

import dgl
import torch
from rich.console import Console
from rich.table import Table

import gnna_plugin
from gnna_plugin import allocator
from gnna_plugin.adapters.dgl import edge_hooks
from gnna_plugin.data import load_graph


def cases(graph, edges: int):
    """Yield (name, call) of every operation."""
    for heads in (1, 4, 8):
        scores = torch.randn(edges, heads, 1, requires_grad=True)
        grad = torch.randn(edges, heads, 1)
        yield f"edge_softmax, {heads} heads", lambda s=scores: dgl.ops.edge_softmax(graph, s.detach())
        yield (
            f"edge_softmax, {heads} heads, with backward",
            lambda s=scores, g=grad: torch.autograd.grad(dgl.ops.edge_softmax(graph, s), s, g)[0],
        )
    for op in ("dot", "mul"):
        for shape in ((8,), (16,), (64,), (128,), (4, 16), (8, 8)):
            u, v = torch.randn(graph.num_nodes(), *shape), torch.randn(graph.num_nodes(), *shape)
            call = getattr(dgl.ops, f"u_{op}_v")
            yield f"u_{op}_v, {'x'.join(map(str, shape))}", lambda u=u, v=v, call=call: call(graph, u, v)


def compare(call, clock, repeats: int) -> tuple[float, float]:
    """Compare and time DGL and the plug-in; return the median milliseconds of both."""
    with gnna_plugin.disabled():
        torch.testing.assert_close(call(), call_ours(call), rtol=1e-3, atol=1e-4)
    times = ([], [])
    for _ in range(repeats):
        for ours in (False, True):
            start = clock()
            call_ours(call) if ours else call_dgls(call)
            times[ours].append((clock() - start) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def call_ours(call):
    with gnna_plugin.enabled("dgl", min_work=0):
        return call()


def call_dgls(call):
    with gnna_plugin.disabled():
        return call()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", nargs="+", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    allocator.keep_freed_memory()  # for both
    gnna_plugin.enable("dgl", min_work=0)
    edge_hooks.LEAST_WIDTH = 1  # also times widths that are otherwise left to DGL
    rows = []
    for name in args.graphs:
        loaded = load_graph(name)
        src, dst = torch.from_numpy(loaded.src), torch.from_numpy(loaded.dst)
        for order in ("as stored", "shuffled"):
            if order == "shuffled":
                permutation = torch.randperm(src.numel())
                src, dst = src[permutation], dst[permutation]
            graph = dgl.graph((src, dst), num_nodes=loaded.num_nodes)
            for case, call in cases(graph, src.numel()):
                theirs, ours = compare(call, clock, args.repeats)
                rows.append({"graph": name, "order": order, "case": case, "dgl_ms": theirs, "gnna_ms": ours})
    gnna_plugin.disable()
    table = Table(title=f"ms, {args.threads} threads")
    for column in ("graph", "edge order", "operation", "DGL", "gnna_plugin", "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        values = (row["dgl_ms"], row["gnna_ms"], row["dgl_ms"] / row["gnna_ms"])
        table.add_row(row["graph"], row["order"], row["case"], *(f"{value:.2f}" for value in values))
    Console(width=120).print(table)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
