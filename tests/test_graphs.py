"""Graphs for measurements: files that load, graphs that are generated, and the errors for damaged files."""

import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnna_plugin.data import available_graphs, load_graph, row_normalised

# In-neighbour CSR of the edges 1->0, 2->0, 0->2, 3->2 on four nodes. Nodes 1 and 3 have no in-edge.
CSR = dict(num_nodes=np.int64(4), indptr=np.array([0, 2, 2, 4, 4], np.int32), indices=np.array([1, 2, 0, 3], np.int32))
EDGES = [(1, 0), (2, 0), (0, 2), (3, 2)]
FEATURES = dict(
    x_indptr=np.array([0, 1, 1, 3, 3]),
    x_indices=np.array([2, 0, 1], np.uint16),
    x_data=np.array([3.0, 1.0, 2.0]),
    x_shape=np.array([4, 3]),
)


def npz(folder, name="graph.npz", **changes):
    """Write CSR with some arrays replaced, or omitted if their change is None, and return the path."""
    path = folder / name
    np.savez(path, **{key: value for key, value in {**CSR, **changes}.items() if value is not None})
    return path


def edges(graph):
    return list(zip(graph.src.tolist(), graph.dst.tolist(), strict=True))


def text(folder, content, name="edges.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# ---- .npz ------------------------------------------------------------------------------------------------------------


def test_a_csr_row_is_the_destination_of_its_entries(tmp_path):
    graph = load_graph(npz(tmp_path))
    assert (graph.name, graph.num_nodes, graph.num_edges) == ("graph", 4, 4)
    assert edges(graph) == EDGES
    assert graph.src.dtype == graph.dst.dtype == np.int64
    assert graph.x is graph.y is graph.train_mask is None


def test_indices_may_be_stored_as_differences(tmp_path):
    delta = np.diff(CSR["indices"], prepend=0)
    assert edges(load_graph(npz(tmp_path, indices=None, indices_delta=delta))) == EDGES


def test_sparse_features_are_loaded_dense_and_a_single_value_applies_to_all(tmp_path):
    dense = np.array([[0, 0, 3], [0, 0, 0], [1, 2, 0], [0, 0, 0]], np.float32)
    graph = load_graph(npz(tmp_path, **FEATURES))
    assert graph.x.dtype == np.float32
    np.testing.assert_array_equal(graph.x, dense)
    binary = load_graph(npz(tmp_path, **{**FEATURES, "x_data": np.array([1.0], np.float32)}))
    np.testing.assert_array_equal(binary.x, dense > 0)


def test_dense_features_labels_and_masks_are_kept(tmp_path):
    mask = np.array([True, False, True, False])
    x = np.arange(8.0).reshape(4, 2)
    graph = load_graph(npz(tmp_path, x=x, y=np.array([0, 1, 1, 2], np.uint8), train_mask=mask))
    np.testing.assert_array_equal(graph.x, x.astype(np.float32))
    assert graph.y.dtype == np.int64 and graph.y.tolist() == [0, 1, 1, 2]
    assert graph.train_mask.tolist() == mask.tolist() and graph.test_mask is None


def test_row_normalisation_makes_rows_sum_to_one_and_leaves_empty_rows():
    x = np.array([[1, 3], [0, 0]], np.float32)
    np.testing.assert_array_equal(row_normalised(x), [[0.25, 0.75], [0, 0]])
    assert x[0, 0] == 1, "the argument is not modified"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(num_nodes=None), "'num_nodes' is missing"),
        (dict(num_nodes=np.int64(0)), "num_nodes is 0"),
        (dict(num_nodes=np.float64(4)), "not one integer"),
        (dict(indptr=None), "'indptr' is missing"),
        (dict(indices=None), "neither 'indices' nor 'indices_delta'"),
        (dict(indptr=np.array([0, 2, 2, 4])), "has 4 entries, 4 rows need 5"),
        (dict(indptr=np.array([1, 2, 2, 4, 4])), "starts at 1"),
        (dict(indptr=np.array([0, 3, 2, 4, 4])), "falls after row 1"),
        (dict(indptr=np.array([0, 2**62, -(2**63), 4, 4])), "falls after row 1"),
        (dict(indptr=np.array([0, 2, 2, 4, 5])), "ends at 5, but 'indices' has 4"),
        (dict(indptr=np.array([0, 2, 2, 4, 4], np.float32)), "not a list of integers"),
        (dict(indices=np.array([1, 2, 0, 4])), "holds 4 at position 3, allowed is 0 to 3"),
        (dict(indices=np.array([1, -1, 0, 3])), "holds -1 at position 1"),
        (dict(indices=np.array([1, 2**63, 0, 3], np.uint64)), "above the 64-bit signed range"),
        (dict(indices=np.array([[1, 2], [0, 3]])), "not a list of integers"),
        (dict(y=np.array([0, 1])), "'y' has 2 entries for 4 nodes"),
        (dict(y=np.array([0, 1, -1, 0])), "negative label -1"),
        (dict(y=np.array([0, 1, 2**40, 0])), "'y' holds 1099511627776; labels are classes"),
        (dict(x=np.zeros((3, 2))), r"'x' is float64 \[3, 2\]"),
        (dict(train_mask=np.array([1, 0, 1, 0])), "'train_mask' is int64"),
        ({**FEATURES, "x_shape": np.array([4, 2])}, "'x_indices' holds 2 at position 0"),
        ({**FEATURES, "x_shape": np.array([4, 2**60])}, "too large"),
        ({**FEATURES, "x_data": np.array([1.0, 2.0])}, "'x_data'"),
        ({**FEATURES, "x_indices": None}, "'x_indices' is missing"),
    ],
)
def test_an_invalid_archive_is_refused_with_file_array_and_fault(tmp_path, changes, sentence):
    path = npz(tmp_path, **changes)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_graph(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


class Exploit:
    def __reduce__(self):
        return os.mkdir, (os.environ["GNNA_TEST_EXPLOIT"],)


def test_nothing_is_ever_unpickled(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNA_TEST_EXPLOIT", str(tmp_path / "unpickled"))
    hidden = np.empty(1, object)
    hidden[0] = Exploit()
    with pytest.raises(ValueError, match="'indices' cannot be read"):
        load_graph(npz(tmp_path, indices=hidden))
    plain = tmp_path / "plain.npz"
    plain.write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(ValueError, match=r"not a readable \.npz archive"):
        load_graph(plain)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_not_an_archive_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"not a readable \.npz archive"):
        load_graph(text(tmp_path, content, "bad.npz"))


def test_a_single_npy_array_is_refused(tmp_path):
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(ValueError, match=r"not a readable \.npz archive"):
        load_graph(tmp_path / "array.npz")


def test_an_archive_without_arrays_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("num_nodes", "four")
    with pytest.raises(ValueError, match="'num_nodes'"):
        load_graph(tmp_path / "other.npz")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), compress=st.booleans())
