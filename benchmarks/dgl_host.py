"""What a g-SpMM call costs on the host, DGL's own dispatch beside the plug-in's.

    python benchmarks/dgl_host.py

Microseconds per call, medians of rounds taken in turn; one thread, 100 nodes, 500 edges, width 8, which leaves the
kernels next to nothing to do.
"""

from __future__ import annotations

import os
import statistics
import time

os.environ.setdefault("DGLBACKEND", "pytorch")

import dgl
import dgl.backend.pytorch.sparse as sparse
import dgl.function as fn
import torch
from rich.console import Console
from rich.table import Table

import gnna_plugin


def main() -> None:
    torch.set_num_threads(1)
    graph = dgl.graph((torch.randint(0, 100, (500,)), torch.randint(0, 100, (500,))), num_nodes=100)
    x, weight = torch.randn(100, 8), torch.rand(500, 1)
    leaf = x.clone().requires_grad_()

    def update_all():
        with graph.local_scope():
            graph.srcdata["x"] = x
            graph.update_all(fn.copy_u("x", "m"), fn.sum("m", "y"))

    calls = {
        "_gspmm copy_lhs sum": lambda: sparse._gspmm(graph._graph, "copy_lhs", "sum", x, None),
        "copy_u_sum": lambda: dgl.ops.copy_u_sum(graph, x),
        "copy_u_mean": lambda: dgl.ops.copy_u_mean(graph, x),
        "copy_u_max": lambda: dgl.ops.copy_u_max(graph, x),
        "u_mul_e_sum": lambda: dgl.ops.u_mul_e_sum(graph, x, weight),
        "copy_u_sum with backward": lambda: dgl.ops.copy_u_sum(graph, leaf).sum().backward(),
        "update_all": update_all,
    }
    found = {name: {mode: [] for mode in ("DGL", "accelerated", "left to DGL")} for name in calls}
    for _ in range(5):
        for mode, min_work in (("DGL", None), ("accelerated", 0), ("left to DGL", 1 << 60)):
            gnna_plugin.disable()
            if min_work is not None:
                gnna_plugin.enable("dgl", min_work=min_work, keep_memory=False)
            for name, call in calls.items():
                call()
                start = time.perf_counter()
                for _ in range(500):
                    call()
                found[name][mode].append((time.perf_counter() - start) / 500 * 1e6)
    gnna_plugin.disable()
    table = Table(title="host time per call, us")
    for column in ("call", "DGL", "accelerated", "left to DGL"):
        table.add_column(column, justify="right")
    for name, modes in found.items():
        table.add_row(name, *(f"{statistics.median(values):.1f}" for values in modes.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
