"""Train a two-layer GAT of PyTorch Geometric. The softmax over the neighbours and the weighted sum are one kernel each.

    python gat.py           plain
    gnna run gat.py         accelerated, without an edit
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch_geometric.nn import GATConv

from graphs import CLASSES, citation_graph

# import gnna_plugin; gnna_plugin.enable()  # the one line that accelerates this script


class GAT(torch.nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels, heads):
        super().__init__()
        self.conv1 = GATConv(in_channels, hidden_channels, heads)
        self.conv2 = GATConv(heads * hidden_channels, out_channels, heads, concat=False)

    def forward(self, x, edge_index):
        return self.conv2(F.elu(self.conv1(x, edge_index)), edge_index)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=15)
    args = parser.parse_args()

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = {name: tensor.to(device) for name, tensor in citation_graph().items()}
    x, edge_index, y, train = (data[name] for name in ("x", "edge_index", "y", "train_mask"))
    model = GAT(x.size(1), 16, CLASSES, heads=4).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    start = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, edge_index)[train], y[train])
        loss.backward()
        optimizer.step()
        if epoch == 1 or epoch % 5 == 0:
            print(f"epoch {epoch:3d}  loss {loss.item():.4f}")
    print(f"{1e3 * (time.perf_counter() - start) / args.epochs:.1f} ms per epoch")

    model.eval()
    with torch.no_grad():
        right = model(x, edge_index).argmax(1) == y
    print(f"accuracy {right[data['test_mask']].float().mean().item():.3f}")


if __name__ == "__main__":
    main()
