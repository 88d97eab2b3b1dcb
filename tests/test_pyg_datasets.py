"""Public data sets through PyG's loaders, from small files on disk. No test here needs a network."""

import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.io import savemat
from torch_geometric.data import Data
from torch_geometric.io import fs

from gnna_plugin.data import load_graph
from gnna_plugin.tools.compare.spec import UsageError
from gnna_plugin.tools.inputs import load_graphs


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """Return the data folder. Every download fails as it does without a network, with an error of several lines."""

    def offline(*args, **kwargs):
        raise OSError("Cannot connect to host\nssl:default [Name or service not known]")

    monkeypatch.setattr(fs, "cp", offline)
    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setenv("GNNA_DATASETS", str(tmp_path / "sets"))
    monkeypatch.delenv("GNNA_DATA", raising=False)
    return tmp_path / "sets"


def planetoid_files(folder):
    """Write raw Planetoid files of a ring of 1,503 nodes, and return the number of nodes.

    Two nodes are for training, 500 for validation and 1,000 for the test.
    """
    folder.mkdir(parents=True)
    n, known = 1503, 503
    x = sp.csr_matrix(np.eye(n, 4, dtype=np.float32) + np.float32(1))
    y = np.eye(3, dtype=np.int32)[np.arange(n) % 3]
    parts = dict(
        x=x[:2],
        tx=x[known:],
        allx=x[:known],
        y=y[:2],
        ty=y[known:],
        ally=y[:known],
        graph={i: [(i + 1) % n, (i - 1) % n] for i in range(n)},
    )
    for name, part in parts.items():
        (folder / f"ind.cora.{name}").write_bytes(pickle.dumps(part))
    (folder / "ind.cora.test.index").write_text("".join(f"{i}\n" for i in range(known, n)))
    return n


def test_planetoid_graphs_have_features_labels_and_split(datasets):
    n = planetoid_files(datasets / "planetoid" / "Cora" / "raw")
    for graph in (load_graph("planetoid:Cora"), load_graph("planetoid:Cora")):  # from raw, then from processed files
        assert (graph.name, graph.num_nodes, graph.num_edges) == ("planetoid:Cora", n, 2 * n)
        assert graph.x.shape == (n, 4) and graph.x.dtype == np.float32 and graph.y.dtype == graph.src.dtype == np.int64
        np.testing.assert_array_equal(graph.y, np.arange(n) % 3)
        assert [int(m.sum()) for m in (graph.train_mask, graph.val_mask, graph.test_mask)] == [2, 500, 1000]
        assert graph.test_mask.dtype == bool and set((graph.src - graph.dst) % n) == {1, n - 1}


def test_tu_graphs_become_one_block_diagonal_graph(datasets):
    raw = datasets / "tu" / "TINY" / "raw"
    raw.mkdir(parents=True)
    (raw / "TINY_A.txt").write_text("1, 2\n2, 1\n3, 4\n4, 3\n4, 5\n5, 4\n")
    (raw / "TINY_graph_indicator.txt").write_text("1\n1\n2\n2\n2\n")
    (raw / "TINY_graph_labels.txt").write_text("1\n-1\n")
    (raw / "TINY_node_labels.txt").write_text("0\n1\n1\n0\n2\n")
    graph = load_graph("tu:TINY")
    assert (graph.num_nodes, graph.y, graph.train_mask) == (5, None, None)
    found = sorted(zip(graph.src.tolist(), graph.dst.tolist(), strict=True))
    assert found == [(0, 1), (1, 0), (2, 3), (3, 2), (3, 4), (4, 3)]
    np.testing.assert_array_equal(graph.x.argmax(1), [0, 1, 1, 0, 2])


