"""Graph files of other projects: the artifact's archives and Matrix Market files, and the errors for invalid ones."""

import builtins

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnna_plugin.data import load_graph
from gnna_plugin.tools.compare.spec import UsageError
from gnna_plugin.tools.inputs import load_graphs

EDGES = [(1, 0), (2, 0), (0, 2), (3, 2)]
ARTIFACT = dict(num_nodes=np.int64(5), src_li=np.array([1, 2, 0, 3], np.int32), dst_li=np.array([0, 0, 2, 2]))
GENERAL = "%%MatrixMarket matrix coordinate pattern general\n% a comment\n5 5 4\n2 1\n3 1\n1 3\n4 3\n"


def edges(graph):
    return list(zip(graph.src.tolist(), graph.dst.tolist(), strict=True))


def archive(folder, **changes):
    np.savez(folder / "old.npz", **{key: value for key, value in {**ARTIFACT, **changes}.items() if value is not None})
    return folder / "old.npz"


def matrix(folder, content):
    (folder / "m.mtx").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "m.mtx"


def test_an_archive_of_the_artifact_is_an_edge_list(tmp_path):
    graph = load_graph(archive(tmp_path))
    assert (graph.name, graph.num_nodes, edges(graph)) == ("old", 5, EDGES)  # node 4 has no edge
    assert graph.src.dtype == graph.dst.dtype == np.int64


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(num_nodes=None), "'num_nodes' is missing"),
        (dict(dst_li=None), "'dst_li' is missing"),
        (dict(dst_li=np.array([0, 0, 2])), "'src_li' has 4 entries, 'dst_li' has 3"),
        (dict(dst_li=np.array([0, 0, 2, 5])), "'dst_li' holds 5 at position 3, allowed is 0 to 4"),
        (dict(src_li=np.array([0, -1, 2, 2])), "'src_li' holds -1 at position 1"),
        (dict(src_li=np.zeros(4)), "'src_li' is float64"),
        (dict(num_nodes=np.int64(10**15)), "num_nodes is 1000000000000000 for 4 edges"),
        (dict(src_li=np.array([None] * 4)), "'src_li' cannot be read"),  # a pickle
    ],
)
def test_an_invalid_archive_of_the_artifact_is_refused_with_file_and_fault(tmp_path, changes, sentence):
    path = archive(tmp_path, **changes)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_graph(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_matrix_entry_is_the_edge_from_its_row_to_its_column(tmp_path):
    graph = load_graph(matrix(tmp_path, GENERAL))
    assert (graph.name, graph.num_nodes, sorted(edges(graph))) == ("m", 5, sorted(EDGES))
    assert graph.src.dtype == graph.dst.dtype == np.int64


@pytest.mark.parametrize(("field", "value"), [("real", " 0.5"), ("integer", " 0"), ("pattern", "")])
def test_values_are_ignored_and_a_symmetric_matrix_is_expanded(tmp_path, field, value):
    head = f"%%MatrixMarket matrix coordinate {field} symmetric\n3 3 3\n"
    graph = load_graph(matrix(tmp_path, head + "".join(f"{i} {j}{value}\n" for i, j in ((2, 1), (3, 1), (3, 3)))))
    assert sorted(edges(graph)) == [(0, 1), (0, 2), (1, 0), (2, 0), (2, 2)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "not a Matrix Market file"),
        ("1 2\n", "not a Matrix Market file"),
        ("%%MatrixMarket matrix array real general\n2 2\n1\n2\n3\n4\n", "array real matrix"),
        ("%%MatrixMarket matrix coordinate complex general\n1 1 1\n1 1 0 1\n", "coordinate complex matrix"),
        (GENERAL.replace("5 5 4", "5 4 4"), "5 x 4 matrix"),
        (GENERAL.replace("5 5 4", "0 0 0"), "0 x 0 matrix"),
        (GENERAL.replace("5 5 4", "3 3 4"), "not a readable"),
        (GENERAL.replace("2 1\n", "0 1\n"), "not a readable"),
        (GENERAL.replace("2 1\n", "2 x\n"), "not a readable"),
        (GENERAL.replace("5 5 4", "5 5 5"), "not a readable"),
        (GENERAL.replace("5 5 4", "5 5 4000000000"), "the header claims 5 rows and 4000000000 entries"),
        (GENERAL.replace("5 5 4", "4000000000 4000000000 4"), "the header claims 4000000000 rows"),
    ],
)
def test_an_invalid_matrix_is_refused_in_one_sentence(tmp_path, content, sentence):
    path = matrix(tmp_path, content)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_graph(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_of_a_matrix_give_a_valid_graph_or_a_value_error(tmp_path, data):
    content = bytearray(GENERAL.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        graph = load_graph(matrix(tmp_path, bytes(content[: data.draw(st.integers(0, len(content)))])))
    except ValueError as error:
        assert "\n" not in str(error)
        return
    for ids in (graph.src, graph.dst):
        assert ids.min(initial=0) >= 0 and ids.max(initial=0) < graph.num_nodes


def test_without_scipy_the_error_for_a_matrix_says_how_to_install_it(tmp_path, monkeypatch):
    path, found = matrix(tmp_path, GENERAL), builtins.__import__

    def no_scipy(name, *args, **kwargs):
        if name.split(".")[0] == "scipy":
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_scipy)
    with pytest.raises(ImportError, match="pip install scipy"):
        load_graph(path)
    with pytest.raises(UsageError, match="pip install scipy"):
        load_graphs([str(path)], seed=0)
