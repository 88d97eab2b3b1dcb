"""The extractor's facts of graphs, checked against counts by hand, and the paper's formulas."""

from __future__ import annotations

import math

import pytest
import torch

from gnna_plugin.extractor import graph_summary, paper_model


def test_facts_equal_counts_by_hand(device):
    #            0->1  0->3  2->3  1->3  4->3
    edge_index = torch.tensor([[0, 0, 2, 1, 4], [1, 3, 3, 3, 3]], device=device)
    facts = graph_summary(edge_index, 6)
    assert (facts.nodes, facts.edges, facts.degree_max, facts.isolated) == (6, 5, 4, 4)
    assert facts.degree_mean == 5 / 6
    assert facts.degree_deviation == pytest.approx(math.sqrt((1 + 16) / 6 - (5 / 6) ** 2))
    assert facts.degree_histogram == (4, 1, 0, 1)  # four nodes without edges, one of degree 1, one in [4, 8)
    assert facts.average_edge_span == (1 + 3 + 1 + 2 + 1) / 5
    assert facts.sorted_by_destination


def test_empty_graphs(device):
    for nodes in (0, 5):
        facts = graph_summary(torch.empty(2, 0, dtype=torch.int64, device=device), nodes)
        assert (facts.edges, facts.isolated, facts.degree_max, facts.average_edge_span) == (0, nodes, 0, 0)


def test_an_index_out_of_range_is_refused():
    with pytest.raises(ValueError, match="ids from 0 to 7, but num_nodes is 5"):
        graph_summary(torch.tensor([[0], [7]]), 5)


def test_locality_facts_differ_between_ordered_and_shuffled_ids():
    nodes = 6400
    src = torch.arange(nodes).repeat(4)
    ordered = torch.stack([src, (src + torch.randint(-50, 50, (4 * nodes,))) % nodes])
    shuffled = torch.randperm(nodes)[ordered]
    assert graph_summary(ordered, nodes).local_edges > 0.95
    assert graph_summary(shuffled, nodes).local_edges < 0.06
    assert graph_summary(ordered, nodes).average_edge_span < graph_summary(shuffled, nodes).average_edge_span / 10


@pytest.fixture
def facts():
    return graph_summary(torch.randint(0, 50_000, (2, 500_000)), 50_000)


def test_papers_model(facts):
    narrow, wide = paper_model(facts, 16), paper_model(facts, 64)
    assert (narrow.dw, wide.dw) == (16, 32)  # half a warp below width 32, a whole warp from there
    assert narrow.ngs == facts.degree_max and wide.ngs <= facts.degree_max  # no group is longer than the longest row
    assert narrow.workload_per_thread == narrow.ngs * 16 / 16
    huge = paper_model(facts, 4096)
    assert huge.threads_per_block < 1024 and huge.shared_memory_fits and huge.shared_memory <= 48 << 10
    assert not paper_model(facts, 1 << 16).shared_memory_fits  # not even one warp fits: the artifact failed here


def test_papers_renumbering_rule(facts):
    assert paper_model(facts, 16).renumber
    path = torch.stack([torch.arange(10**6 - 1), torch.arange(1, 10**6)])
    model = paper_model(graph_summary(path, 10**6), 16)
    assert not model.renumber and model.renumber_rule == "sqrt(AES) = 1.0 <= floor(sqrt(nodes) / 100) = 10"
