"""Train a two-layer GCN with PyTorch Geometric: an ordinary script, and the one line that accelerates it.

Run it as `python gcn_pyg.py`; delete the marked line to see the difference. The graph is a random one that PyG draws.
"""

import time

import torch
import torch.nn.functional as F
from torch_geometric.datasets import FakeDataset
from torch_geometric.nn import GCNConv

import gnna_plugin; gnna_plugin.enable()  # the added line


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
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = FakeDataset(num_graphs=1, avg_num_nodes=20_000, avg_degree=30, num_channels=64, num_classes=10)
    data = dataset[0].to(device)
    model = GCN(dataset.num_features, 64, dataset.num_classes).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(1, 21):
        start = time.perf_counter()
        model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data.x, data.edge_index), data.y)
        loss.backward()
        optimizer.step()
        print(f"epoch {epoch:2d}  loss {loss.item():.4f}  {1e3 * (time.perf_counter() - start):7.1f} ms")


if __name__ == "__main__":
    main()
