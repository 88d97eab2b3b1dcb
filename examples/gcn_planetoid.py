"""Train a two-layer GCN of PyTorch Geometric on a citation graph.

    python gcn_planetoid.py                        on a generated graph, offline
    python gcn_planetoid.py --data planetoid:Cora  on Cora, which PyG downloads
    gnna run gcn_planetoid.py                      accelerated, without an edit
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch_geometric.nn import GCNConv

from graphs import CLASSES, load

# import gnna_plugin; gnna_plugin.enable()  # the one line that accelerates this script


class GCN(torch.nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels):
        super().__init__()
        self.conv1 = GCNConv(in_channels, hidden_channels)
        self.conv2 = GCNConv(hidden_channels, out_channels)

    def forward(self, x, edge_index):
        x = self.conv1(x, edge_index).relu()
        x = F.dropout(x, p=0.5, training=self.training)
        return self.conv2(x, edge_index)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="generated", help="generated, planetoid:NAME or an edge list")
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = load(args.data).to(device)
    model = GCN(data.num_features, 64, max(CLASSES, int(data.y.max()) + 1)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    start = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        model.train()
        optimizer.zero_grad()
        out = model(data.x, data.edge_index)
        loss = F.cross_entropy(out[data.train_mask], data.y[data.train_mask])
        loss.backward()
        optimizer.step()
        if epoch == 1 or epoch % 10 == 0:
            print(f"epoch {epoch:3d}  loss {loss.item():.4f}")
    print(f"{1e3 * (time.perf_counter() - start) / args.epochs:.1f} ms per epoch")

    model.eval()
    with torch.no_grad():
        right = model(data.x, data.edge_index).argmax(1) == data.y
    print(f"accuracy {right[data.test_mask].float().mean().item():.3f}")


if __name__ == "__main__":
    main()