def test_flipped_bytes_give_a_valid_graph_or_a_value_error(tmp_path, data, compress):
    path = tmp_path / "fuzzed.npz"
    (np.savez_compressed if compress else np.savez)(path, **CSR, **FEATURES, y=np.array([0, 1, 0, 1]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        graph = load_graph(path)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    for ids in (graph.src, graph.dst):
        assert len(ids) == graph.num_edges and ids.min(initial=0) >= 0 and ids.max(initial=0) < graph.num_nodes
    assert graph.x is None or len(graph.x) == graph.num_nodes


# ---- edge lists ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "1 0\n2 0\n0 2\n3 2\n",
        "# src dst\n1,0\n2,0\n\n% more\n0,2\n3,2",
        "1\t0\t0.5\r\n2\t0\t1\r\n0\t2\t1\r\n3\t2\t9 # weights are ignored\r\n",
        "\ufeff1, 0\n2, 0\n0, 2\n3, 2\n",
    ],
)
@pytest.mark.parametrize("name", ["edges.txt", "edges.tsv", "edges.csv"])
def test_an_edge_list_may_use_spaces_tabs_or_commas_and_comments(tmp_path, content, name):
    graph = load_graph(text(tmp_path, content, name))
    assert (graph.name, graph.num_nodes, edges(graph)) == ("edges", 4, EDGES)
    assert graph.src.dtype == np.int64 and graph.src.flags.c_contiguous


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no edge"),
        ("# nothing\n\n", "holds no edge"),
        ("1 2\n\n# c\n3 x\n", "line 4: 'x' is not an integer"),
        ("1 2\n3\n", "line 2: one column"),
        ("1 2\n2 1.5\n", "line 2: '1.5' is not an integer"),
        ("1 2\n2 -3\n", "line 2: the node id -3 is negative"),
        ("1 99999999999999999999\n", "line 1: '99999999999999999999' is not an integer"),
        ("0 1\n1 123456789012\n", "node ids reach 123456789012 for 2 edges"),
        (b"\x00\x01\xff\xfe", "line 1:"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, content, sentence):
    path = text(tmp_path, content)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_graph(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=60), st.text("0123456789 ,\t\n#%-+x.", max_size=60).map(str.encode)))
