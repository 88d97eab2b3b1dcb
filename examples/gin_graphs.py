"""Classify small graphs with a GIN of PyTorch Geometric. Every batch is a new graph, so its plan is used only once.

    python gin_graphs.py            plain
    gnna run gin_graphs.py          accelerated, without an edit
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch.nn import BatchNorm1d, Linear, ReLU, Sequential
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINConv, global_add_pool

from graphs import small_graphs

# import gnna_plugin; gnna_plugin.enable()  # the one line that accelerates this script


class GIN(torch.nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels, layers):
        super().__init__()
        widths = [in_channels] + [hidden_channels] * layers
        self.convs = torch.nn.ModuleList(
            GINConv(Sequential(Linear(a, b), BatchNorm1d(b), ReLU(), Linear(b, b)))
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.readout = Linear(hidden_channels, out_channels)

    def forward(self, x, edge_index, batch):
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        return self.readout(global_add_pool(x, batch))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    graphs = [Data(x=torch.ones(n, 16), edge_index=e, y=torch.tensor(kind)) for e, n, kind in small_graphs(600)]
    train, test = DataLoader(graphs[:400], batch_size=100, shuffle=True), DataLoader(graphs[400:], batch_size=100)
    model = GIN(16, 64, 3, layers=3).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    start = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        model.train()
        losses = []
        for data in train:
            data = data.to(device)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(data.x, data.edge_index, data.batch), data.y)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        if epoch == 1 or epoch % 2 == 0:
            print(f"epoch {epoch:3d}  loss {torch.stack(losses).mean().item():.4f}")
    print(f"{1e3 * (time.perf_counter() - start) / args.epochs:.1f} ms per epoch")

    model.eval()
    with torch.no_grad():
        right = [model(d.x, d.edge_index, d.batch).argmax(1) == d.y for d in (data.to(device) for data in test)]
    print(f"accuracy {torch.cat(right).float().mean().item():.3f}")


if __name__ == "__main__":
    main()
