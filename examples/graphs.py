"""Graphs for the examples: generated ones, Planetoid's citation graphs, and edge lists."""

import numpy as np
import torch

CLASSES = 10


def citation_graph(num_nodes=10_000, num_citations=60_000, num_words=96, seed=0):
    """Draw a graph like one of papers and citations. Most citations stay in a field, and a few papers have very many.

    Returns:
        A dict of tensors: x, float32 [num_nodes, num_words], the words of each paper; y, the field, one of 10;
        edge_index, int64 [2, E], every citation in both directions; train_mask and test_mask.
    """
    rng = torch.Generator().manual_seed(seed)
    size = num_nodes // CLASSES
    y = (torch.arange(num_nodes) // size).clamp(max=CLASSES - 1)
    citing = torch.randint(num_nodes, (num_citations,), generator=rng)
    cited = y[citing] * size + (torch.rand(num_citations, generator=rng) ** 3 * size).long()
    other = torch.rand(num_citations, generator=rng) < 0.2
    cited[other] = torch.randint(num_nodes, (int(other.sum()),), generator=rng)
    place = torch.randperm(num_nodes, generator=rng)  # ids say nothing about the field
    topics = 0.04 + 0.06 * (torch.rand(CLASSES, num_words, generator=rng) < 0.2)
    x = (torch.rand(num_nodes, num_words, generator=rng) < topics[y]).float()
    part = torch.rand(num_nodes, generator=rng)
    old = torch.argsort(place)
    return {
        "x": x[old], "y": y[old], "edge_index": both_ways(place[citing], place[cited], num_nodes),
        "train_mask": part < 0.2, "test_mask": part >= 0.5,
    }  # fmt: skip


def both_ways(a, b, num_nodes):
    """Return edge_index [2, E] of undirected edges, without self-loops and repeated edges, sorted by source."""
    keys = torch.cat([a * num_nodes + b, b * num_nodes + a])[(a != b).repeat(2)].unique()
    return torch.stack([keys // num_nodes, keys % num_nodes])


def load(source):
    """Return PyG Data of "generated", "planetoid:NAME" (downloaded) or the path of an edge list.

    An edge list has one edge "src dst" or "src,dst" on each line. Its features are random, and so are its labels.
    """
    from torch_geometric.data import Data
    from torch_geometric.datasets import Planetoid

    if source == "generated":
        return Data(**citation_graph())
    if source.startswith("planetoid:"):
        return Planetoid("data", source.removeprefix("planetoid:"))[0]
    with open(source, encoding="utf-8") as file:
        edges = np.loadtxt((line.replace(",", " ") for line in file), np.int64, usecols=(0, 1), ndmin=2)
    n = int(edges.max()) + 1
    part = torch.rand(n)
    return Data(x=torch.randn(n, 96), y=torch.randint(CLASSES, (n,)), edge_index=torch.from_numpy(edges.T.copy()),
                train_mask=part < 0.5, test_mask=part >= 0.5)  # fmt: skip


def small_graphs(count=300, seed=0):
    """Draw small graphs of three kinds. Return a list of (edge_index, number of nodes, kind).

    Kind 0 is a ring in which neighbours at distance 2 are connected, kind 1 a graph with as many random edges, and in
    kind 2 most edges meet in a few nodes.
    """
    rng = torch.Generator().manual_seed(seed)
    graphs = []
    for i in range(count):
        n, kind = int(torch.randint(20, 40, (1,), generator=rng)), i % 3
        a, b = torch.arange(n).repeat(2), (torch.arange(2 * n) + 1 + torch.arange(2 * n) // n) % n
        if kind:
            b = (torch.rand(2 * n, generator=rng) ** (1 if kind == 1 else 4) * n).long()
        graphs.append((both_ways(a, b, n), n, kind))
    return graphs
