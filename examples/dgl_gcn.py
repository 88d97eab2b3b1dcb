"""Train a two-layer GCN of DGL on a citation graph.

    python dgl_gcn.py           plain
    gnna run dgl_gcn.py         accelerated, without an edit
"""

import argparse
import os
import time

os.environ.setdefault("DGLBACKEND", "pytorch")
import dgl
import torch
import torch.nn.functional as F
from dgl.nn import GraphConv

from graphs import CLASSES, citation_graph

# import gnna_plugin; gnna_plugin.enable()  # the one line that accelerates this script


class GCN(torch.nn.Module):
    def __init__(self, in_feats, hidden_feats, out_feats):
        super().__init__()
        self.conv1 = GraphConv(in_feats, hidden_feats)
        self.conv2 = GraphConv(hidden_feats, out_feats)

    def forward(self, graph, x):
        x = F.dropout(self.conv1(graph, x).relu(), p=0.5, training=self.training)
        return self.conv2(graph, x)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()

    torch.manual_seed(0)
    data = citation_graph()
    x, y, train, test = (data[name] for name in ("x", "y", "train_mask", "test_mask"))
    graph = dgl.add_self_loop(dgl.graph(tuple(data["edge_index"]), num_nodes=len(y)))
    model = GCN(x.size(1), 64, CLASSES)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    start = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(graph, x)[train], y[train])
        loss.backward()
        optimizer.step()
        if epoch == 1 or epoch % 10 == 0:
            print(f"epoch {epoch:3d}  loss {loss.item():.4f}")
    print(f"{1e3 * (time.perf_counter() - start) / args.epochs:.1f} ms per epoch")

    model.eval()
    with torch.no_grad():
        right = model(graph, x).argmax(1) == y
    print(f"accuracy {right[test].float().mean().item():.3f}")


if __name__ == "__main__":
    main()
