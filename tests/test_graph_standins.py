"""Stand-ins for published graphs: exactly the published sizes, similar degrees, and one graph per seed."""

import numpy as np
import pytest

from gnna_plugin.data import STANDINS, load_graph
from gnna_plugin.data.sampling import draw_distinct

DRAWN = [
    "cora", "citeseer", "pubmed", "PROTEINS_full", "DD", "ppi", "artist", "com-amazon", "amazon0601", "soc-BlogCatalog",
    "ogbn-arxiv", "TWITTER-Real-Graph-Partial",
]  # fmt: skip


@pytest.fixture(scope="module", params=DRAWN)
def standin(request):
    return request.param, load_graph(f"standin:{request.param}", seed=5)


def test_nodes_and_edges_are_the_published_ones(standin):
    name, graph = standin
    assert graph.name == f"standin:{name}"
    assert (graph.num_nodes, graph.num_edges) == (STANDINS[name].nodes, STANDINS[name].edges)
    assert graph.src.dtype == graph.dst.dtype == np.int64
    for ids in (graph.src, graph.dst):
        assert ids.min() >= 0 and ids.max() < graph.num_nodes


def test_edges_are_distinct_without_loops_and_sorted(standin):
    name, graph = standin
    keys = graph.dst * graph.num_nodes + graph.src
    assert (np.diff(keys) > 0).all() and (graph.src != graph.dst).all()
    if STANDINS[name].kind == "symmetric":
        np.testing.assert_array_equal(np.sort(graph.src * graph.num_nodes + graph.dst), keys)


def test_degrees_resemble_the_published_ones(standin):
    name, graph = standin
    facts = STANDINS[name]
    degree = np.bincount(graph.dst, minlength=graph.num_nodes)
    if facts.exponent is None:
        assert degree.max() < 8 * degree.mean()
    else:
        assert 0.5 < degree.max() / facts.max_degree < 1.5
        assert np.median(degree) < degree.mean()
    if facts.kind == "even":
        out = np.bincount(graph.src, minlength=graph.num_nodes)
        assert out.max() < 5 * out.mean()


def test_ids_follow_communities_unless_they_are_shuffled(standin):
    name, graph = standin
    facts = STANDINS[name]
    near = (np.abs(graph.src - graph.dst) < 20 * facts.community).mean()
    by_chance = min(1, 40 * facts.community / facts.nodes)
    if facts.ids == "shuffled":
        assert near < by_chance * 1.1 + 0.01
    else:
        assert near > 0.5


def test_the_same_seed_gives_the_same_graph_and_another_does_not():
    first, again, other = (load_graph("standin:ppi", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.src, again.src)
    np.testing.assert_array_equal(first.dst, again.dst)
    assert not np.array_equal(first.src, other.src)


def test_a_batch_of_small_graphs_is_block_diagonal():
    """No edge crosses a boundary between two graphs, and a batch of so many graphs has many boundaries."""
    graph = load_graph("standin:TWITTER-Real-Graph-Partial")
    covered = np.zeros(graph.num_nodes + 1, np.int64)
    np.add.at(covered, np.minimum(graph.src, graph.dst), 1)
    np.add.at(covered, np.maximum(graph.src, graph.dst), -1)
    assert (np.cumsum(covered)[:-1] == 0).sum() > graph.num_nodes / 8


def test_the_table_of_stand_ins_is_consistent():
    for name, facts in STANDINS.items():
        assert facts.kind in ("symmetric", "directed", "even") and facts.ids in ("ordered", "noisy", "shuffled"), name
        assert facts.kind != "symmetric" or facts.edges % 2 == 0, name
        assert (facts.exponent is None) == (facts.max_degree is None), name
        assert facts.source


def test_names_are_case_insensitive():
    assert load_graph("standin:YEAST").name == load_graph("standin:yeast").name == "standin:Yeast"


def test_an_unknown_stand_in_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match="standin:amazon: no such stand-in; there are citeseer, cora"):
        load_graph("standin:amazon")


def test_all_possible_edges_can_be_drawn_and_more_are_refused(monkeypatch):
    monkeypatch.setattr("gnna_plugin.data.sampling._ROUNDS", 60)
    facts = dict(
        labels=np.arange(6, dtype=np.int32),
        starts=np.array([0, 3, 6]),
        inside=1,
        even_sources=False,
        symmetric=True,
        stubs=np.repeat(np.arange(6, dtype=np.int32), 2),
        first_stub=np.arange(0, 13, 2),
    )
    keys = draw_distinct(np.random.default_rng(0), wanted=6, **facts)
    assert sorted(keys.tolist()) == [1, 2, 8, 22, 23, 29]
    with pytest.raises(ValueError, match="only 6 of 7 distinct edges"):
        draw_distinct(np.random.default_rng(0), wanted=7, **facts)
