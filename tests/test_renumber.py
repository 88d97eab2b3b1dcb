"""renumber(): attributes of nodes and edges move with them, and models compute the same results."""

from __future__ import annotations

import os

os.environ.setdefault("DGLBACKEND", "pytorch")

import numpy as np
import pytest
import torch

dgl = pytest.importorskip("dgl")
pytest.importorskip("torch_geometric")

from torch_geometric.data import Batch, Data, HeteroData  # noqa: E402
from torch_geometric.nn import GCNConv, GINConv  # noqa: E402
from torch_geometric.transforms import ToSparseTensor  # noqa: E402

import gnna_plugin  # noqa: E402
from gnna_plugin.extractor import graph_summary  # noqa: E402

N, E = 400, 3000


@pytest.fixture
def data():
    """Return a directed graph of communities with shuffled ids, with self-loops, repeated edges and isolated nodes."""
    ids = torch.randperm(N)[: N - 30]
    node = torch.randint(0, len(ids), (E,))
    near = (node // 40 * 40 + torch.randint(0, 40, (E,))).clamp(max=len(ids) - 1)
    return Data(
        x=torch.randn(N, 6, dtype=torch.float64),
        edge_index=torch.stack([ids[near], ids[node]]),
        y=torch.randint(0, 4, (N,)),
        edge_attr=torch.rand(E, 2, dtype=torch.float64),
        edge_weight=torch.rand(E, dtype=torch.float64),
        train_mask=torch.rand(N) < 0.3,
        edge_label_index=torch.randint(0, N, (2, 17)),
        names=[f"node {i}" for i in range(N)],
        title="a graph",
        scale=torch.tensor(2.5),
        table=np.arange(N) * 2,
    )


@pytest.mark.parametrize("order", ["rabbit", "degree", "own"])
def test_attributes_move_with_their_nodes_and_edges(data, order):
    before = data.clone()
    wanted = torch.randperm(N) if order == "own" else order
    new, permutation, inverse, edge_permutation = gnna_plugin.renumber(data, wanted)
    assert permutation[inverse].equal(torch.arange(N)) and inverse[permutation].equal(torch.arange(N))
    if order == "own":
        assert permutation.equal(wanted)
    for key in ("x", "y", "train_mask"):
        assert new[key].equal(data[key][permutation]) and new[key][inverse].equal(data[key]), key
    assert permutation[new.edge_index].equal(data.edge_index[:, edge_permutation])
    for key in ("edge_attr", "edge_weight"):
        assert new[key].equal(data[key][edge_permutation]), key
    assert permutation[new.edge_label_index].equal(data.edge_label_index)
    assert new.names == [f"node {i}" for i in permutation.tolist()] and new.title == "a graph" and new.scale == 2.5
    assert (new.table == 2 * permutation.numpy()).all()
    key = new.edge_index[1] * N + new.edge_index[0]
    assert (key[1:] >= key[:-1]).all()
    assert all(data[k].equal(before[k]) for k in ("x", "edge_index", "edge_attr"))  # the argument stays as it was


def test_rabbit_order_brings_neighbours_together(data):
    new = gnna_plugin.renumber(data).graph
    before, after = graph_summary(data.edge_index, N), graph_summary(new.edge_index, N)
    assert after.average_edge_span < 0.4 * before.average_edge_span


@pytest.mark.parametrize("accelerated", [False, True])
def test_models_compute_and_learn_the_same(data, accelerated):
    new, _, inverse, _ = gnna_plugin.renumber(data)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.gcn = GCNConv(6, 8)
            self.gin = GINConv(torch.nn.Linear(8, 4))
            self.double()

        def forward(self, d):
            return self.gin(self.gcn(d.x, d.edge_index, d.edge_weight).relu(), d.edge_index)

    def train(d):
        model, losses = Model(), []
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(10):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(d)[d.train_mask], d.y[d.train_mask])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return model(d), losses

    if accelerated:
        gnna_plugin.enable("pyg", min_work=0)
    (out, losses), (new_out, new_losses) = train(data), train(new)
    torch.testing.assert_close(new_out[inverse], out, rtol=1e-10, atol=1e-10)
    assert new_losses == pytest.approx(losses, rel=1e-10)


