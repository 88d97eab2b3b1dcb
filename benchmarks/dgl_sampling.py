"""Times training of GraphSAGE on sampled blocks in DGL. Every block is new, so no plan is used twice.

    python benchmarks/dgl_sampling.py --graph facebook-links [--fanouts 10 10] [--batch-size 1024] [--json FILE]

The same model is trained on the same batches by plain DGL and with the plug-in, in alternating epochs. Times are
medians in milliseconds per batch. "step" is forward, backward and optimizer. "sampling" is DGL's own in both. "losses
agree" is the share of batches whose two losses agree to 1e-4, which must be 100 %.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time

os.environ.setdefault("DGLBACKEND", "pytorch")

import dgl
import torch
from dgl.dataloading import DataLoader, NeighborSampler
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

import gnna_plugin
from gnna_plugin import allocator
from gnna_plugin.data import load_graph


class SAGE(nn.Module):
    """SAGEConv layers (mean) with ReLU between them, on one block per layer."""

    def __init__(self, in_dim: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        widths = [in_dim] + [hidden] * (layers - 1) + [classes]
        self.convs = nn.ModuleList(dgl.nn.SAGEConv(a, b, "mean") for a, b in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, blocks, x):
        for conv, block in zip(self.convs[:-1], blocks[:-1], strict=True):
            x = conv(block, x).relu()
        return self.convs[-1](blocks[-1], x)


class Trainer:
    """The training in plain DGL or with the plug-in.

    Holds the model, the optimizer, and the times and losses of the batches.
    """

    def __init__(self, size: tuple) -> None:
        torch.manual_seed(0)
        self.model = SAGE(*size)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.times: list[float] = []
        self.losses: list[float] = []

    def step(self, blocks, x, y, clock) -> None:
        start = clock()
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(blocks, x), y)
        loss.backward()
        self.optimizer.step()
        self.times.append((clock() - start) * 1e3)
        self.losses.append(float(loss.detach()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", default="community")
    parser.add_argument("--fanouts", type=int, nargs="+", default=[10, 10])
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--dim", type=int, default=96)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--classes", type=int, default=22)
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads; with one, times are its CPU time (default: %(default)s)"
    )
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    allocator.keep_freed_memory()  # for both

    loaded = load_graph(args.graph)
    graph = dgl.graph((torch.from_numpy(loaded.src), torch.from_numpy(loaded.dst)), num_nodes=loaded.num_nodes)
    torch.manual_seed(1)
    features = torch.randn(loaded.num_nodes, args.dim)
    labels = torch.randint(0, args.classes, (loaded.num_nodes,))
    nodes = torch.randperm(loaded.num_nodes)[: args.batches * args.batch_size]
    sampler = NeighborSampler(args.fanouts)

    size = (args.dim, args.hidden, args.classes, len(args.fanouts))
    trainers = {False: Trainer(size), True: Trainer(size)}  # key: whether the plug-in is on
    gnna_plugin.enable("dgl", keep_memory=False)
    sampling, edges = [], 0
    for epoch in range(args.epochs):
        for accelerated in (False, True) if epoch % 2 else (True, False):
            dgl.seed(epoch)  # the same batches for both
            torch.manual_seed(epoch)
            order = nodes[torch.randperm(nodes.numel())]
            loader = DataLoader(graph, order, sampler, batch_size=args.batch_size, drop_last=True)
            start = time.perf_counter()
            for inputs, outputs, blocks in loader:
                sampling.append((time.perf_counter() - start) * 1e3)
                x, y = features[inputs], labels[outputs]
                with contextlib.nullcontext() if accelerated else gnna_plugin.disabled():
                    trainers[accelerated].step(blocks, x, y, clock)
                edges = sum(block.num_edges() for block in blocks)
                start = time.perf_counter()
    plain, ours = trainers[False], trainers[True]
    status = gnna_plugin.status()
    gnna_plugin.disable()

    agree = [abs(a - b) <= 1e-4 * abs(a) for a, b in zip(plain.losses, ours.losses, strict=True)]
    before, after = (statistics.median(trainer.times[2:]) for trainer in (plain, ours))
    row = {
        "graph": args.graph,
        "batches": len(agree),
        "edges_in_last_batch": edges,
        "sampling_ms": statistics.median(sampling),
        "dgl_step_ms": before,
        "gnna_step_ms": after,
        "losses_agree": sum(agree) / len(agree),
        "fused_calls": status.fused_calls,
        "fallback_calls": status.fallback_calls,
    }
    table = Table(title=f"GraphSAGE, fan-outs {args.fanouts}, batches of {args.batch_size}, {args.threads} threads")
    for column in ("sampling", "step, DGL", "step, gnna_plugin", "speed-up", "losses agree", "fused calls"):
        table.add_column(column, justify="right")
    cells = [f"{row['sampling_ms']:.1f}", f"{before:.1f}", f"{after:.1f}", f"{before / after:.2f}x"]
    table.add_row(*cells, f"{row['losses_agree']:.0%}", str(status.fused_calls))
    Console().print(table)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(row, file, indent=1)


if __name__ == "__main__":
    main()