def test_a_suitesparse_matrix_keeps_its_direction(datasets):
    raw = datasets / "suitesparse" / "SNAP" / "tiny" / "raw"
    raw.mkdir(parents=True)
    adjacency = sp.csc_matrix(([1.0, 1.0, 1.0], ([0, 0, 2], [1, 2, 1])), shape=(4, 4))
    problem = np.array([("tiny", "SNAP/tiny", adjacency)], dtype=[("title", object), ("name", object), ("A", object)])
    savemat(raw / "tiny.mat", {"Problem": problem})
    graph = load_graph("suitesparse:SNAP/tiny")
    found = sorted(zip(graph.src.tolist(), graph.dst.tolist(), strict=True))
    assert (graph.num_nodes, graph.x, found) == (4, None, [(0, 1), (0, 2), (2, 1)])


def test_an_ogb_graph_has_its_labels_and_split(datasets, monkeypatch):
    class Dataset:
        def __init__(self, name, root):
            assert (name, root) == ("ogbn-tiny", str(datasets / "ogb"))

        def __getitem__(self, at):
            return Data(x=torch.ones(4, 2), y=torch.tensor([[0], [1], [1], [0]]), edge_index=torch.tensor([[0], [3]]))

        def get_idx_split(self):
            return dict(train=torch.tensor([0, 1]), valid=torch.tensor([2]), test=torch.tensor([3]))

    module = types.ModuleType("ogb.nodeproppred")
    module.PygNodePropPredDataset = Dataset
    monkeypatch.setitem(sys.modules, "ogb", types.ModuleType("ogb"))
    monkeypatch.setitem(sys.modules, "ogb.nodeproppred", module)
    graph = load_graph("ogb:ogbn-tiny")
    assert (graph.num_nodes, graph.y.tolist()) == (4, [0, 1, 1, 0])
    assert graph.train_mask.tolist() == [True, True, False, False]
    assert graph.val_mask.sum() == graph.test_mask.sum() == 1


def test_a_local_file_named_reddit_takes_precedence_over_the_data_set(datasets, monkeypatch, tmp_path):
    np.savez(tmp_path / "reddit.npz", num_nodes=np.int64(2), src_li=np.array([0]), dst_li=np.array([1]))
    monkeypatch.setenv("GNNA_DATA", str(tmp_path))
    assert load_graph("reddit").num_edges == 1


@pytest.mark.parametrize("source", ["planetoid:Cora", "tu:DD", "reddit", "suitesparse:SNAP/amazon0601"])
def test_a_failed_download_is_reported_in_one_sentence(datasets, source):
    sentence = f"{source}: cannot be loaded .*Cannot connect.*check the name and the network"
    with pytest.raises(ValueError, match=sentence) as caught:
        load_graph(source)
    assert str(datasets) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="Cannot connect"):
        load_graphs([source], seed=0)


def test_a_missing_package_is_named(datasets, monkeypatch):
    monkeypatch.setitem(sys.modules, "ogb", None)
    monkeypatch.setitem(sys.modules, "ogb.nodeproppred", None)
    with pytest.raises(ImportError, match="ogb:ogbn-arxiv: loading it needs ogb: pip install ogb$"):
        load_graph("ogb:ogbn-arxiv")


def test_without_pyg_its_data_sets_say_how_to_install_it(datasets, monkeypatch):
    monkeypatch.setitem(sys.modules, "gnna_plugin.adapters.pyg.tools.datasets", None)
    with pytest.raises(ValueError, match="tu:DD: loading it needs torch-geometric: pip install torch-geometric"):
        load_graph("tu:DD")


@pytest.mark.parametrize("source", ["planetoid:", "tu:../DD", "suitesparse:amazon0601", "tu:DD/x", "ogb:.hidden"])
def test_a_malformed_name_is_refused_before_anything_is_written(datasets, source):
    with pytest.raises(ValueError, match="names no data set; the form is"):
        load_graph(source)
    assert not datasets.exists()


@pytest.mark.parametrize("source", ["planetoid", "reddit:x", "unknown:Cora"])
def test_a_prefix_alone_or_an_unknown_prefix_is_refused(datasets, source):
    with pytest.raises(FileNotFoundError, match="no graph file or name"):
        load_graph(source)
