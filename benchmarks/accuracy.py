"""Compares the test accuracy of GCN on Planetoid graphs with and without the plug-in, seed by seed.

    GNNA_DATA=folder python benchmarks/accuracy.py [--graphs cora citeseer pubmed] [--seeds 10] [--json FILE]

The model has two layers, 16 hidden units and dropout 0.5. It is trained for 200 epochs by Adam with learning rate 0.01
and weight decay 5e-4, on row-normalised features and the public split. Both runs of a seed start from the same weights
and draw the same dropout. The table also has the relative difference of the two losses at epoch 50, in float64 and for
one seed.
"""

from __future__ import annotations

import argparse
import json
import statistics

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F
from torch_geometric.nn import GCNConv

import gnna_plugin
from gnna_plugin.data import load_graph


class GCN(torch.nn.Module):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = GCNConv(features, 16), GCNConv(16, classes)

    def forward(self, x, edge_index):
        x = F.dropout(x, training=self.training)
        x = F.dropout(self.first(x, edge_index).relu(), training=self.training)
        return self.second(x, edge_index)


def train(data: dict, seed: int, epochs: int) -> tuple[float, list[float]]:
    """Train a model and return (test accuracy in percent, loss of every epoch)."""
    torch.manual_seed(seed)
    model = GCN(data["x"].size(1), int(data["y"].max()) + 1).to(data["x"].device, data["x"].dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    losses = []
    for _ in range(epochs):
        model.train()
        optimizer.zero_grad()
        out = model(data["x"], data["edge_index"])
        loss = F.cross_entropy(out[data["train"]], data["y"][data["train"]])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        found = model(data["x"], data["edge_index"]).argmax(1)
    return 100 * (found == data["y"])[data["test"]].double().mean().item(), losses


def tensors(name: str, device: str, dtype: torch.dtype) -> dict:
    graph = load_graph(name)
    x = torch.from_numpy(graph.x).to(device, dtype)
    return {
        "x": x / x.sum(1, keepdim=True).clamp(min=1e-12),
        "edge_index": torch.stack([torch.from_numpy(graph.src), torch.from_numpy(graph.dst)]).to(device),
        "y": torch.from_numpy(graph.y).to(device),
        "train": torch.from_numpy(graph.train_mask).to(device),
        "test": torch.from_numpy(graph.test_mask).to(device),
    }


def measure(name: str, seeds: int, epochs: int, device: str) -> dict:
    data = tensors(name, device, torch.float32)
    plain, ours = [], []
    for seed in range(seeds):
        plain.append(train(data, seed, epochs)[0])
        with gnna_plugin.enabled(min_work=0):
            ours.append(train(data, seed, epochs)[0])
    exact = tensors(name, device, torch.float64)
    expected = train(exact, 0, 50)[1]
    with gnna_plugin.enabled(min_work=0):
        found = train(exact, 0, 50)[1]
    differences = [a - b for a, b in zip(ours, plain, strict=True)]
    return {
        "graph": name,
        "plain": statistics.mean(plain),
        "accelerated": statistics.mean(ours),
        "mean difference": statistics.mean(differences),
        "mean absolute difference": statistics.mean(map(abs, differences)),
        "largest difference": max(differences, key=abs),
        "float64 loss difference at epoch 50": abs(found[-1] - expected[-1]) / abs(expected[-1]),
        "fused calls": gnna_plugin.status().fused_calls,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", nargs="+", default=["cora", "citeseer", "pubmed"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json")
    args = parser.parse_args()
    rows = [measure(name, args.seeds, args.epochs, args.device) for name in args.graphs]
    table = Table(title=f"GCN, {args.seeds} seeds, {args.epochs} epochs, {args.device}: test accuracy in percent")
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            *(
                value if isinstance(value, str) else f"{value:.1e}" if "loss" in key else f"{value:.2f}"
                for key, value in row.items()
            )
        )
    Console(width=150).print(table)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