def test_any_text_gives_a_valid_graph_or_a_value_error(tmp_path, content):
    try:
        graph = load_graph(text(tmp_path, content))
    except ValueError:
        return
    assert graph.num_edges > 0 and min(graph.src.min(), graph.dst.min()) >= 0
    assert max(graph.src.max(), graph.dst.max()) == graph.num_nodes - 1


# ---- names -----------------------------------------------------------------------------------------------------------


def test_a_name_is_found_in_the_folder_gnna_data(tmp_path, monkeypatch):
    npz(tmp_path, "small.npz")
    monkeypatch.setenv("GNNA_DATA", str(tmp_path))
    assert available_graphs() == ["small"]
    assert edges(load_graph("small")) == EDGES
    with pytest.raises(FileNotFoundError, match="'big'.*holds small"):
        load_graph("big")


def test_without_gnna_data_the_error_says_how_to_set_it(monkeypatch):
    monkeypatch.delenv("GNNA_DATA", raising=False)
    assert available_graphs() == []
    with pytest.raises(FileNotFoundError, match="set GNNA_DATA"):
        load_graph("cora")


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"graph files end in"):
        load_graph(text(tmp_path, "1 2", "graph.pickle"))


# ---- the generated graph ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def community():
    return load_graph("community:5000x60000", seed=3)


def test_the_generated_graph_is_symmetric_simple_and_of_the_requested_size(community):
    assert (community.num_nodes, community.num_edges) == (5000, 60000)
    forward = community.src * 5000 + community.dst
    assert len(np.unique(forward)) == 60000 and (community.src != community.dst).all()
    np.testing.assert_array_equal(np.sort(forward), np.sort(community.dst * 5000 + community.src))
    assert (np.diff(community.dst) >= 0).all()


def test_the_same_seed_gives_the_same_graph_and_another_does_not(community):
    again, other = load_graph("community:5000x60000", seed=3), load_graph("community:5000x60000", seed=4)
    for key in ("src", "dst", "x", "y", "train_mask"):
        np.testing.assert_array_equal(getattr(community, key), getattr(again, key))
    assert not np.array_equal(community.src, other.src)


def test_the_generated_graph_has_communities_a_heavy_tail_and_ids_that_follow_communities(community):
    degree = np.bincount(community.dst, minlength=5000)
    assert degree.max() > 8 * degree.mean()
    assert (community.y[community.src] == community.y[community.dst]).mean() > 0.7
    assert np.median(np.abs(community.src - community.dst)) < 5000 / 10


def test_the_generated_labels_can_be_learned_from_neighbours(community):
    """A nearest-mean classifier works on the features, and much better on the mean of the neighbours' features."""
    total = np.zeros_like(community.x)
    np.add.at(total, community.dst, community.x[community.src])
    mean = total / np.maximum(np.bincount(community.dst, minlength=5000), 1)[:, None]

    def accuracy(x):
        train, test = community.train_mask, community.test_mask
        centres = np.stack([x[train & (community.y == c)].mean(0) for c in range(10)])
        nearest = ((x[test][:, None] - centres) ** 2).sum(-1).argmin(1)
        return (nearest == community.y[test]).mean()

    assert 0.2 < accuracy(community.x) < accuracy(mean)
    assert accuracy(mean) > 0.7


def test_the_generated_masks_split_the_nodes(community):
    together = np.stack([community.train_mask, community.val_mask, community.test_mask]).sum(0)
    assert (together == 1).all() and 0.05 < community.train_mask.mean() < 0.15


@pytest.mark.parametrize("source", [f"community:{size}" for size in ("10", "10x11", "1x2", "4x50", "x", "9x-2")])
def test_an_impossible_size_is_refused(source):
    with pytest.raises(ValueError, match="community:"):
        load_graph(source)


@pytest.mark.data
def test_the_real_graphs_have_their_published_sizes():
    if "cora" not in available_graphs():
        pytest.skip("GNNA_DATA does not hold cora")
    cora = load_graph("cora")
    assert (cora.num_nodes, cora.num_edges, cora.x.shape) == (2708, 10556, (2708, 1433))
    assert cora.x.sum() == 49216 and cora.y.max() == 6
    assert [int(m.sum()) for m in (cora.train_mask, cora.val_mask, cora.test_mask)] == [140, 500, 1000]
