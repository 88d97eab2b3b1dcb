"""Train a layer of your own: a MessagePassing class that no library knows, with a learned gate per edge.

The plug-in replaces the gather and the reduction that all layers share, so your classes are accelerated as PyG's are.

    python own_layer.py                     plain
    gnna run --report own_layer.py          accelerated, without an edit; at the end, what ran on the plug-in
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch_geometric.nn import MessagePassing

from graphs import CLASSES, citation_graph

# import gnna_plugin; gnna_plugin.enable()  # the one line that accelerates this script


class GatedConv(MessagePassing):
    """Averages sigmoid(a_i + b_j) * v_j over the neighbours j of node i, and adds a linear function of node i."""

    def __init__(self, in_channels, out_channels):
        super().__init__(aggr="mean")
        self.own, self.value, self.a, self.b = (torch.nn.Linear(in_channels, out_channels) for _ in range(4))

    def forward(self, x, edge_index):
        return self.own(x) + self.propagate(edge_index, a=self.a(x), b=self.b(x), v=self.value(x))

    def message(self, a_i, b_j, v_j):
        return torch.sigmoid(a_i + b_j) * v_j


class Net(torch.nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels):
        super().__init__()
        self.conv1 = GatedConv(in_channels, hidden_channels)
        self.conv2 = GatedConv(hidden_channels, out_channels)

    def forward(self, x, edge_index):
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=15)
    args = parser.parse_args()

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = {name: tensor.to(device) for name, tensor in citation_graph().items()}
    x, edge_index, y, train = (data[name] for name in ("x", "edge_index", "y", "train_mask"))
    model = Net(x.size(1), 32, CLASSES).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    start = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, edge_index)[train], y[train])
        loss.backward()
        optimizer.step()
        if epoch == 1 or epoch % 5 == 0:
            print(f"epoch {epoch:3d}  loss {loss.item():.4f}")
    print(f"{1e3 * (time.perf_counter() - start) / args.epochs:.1f} ms per epoch")
    with torch.no_grad():
        right = model(x, edge_index).argmax(1) == y
    print(f"accuracy {right[data['test_mask']].float().mean().item():.3f}")


if __name__ == "__main__":
    main()
