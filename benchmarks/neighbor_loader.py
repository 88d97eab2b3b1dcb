"""Times an epoch of GraphSAGE on sampled neighbours, split into sampling, plans and the model.

    python benchmarks/neighbor_loader.py [--graph com-dblp] [--fan-out 10 10] [--batch 1024] [--batches 40]

Needs pyg-lib or torch-sparse, as PyG's NeighborLoader does. Every batch is trained on by two copies of the model, with
and without the plug-in; which comes first alternates. "again" is the same step on the same batch once more, when its
plans are cached: what it saves is the cost of plans. Times are medians per batch.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GraphSAGE

import gnna_plugin
from gnna_plugin.data import load_graph

WIDTH, HIDDEN, CLASSES, WARM_UP = 64, 64, 16, 5


def load(name: str) -> Data:
    graph = load_graph(name)
    torch.manual_seed(0)
    return Data(
        x=torch.randn(graph.num_nodes, WIDTH),
        y=torch.randint(0, CLASSES, (graph.num_nodes,)),
        edge_index=torch.stack([torch.from_numpy(graph.src), torch.from_numpy(graph.dst)]).long(),
    )


class Training:
    """A model and its optimizer."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.optimizer = model, torch.optim.Adam(model.parameters(), 1e-3)

    def milliseconds(self, batch: Data) -> float:
        finish = torch.cuda.synchronize if batch.x.is_cuda else lambda: None
        finish()
        start = time.perf_counter()
        self.optimizer.zero_grad()
        out = self.model(batch.x, batch.edge_index)[: batch.batch_size]
        F.cross_entropy(out, batch.y[: batch.batch_size]).backward()
        self.optimizer.step()
        finish()
        return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", default="community")
    parser.add_argument("--fan-out", type=int, nargs="+", default=[10, 10])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    gnna_plugin.enable("pyg")
    loader = NeighborLoader(
        load(args.graph), args.fan_out, batch_size=args.batch, shuffle=True, num_workers=args.workers
    )
    model = GraphSAGE(WIDTH, HIDDEN, len(args.fan_out), CLASSES).to(device)
    trainings = Training(model), Training(copy.deepcopy(model))  # plain PyG, with the plug-in
    sampling: list[float] = []
    times: dict[str, list[float]] = {"PyG": [], "plug-in": [], "again": []}
    start = time.perf_counter()
    for number, sampled in enumerate(loader):
        sampling.append((time.perf_counter() - start) * 1e3)
        batch = sampled.to(device)
        for ours in (number % 2, 1 - number % 2):
            given = batch.clone()  # a new edge list, as the loader makes one for each batch
            with contextlib.nullcontext() if ours else gnna_plugin.disabled():
                times["plug-in" if ours else "PyG"].append(trainings[ours].milliseconds(given))
                if ours:
                    times["again"].append(copy.deepcopy(trainings[1]).milliseconds(given))
        if number + 1 == args.batches + WARM_UP:
            break
        start = time.perf_counter()
    medians = {name: statistics.median(values[WARM_UP:]) for name, values in (("sampling", sampling), *times.items())}
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    table = Table(title=f"{args.graph}, fan-out {args.fan_out}, batches of {args.batch}; {where}; ms per batch")
    for heading in ("sampling", "model, PyG", "model, plug-in", "of it plans", "model x", "total x"):
        table.add_column(heading, justify="right")
    plain, ours, sampled = medians["PyG"], medians["plug-in"], medians["sampling"]
    table.add_row(
        f"{sampled:.2f}", f"{plain:.2f}", f"{ours:.2f}", f"{max(0.0, ours - medians['again']):.2f}",
        f"{plain / ours:.2f}", f"{(sampled + plain) / (sampled + ours):.2f}",
    )  # fmt: skip
    Console(width=110).print(table)
    print(gnna_plugin.status())


if __name__ == "__main__":
    main()
