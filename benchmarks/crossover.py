"""Finds the work (edges x feature width) from which the plug-in is not slower than PyG: the evidence for min_work.

    python benchmarks/crossover.py [--device cuda] [--threads 2]

A forward and backward pass of one layer on random graphs, plain, accelerated (min_work=0) and enabled but left to PyG,
taken in turn; medians in microseconds. The last column is what merely having the plug-in on costs a small layer.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

import gnna_plugin

LAYERS = {
    "GCNConv": lambda width: GCNConv(width, width),
    "SAGEConv": lambda width: SAGEConv(width, width),
    "GATConv": lambda width: GATConv(width, width // 4, heads=4),
}
MODES = {"plain": None, "accelerated": 0, "left": 1 << 60}


def step_time(layer, x, edge_index, seconds: float = 0.25) -> float:
    """Median microseconds of a forward and backward pass."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        layer.zero_grad()
        layer(x, edge_index).sum().backward()
        if x.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = Table(title=f"one layer, forward and backward, us ({args.device})")
    for column in ("layer", "edges", "width", "edges x width", *MODES, "plain / accelerated", "plain / left"):
        table.add_column(column, justify="right")
    for name, make in LAYERS.items():
        for edges in (300, 1000, 3000, 10_000, 30_000, 100_000):
            for width in args.widths:
                nodes = max(edges // 5, 2)
                edge_index = torch.randint(0, nodes, (2, edges), device=args.device)
                x = torch.randn(nodes, width, device=args.device, requires_grad=True)
                layer, found = make(width).to(args.device), {mode: [] for mode in MODES}
                for _ in range(3):
                    for mode, min_work in MODES.items():
                        if min_work is None:
                            gnna_plugin.disable()
                        else:
                            gnna_plugin.enable(min_work=min_work, keep_memory=False)
                        found[mode].append(step_time(layer, x, edge_index))
                us = {mode: statistics.median(values) for mode, values in found.items()}
                ratios = (us["plain"] / us["accelerated"], us["plain"] / us["left"])
                work = f"{edges * width:,}"
                cells = [f"{value:.0f}" for value in us.values()] + [f"{ratio:.2f}" for ratio in ratios]
                table.add_row(name, f"{edges:,}", str(width), work, *cells)
    gnna_plugin.disable()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
