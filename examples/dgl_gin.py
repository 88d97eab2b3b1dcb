"""Classify small graphs with a GIN of DGL. Every batch is a new graph, so its plan is used only once.

    python dgl_gin.py           plain
    gnna run dgl_gin.py         accelerated, without an edit
"""

import argparse
import os
import time

os.environ.setdefault("DGLBACKEND", "pytorch")
import dgl
import torch
import torch.nn.functional as F
from dgl.dataloading import GraphDataLoader
from dgl.nn import GINConv, SumPooling
from torch.nn import BatchNorm1d, Linear, ReLU, Sequential

from graphs import small_graphs

# import gnna_plugin; gnna_plugin.enable()  # the one line that accelerates this script


class GIN(torch.nn.Module):
    def __init__(self, in_feats, hidden_feats, out_feats, layers):
        super().__init__()
        widths = [in_feats] + [hidden_feats] * layers
        self.convs = torch.nn.ModuleList(
            GINConv(Sequential(Linear(a, b), BatchNorm1d(b), ReLU(), Linear(b, b)), "sum")
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.pool = SumPooling()
        self.readout = Linear(hidden_feats, out_feats)

    def forward(self, graph, x):
        for conv in self.convs:
            x = conv(graph, x).relu()
        return self.readout(self.pool(graph, x))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()

    torch.manual_seed(0)
    graphs = [(dgl.graph(tuple(ends), num_nodes=n), kind) for ends, n, kind in small_graphs(600)]
    train, test = GraphDataLoader(graphs[:400], batch_size=100, shuffle=True), dgl.batch([g for g, _ in graphs[400:]])
    model = GIN(16, 64, 3, layers=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    start = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        model.train()
        losses = []
        for batch, kinds in train:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch, torch.ones(batch.num_nodes(), 16)), kinds)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        if epoch == 1 or epoch % 2 == 0:
            print(f"epoch {epoch:3d}  loss {torch.stack(losses).mean().item():.4f}")
    print(f"{1e3 * (time.perf_counter() - start) / args.epochs:.1f} ms per epoch")

    model.eval()
    with torch.no_grad():
        right = model(test, torch.ones(test.num_nodes(), 16)).argmax(1) == torch.tensor([k for _, k in graphs[400:]])
    print(f"accuracy {right.float().mean().item():.3f}")


if __name__ == "__main__":
    main()
