"""Times training steps on fresh batches of small graphs: every batch is new, so nothing cached for a graph helps.

    python benchmarks/small_batches.py [--graphs 32 128 512 2048] [--models gin gcn sage gat rgcn] [--device cuda]
                                       [--steps 40] [--threads 1] [--min-work N] [--json FILE]

A batch is GRAPHS random graphs of 30 nodes and 60 edges in both directions, sorted as a PyG DataLoader gives them,
with 64 features. The models are five layers of width 64 with ReLU, global_add_pool and a linear classifier; RGCN has
two layers and four relations. Each batch is trained on twice, with and without the plug-in, by two copies of the model;
which comes first alternates. The table shows the median times and the median of the paired ratios, plain / plug-in.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F
from torch_geometric.nn import GATConv, GCNConv, GINConv, RGCNConv, SAGEConv, global_add_pool

import gnna_plugin

NODES, EDGES, WIDTH, CLASSES, RELATIONS, WARM_UP = 30, 60, 64, 10, 4, 10


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


CONVS = {
    "gin": lambda: [GINConv(mlp()) for _ in range(5)],
    "gcn": lambda: [GCNConv(WIDTH, WIDTH) for _ in range(5)],
    "sage": lambda: [SAGEConv(WIDTH, WIDTH) for _ in range(5)],
    "gat": lambda: [GATConv(WIDTH, WIDTH // 4, heads=4) for _ in range(5)],
    "rgcn": lambda: [RGCNConv(WIDTH, WIDTH, RELATIONS) for _ in range(2)],
}


class Classifier(nn.Module):
    """Graph classifier: convolutions, sum over each graph, linear layer."""

    def __init__(self, kind: str):
        super().__init__()
        self.convs, self.lin = nn.ModuleList(CONVS[kind]()), nn.Linear(WIDTH, CLASSES)
        self.relational = kind == "rgcn"

    def forward(self, x, edge_index, edge_type, batch, graphs):
        for conv in self.convs:
            x = (conv(x, edge_index, edge_type) if self.relational else conv(x, edge_index)).relu()
        return self.lin(global_add_pool(x, batch, graphs))


def make_batch(graphs: int, device: torch.device) -> tuple:
    """Return (x, edge_index, edge_type, batch, graphs) and the labels of one batch."""
    ends = torch.randint(0, NODES, (2, graphs, EDGES)) + NODES * torch.arange(graphs).view(1, -1, 1)
    both = torch.cat([ends, ends.flip(0)], 2)
    order = (both[0] * NODES * graphs + both[1]).argsort(1)
    edges = both.gather(2, order.expand(2, -1, -1)).reshape(2, -1)
    batch = torch.arange(graphs).repeat_interleave(NODES)
    tensors = torch.randn(graphs * NODES, WIDTH), edges, torch.randint(0, RELATIONS, (edges.size(1),)), batch
    return *(tensor.to(device) for tensor in tensors), graphs, torch.randint(0, CLASSES, (graphs,), device=device)


def measure(kind: str, graphs: int, device: torch.device, steps: int) -> dict:
    """Return the median ms of both and the median and quartiles of the ratios."""
    torch.manual_seed(0)
    models = [Classifier(kind).to(device)]
    models.append(copy.deepcopy(models[0]))
    optimizers = [torch.optim.Adam(model.parameters(), 1e-3) for model in models]
    times: list[list[float]] = [[], []]
    for number in range(WARM_UP + steps):
        *inputs, labels = make_batch(graphs, device)
        for ours in (number % 2, 1 - number % 2):
            mine = [t.clone() if isinstance(t, torch.Tensor) else t for t in inputs]
            with contextlib.nullcontext() if ours else gnna_plugin.disabled():
                finish(device)
                start = time.perf_counter()
                optimizers[ours].zero_grad()
                F.cross_entropy(models[ours](*mine), labels).backward()
                optimizers[ours].step()
                finish(device)
                times[ours].append((time.perf_counter() - start) * 1e3)
    plain, ours = (seconds[WARM_UP:] for seconds in times)
    low, middle, high = statistics.quantiles([a / b for a, b in zip(plain, ours, strict=True)], n=4)
    medians = {"plain_ms": statistics.median(plain), "ms": statistics.median(ours)}
    return {**medians, "ratio": middle, "quartiles": [low, high]}


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", nargs="+", type=int, default=[32, 128, 512, 2048])
    parser.add_argument("--models", nargs="+", choices=list(CONVS), default=list(CONVS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--min-work", type=int)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{args.threads} CPU thread(s)"
    gnna_plugin.enable("pyg", min_work=args.min_work)
    table = Table(title=f"fresh batches of small graphs on {where}, ms per training step")
    for heading in ("model", "graphs", "plain", "plug-in", "plain / plug-in", "quartiles"):
        table.add_column(heading, justify="right")
    rows = []
    for kind in args.models:
        for graphs in args.graphs:
            found = measure(kind, graphs, device, args.steps)
            rows.append({"model": kind, "graphs": graphs, **found})
            numbers = (f"{found[key]:.2f}" for key in ("plain_ms", "ms", "ratio"))
            table.add_row(kind, str(graphs), *numbers, "{:.2f}-{:.2f}".format(*found["quartiles"]))
    Console(width=110).print(table)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"device": where, "torch": torch.__version__, "rows": rows}, file)


if __name__ == "__main__":
    main()
