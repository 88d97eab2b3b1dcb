"""Times single PyG layers, forward and backward, with and without the plug-in, in one process.

The layers are attention with dot products as scores, and layers whose messages cannot be fused.

    python benchmarks/layers.py --graphs com-dblp facebook-links [--layers TransformerConv EdgeConv] [--device cuda]

"error" is the relative difference of the results. Times are medians of --rounds calls after a warm-up, in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from torch_geometric.nn import EdgeConv, GATv2Conv, GINEConv, SuperGATConv, TransformerConv

import gnna_plugin
from gnna_plugin.data import load_graph
from gnna_plugin.data.problem import error_of

WIDTH = 32
LAYERS = {
    "TransformerConv": lambda: TransformerConv(WIDTH, WIDTH // 4, heads=4),
    "SuperGATConv": lambda: SuperGATConv(WIDTH, WIDTH // 4, heads=4),
    "GATv2Conv": lambda: GATv2Conv(WIDTH, WIDTH // 4, heads=4),
    "EdgeConv": lambda: EdgeConv(torch.nn.Linear(2 * WIDTH, WIDTH)),
    "GINEConv": lambda: GINEConv(torch.nn.Linear(WIDTH, WIDTH), edge_dim=WIDTH),
}


def step(layer, inputs):
    """Run forward and backward, and return (output, gradient of the features).

    The loss is the sum of squares of the output.
    """
    leaf = inputs[0].detach().requires_grad_()
    layer.zero_grad()
    out = layer(leaf, *inputs[1:])
    out.square().sum().backward()
    return out.detach(), leaf.grad


def milliseconds(layer, inputs, rounds: int) -> float:
    def finish():
        if inputs[0].is_cuda:
            torch.cuda.synchronize()

    times = []
    for i in range(rounds + 3):
        finish()
        start = time.perf_counter()
        step(layer, inputs)
        finish()
        times += [(time.perf_counter() - start) * 1e3] if i >= 3 else []
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", nargs="+", default=["community"])
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=["TransformerConv", "EdgeConv"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    device = torch.device(args.device)
    table = Table(title=f"width {WIDTH}, float32, forward and backward on {device}, ms (median)")
    for heading in ("graph", "layer", "PyG", "gnna", "x", "error"):
        table.add_column(heading, justify="right")
    for name in args.graphs:
        graph = load_graph(name)
        edges = torch.stack([torch.from_numpy(graph.src), torch.from_numpy(graph.dst)]).to(device)
        for kind in args.layers:
            torch.manual_seed(0)
            inputs = [torch.randn(graph.num_nodes, WIDTH, device=device), edges]
            if kind == "GINEConv":
                inputs.append(torch.randn(graph.num_edges, WIDTH, device=device))
            layer = LAYERS[kind]().to(device)
            expected, plain = step(layer, inputs), milliseconds(layer, inputs, args.rounds)
            with gnna_plugin.enabled("pyg"):
                found, ours = step(layer, inputs), milliseconds(layer, inputs, args.rounds)
            off = error_of(found, expected, by_norm=False)
            cells = f"{plain:.2f}", f"{ours:.2f}", f"{plain / ours:.2f}", f"{off:.0e}"
            table.add_row(graph.name, kind, *cells)
            gnna_plugin.clear_cache()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
