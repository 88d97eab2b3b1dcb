"""Train GraphSAGE of PyTorch Geometric on sampled neighbourhoods (NeighborLoader).

NeighborLoader needs pyg-lib or torch-sparse.

    python sage_minibatch.py            plain
    gnna run sage_minibatch.py          accelerated, without an edit
"""

import argparse
import time

import torch
import torch.nn.functional as F
import torch_geometric.typing
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import SAGEConv

from graphs import CLASSES, load

# import gnna_plugin; gnna_plugin.enable()  # the one line that accelerates this script


class SAGE(torch.nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels):
        super().__init__()
        self.conv1 = SAGEConv(in_channels, hidden_channels)
        self.conv2 = SAGEConv(hidden_channels, out_channels)

    def forward(self, x, edge_index):
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="generated", help="generated, planetoid:NAME or an edge list")
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    if not (torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE):
        raise SystemExit("PyG's NeighborLoader needs pyg-lib or torch-sparse; neither is installed")

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = load(args.data)
    loader = NeighborLoader(data, num_neighbors=[15, 10], batch_size=256, input_nodes=data.train_mask, shuffle=True)
    model = SAGE(data.num_features, 64, max(CLASSES, int(data.y.max()) + 1)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    start = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        losses = []
        for batch in loader:
            batch = batch.to(device)
            optimizer.zero_grad()
            out = model(batch.x, batch.edge_index)[: batch.batch_size]
            loss = F.cross_entropy(out, batch.y[: batch.batch_size])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        print(f"epoch {epoch:3d}  loss {torch.stack(losses).mean().item():.4f}")
    print(f"{1e3 * (time.perf_counter() - start) / args.epochs:.1f} ms per epoch")

    data = data.to(device)
    with torch.no_grad():  # on the whole graph
        right = model(data.x, data.edge_index).argmax(1) == data.y
    print(f"accuracy {right[data.test_mask].float().mean().item():.3f}")


if __name__ == "__main__":
    main()
