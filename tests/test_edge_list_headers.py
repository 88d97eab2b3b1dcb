"""Edge lists with a header line, and the hints for names of public graphs that are not here."""

import importlib.util

import numpy as np
import pytest

from gnna_plugin.data import Graph, known, load_graph
from gnna_plugin.data.standin import STANDINS
from gnna_plugin.tools.compare.data import nonfinite_features

EDGES = [(1, 0), (2, 0), (0, 2), (3, 2)]
BODY = "1,0\n2,0\n0,2\n3,2\n"


def write(folder, content, name="edges.csv"):
    (folder / name).write_text(content)
    return folder / name


def edges(graph):
    return list(zip(graph.src.tolist(), graph.dst.tolist(), strict=True))


@pytest.mark.parametrize("header", ["src,dst", "Source,Target", '"from","to"', "u,v", "id_1,id_2", "node a,node b"])
@pytest.mark.parametrize("before", ["", "# a comment\n\n", "\ufeff"])
def test_a_header_line_is_not_an_edge(tmp_path, header, before):
    graph = load_graph(write(tmp_path, f"{before}{header}\n{BODY}"))
    assert (graph.num_nodes, edges(graph)) == (4, EDGES)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("weight,target,source\n" + "".join(f"0.5,{d},{s}\n" for s, d in EDGES), "e.csv"),
        ("target\tkind of edge\tsource\n" + "".join(f"{d}\tcites\t{s}\n" for s, d in EDGES), "e.tsv"),
        ("dst src\n" + "".join(f"{d} {s}\n" for s, d in EDGES), "e.txt"),
        ("id,dst,note,src\n" + "".join(f'7,{d},,"{s}"\n' for s, d in EDGES), "e.csv"),
        ("to;from\n" + "".join(f"{d}; {s}\n" for s, d in EDGES), "e.csv"),
    ],
)
def test_names_in_a_header_choose_the_columns(tmp_path, content, name):
    assert edges(load_graph(write(tmp_path, content, name))) == EDGES


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("source,weight\n1,2\n", "line 1: the columns are source, weight; name one of them"),
        ("src,source,dst\n1,2,3\n", "line 1: the columns are src, source, dst"),
        ("source\n1\n", "line 1: one column"),
        ("source,target\n", "holds no edge"),
        ("# c\nsource,target\n1,2\n3,x\n", r"line 4: 'x' is not an integer node id \(column 'target'\)"),
        ("name,age\n1,2\nbob,3\n", r"line 3: 'bob' is not an integer node id \(column 'name'\)"),
        ("w,dst,src\n1,2,3\n4,5\n", "line 3: 2 columns; an edge needs"),
        ("src,dst\n1,2\n3,-4\n", "line 3: the node id -4 is negative"),
        ("source,1\n1,2\n", "line 1: 'source' is not an integer node id"),
    ],
)
def test_a_list_with_an_unclear_header_is_refused_in_one_sentence(tmp_path, content, sentence):
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_graph(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cora", "'planetoid:Cora' downloads it"),
        ("com-dblp", "'suitesparse:SNAP/com-DBLP' downloads it"),
        ("CNR-2000", "'suitesparse:LAW/cnr-2000' downloads it"),
        ("DD", "'tu:DD' downloads it"),
        ("artist", "'standin:artist' generates a graph of its size"),
        ("amazon0601", "'suitesparse:SNAP/amazon0601' downloads it, 'standin:amazon0601' generates"),
        ("com-dblp.npz", "'suitesparse:SNAP/com-DBLP' downloads it"),
        ("musae-github", "no prefix loads: pass the path of its edge list"),
    ],
)
def test_the_error_for_a_public_graph_names_its_source(monkeypatch, name, says):
    monkeypatch.delenv("GNNA_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=f"no graph file or name '{name}'") as caught:
        load_graph(name)
    assert says in str(caught.value) and "set GNNA_DATA" in str(caught.value)


def test_a_name_of_the_folder_is_suggested_first(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNA_DATA", str(tmp_path))
    np.savez(tmp_path / "cora.npz", num_nodes=1, indptr=np.zeros(2, int), indices=np.zeros(0, int))
    with pytest.raises(FileNotFoundError, match="'Cora'; did you mean 'cora'"):
        load_graph("Cora")


@pytest.mark.skipif(importlib.util.find_spec("torch_geometric") is None, reason="needs PyG")
def test_every_source_is_one_that_a_loader_accepts():
    from gnna_plugin.adapters.pyg.tools import datasets

    for source in known._SOURCES.values():
        prefix, _, name = source.partition(":")
        parts = name.split("/")
        assert prefix in datasets._LOADERS and len(parts) == 1 + (prefix == "suitesparse")
        assert prefix == "reddit" or all(map(datasets._NAME.fullmatch, parts))
    assert all(known.advice(name) for name in STANDINS)


def test_features_that_are_not_finite_are_counted():
    ends = np.zeros(1, np.int64)
    x = np.array([[1, np.nan], [np.inf, 2]], np.float32)
    assert "g: 2 of 4 features are NaN or infinite" in nonfinite_features(Graph("g", 2, ends, ends, x=x))
    assert nonfinite_features(Graph("g", 2, ends, ends, x=np.ones_like(x))) is None
    assert nonfinite_features(Graph("g", 2, ends, ends)) is None