def test_nodes_without_features_and_empty_graphs():
    lonely = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=5)
    new, permutation, _, _ = gnna_plugin.renumber(lonely)
    assert new.num_nodes == 5 and permutation.sort().values.tolist() == [0, 1, 2, 3, 4]
    none = Data(x=torch.eye(3), edge_index=torch.empty(2, 0, dtype=torch.int64))
    assert gnna_plugin.renumber(none).graph.x.equal(none.x)


def test_unsupported_graphs_and_orders_are_refused(data):
    for graph, error, text in (
        (HeteroData(), TypeError, "HeteroData cannot be renumbered; accepted is a homogeneous graph"),
        (torch.eye(3), TypeError, "Tensor cannot be renumbered"),
        (None, TypeError, "NoneType cannot be renumbered"),
        (Data(x=torch.eye(3)), ValueError, r"no edge_index \[2, E\]"),
        (Batch.from_data_list([data, data]), ValueError, "of 2 graphs; renumber each before batching"),
        (ToSparseTensor(layout=torch.sparse_csr)(data.clone()), ValueError, "adj_t is a sparse matrix"),
        (Data(x=torch.eye(3), edge_index=torch.tensor([[0], [7]])), ValueError, r"\[0\] = 7 is out of range"),
        (Data(x=torch.eye(2), edge_index=torch.tensor([[0], [1]]), pair_index=torch.tensor([[5]])), ValueError,
         "pair_index holds node numbers from 5 to 5; valid are 0 to 1"),
    ):  # fmt: skip
        with pytest.raises(error, match=text):
            gnna_plugin.renumber(graph)
    for order in ("rabit", torch.zeros(N, dtype=torch.int64), torch.rand(N), torch.arange(3)):
        with pytest.raises(ValueError, match="order is"):
            gnna_plugin.renumber(data, order)


# ---- DGL


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64])
def test_a_dgl_graph_is_renumbered_like_a_pyg_graph(data, idtype):
    src, dst = data.edge_index.to(idtype)
    graph = dgl.graph((src, dst), num_nodes=N)
    graph.ndata["x"], graph.ndata["y"], graph.edata["w"] = data.x, data.y, data.edge_weight
    new, permutation, inverse, edge_permutation = gnna_plugin.renumber(graph)
    assert new.idtype == idtype and new.num_nodes() == N and new.num_edges() == E
    assert new.ndata["x"][inverse].equal(data.x) and new.ndata["y"].equal(data.y[permutation])
    assert new.edata["w"].equal(data.edge_weight[edge_permutation])
    assert permutation[torch.stack(new.edges(order="eid")).long()].equal(data.edge_index[:, edge_permutation])

    def aggregate(g):
        with g.local_scope():
            g.update_all(dgl.function.u_mul_e("x", "w", "m"), dgl.function.sum("m", "out"))
            return g.ndata["out"]

    torch.testing.assert_close(aggregate(new)[inverse], aggregate(graph), rtol=1e-12, atol=1e-12)
    assert gnna_plugin.renumber(graph).permutation.equal(gnna_plugin.renumber(data).permutation)


def test_unsupported_dgl_graphs_are_refused():
    pair = dgl.graph(([0, 1], [1, 2]))
    hetero = dgl.heterograph({("a", "to", "b"): ([0], [1]), ("b", "by", "a"): ([1], [0])})
    for graph, error, text in (
        (hetero, TypeError, "2 node types and 2 edge types; accepted is a homogeneous graph"),
        (dgl.to_block(pair), TypeError, "a block"),
        (dgl.batch([pair, pair]), ValueError, "a batch of 2 graphs"),
    ):
        with pytest.raises(error, match=text):
            gnna_plugin.renumber(graph)
