"""Orders of nodes: Rabbit order, which finds planted communities and does not depend on the number of threads, degree
orders, and the measures of an order's quality.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnna_plugin.extractor import graph_summary, modularity
from gnna_plugin.orders import degree_order, inverse, rabbit_order


def planted(communities: int, size: int, inside: int, outside: int, seed: int = 0):
    """Return a graph with planted communities and shuffled ids.

    Args:
        communities: number of communities.
        size: nodes per community.
        inside: edges per node to its own community.
        outside: edges per node to any node.
        seed: of the random numbers.

    Returns:
        edge_index with every edge in both directions, and the community of each node.
    """
    generator = torch.Generator().manual_seed(seed)
    n = communities * size
    node = torch.arange(n).repeat_interleave(inside)
    peer = node // size * size + torch.randint(0, size, node.shape, generator=generator)
    far = torch.arange(n).repeat_interleave(outside)
    ends = torch.stack([torch.cat([node, far]), torch.cat([peer, torch.randint(0, n, far.shape, generator=generator)])])
    ends = torch.cat([ends, ends.flip(0)], 1)
    shuffle = torch.randperm(n, generator=generator)
    community = torch.empty(n, dtype=torch.int64)
    community[shuffle] = torch.arange(n) // size
    return shuffle[ends], community


def directed(n: int, edges: int, seed: int = 0):
    return torch.randint(0, n, (2, edges), generator=torch.Generator().manual_seed(seed))


@st.composite
def graphs(draw):
    """Draw the number of nodes and the edge_index of a directed graph.

    It may have self-loops, repeated edges and isolated nodes.
    """
    n = draw(st.integers(1, 40))
    ends = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=120))
    return n, torch.tensor(ends, dtype=draw(st.sampled_from([torch.int32, torch.int64]))).reshape(-1, 2).t()


@settings(deadline=None, max_examples=150)
@given(graphs())
def test_every_order_is_a_permutation_in_which_communities_are_contiguous(graph):
    n, edge_index = graph
    order, community = rabbit_order(edge_index, n)
    for found in (order, degree_order(edge_index, n)):
        assert found.dtype == torch.int64 and found.sort().values.equal(torch.arange(n))
    along = community[order]
    assert along[0] == 0 and set((along[1:] - along[:-1]).tolist()) <= {0, 1}
    # All nodes of a community are connected by paths.
    reach = torch.eye(n, dtype=torch.bool)
    reach[edge_index[0].long(), edge_index[1].long()] = True
    reach |= reach.t().clone()
    for _ in range(n.bit_length()):
        reach = (reach.float() @ reach.float()) > 0
    assert reach[community[:, None] == community[None, :]].all()


@pytest.mark.parametrize("make", [lambda: planted(40, 100, 8, 2)[0], lambda: directed(5000, 60_000)])
def test_rabbit_order_does_not_depend_on_the_number_of_threads(make):
    edge_index, threads = make(), torch.get_num_threads()
    n = int(edge_index.max()) + 1
    try:
        found = []
        for count in (1, 2, 3, 7, 2):
            torch.set_num_threads(count)
            found.append(rabbit_order(edge_index, n))
    finally:
        torch.set_num_threads(threads)
    assert all(f.order.equal(found[0].order) and f.community.equal(found[0].community) for f in found)


def test_rabbit_order_finds_planted_communities_after_a_shuffle():
    edge_index, truth = planted(50, 60, 10, 1)
    n = truth.numel()
    order, community = rabbit_order(edge_index, n)
    assert modularity(edge_index, community) > 0.97 * modularity(edge_index, truth)
    before, after = graph_summary(edge_index, n), graph_summary(inverse(order)[edge_index], n)
    assert after.average_edge_span < 0.25 * before.average_edge_span
    # Before, edges are local by chance only. Ten of eleven edges stay inside a community and can become local.
    assert after.local_edges > 0.8 > 0.1 > before.local_edges


def test_rabbit_order_ignores_the_direction_of_edges():
    edge_index, _ = planted(20, 40, 6, 1)
    forward = edge_index[:, : edge_index.size(1) // 2]  # every edge once
    assert rabbit_order(forward, 800).order.equal(rabbit_order(edge_index, 800).order)


def test_rabbit_order_without_structure():
    none = torch.empty(2, 0, dtype=torch.int64)
    assert rabbit_order(none, 4).order.tolist() == [0, 1, 2, 3]
    assert rabbit_order(none, 0).order.tolist() == []
    loops = torch.arange(4).expand(2, 4)
    assert rabbit_order(loops, 4).community.tolist() == [0, 1, 2, 3]
    # Node 1 has no edge and comes last. Node 3 has three edges from node 0 and one from node 2.
    edges = torch.tensor([[0, 0, 0, 2, 2, 2, 2], [3, 3, 3, 3, 4, 4, 4]])
    order, community = rabbit_order(edges, 5)
    assert order[-1] == 1
    assert community[0] == community[3] != community[2] == community[4]


def test_rabbit_order_of_a_star_and_of_a_chain():
    star = torch.stack([torch.zeros(20_000, dtype=torch.int64), torch.arange(1, 20_001)])
    assert rabbit_order(star, 20_001).community.unique().numel() == 1
    chain = torch.stack([torch.arange(9_999), torch.arange(1, 10_000)])
    found = rabbit_order(chain, 10_000)
    span = (inverse(found.order)[chain[0]] - inverse(found.order)[chain[1]]).abs()
    assert span.double().mean() < 100


def test_invalid_indices_are_refused():
    with pytest.raises(ValueError, match=r"src\[1\] = 9 is out of range"):
        rabbit_order(torch.tensor([[0, 9], [1, 1]]), 5)
    with pytest.raises(ValueError, match=r"\[2, number of edges\]"):
        rabbit_order(torch.tensor([0, 1]), 5)
    with pytest.raises(TypeError, match="int32 or both int64"):
        degree_order(torch.rand(2, 3), 5)


def test_degree_order_descends_and_is_stable():
    edge_index = directed(300, 2000)
    edge_index[1, :900] = 7  # a hub
    degree = torch.bincount(edge_index[1], minlength=300)
    order = degree_order(edge_index, 300)
    assert order.equal(torch.argsort(degree, descending=True, stable=True))


def test_community_schedule_sorts_by_degree_inside_communities():
    edge_index, _ = planted(30, 50, 6, 1)
    src, dst = edge_index
    order = torch.ops.gnna.community_order(src, dst, 1500, 1500).long()
    rabbit, community = rabbit_order(edge_index, 1500)
    degree = torch.bincount(dst, minlength=1500)
    place = inverse(rabbit)
    expected = sorted(range(1500), key=lambda r: (int(community[r]), -int(degree[r]), int(place[r])))
    assert order.tolist() == expected


def test_a_bipartite_graph_is_ordered_by_its_rows():
    """Even rows gather columns 0 to 19 and odd rows columns 20 to 39, which gives two communities of rows."""
    dst = torch.arange(100).repeat_interleave(8)
    src = torch.randint(0, 20, dst.shape) + 20 * (dst % 2)
    order = torch.ops.gnna.community_order(src, dst, 40, 100).long()
    assert order.sort().values.equal(torch.arange(100))
    half = order[:50] % 2
    assert half.eq(half[0]).all()


def cold_by_hand(src, dst, order, capacity):
    """Simulate a least recently used cache and return the share of gathers that miss it."""
    held, cold = [], 0
    for row in order:
        for column in src[dst == row].tolist():
            cold += column not in held
            held = [c for c in held if c != column] + [column]
            held = held[-capacity:]
    return cold / src.numel()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_cold_gathers_lie_between_those_of_full_and_half_the_capacity(seed, capacity):
    src, dst = directed(60, 400, seed)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    found = torch.ops.gnna.cold_gathers(src, dst, 60, 60, order, capacity)
    assert cold_by_hand(src, dst, order, capacity) <= found <= cold_by_hand(src, dst, order, capacity // 2)


def test_modularity_of_two_pairs():
    edges = torch.tensor([[0, 1, 0, 2, 3, 2], [1, 0, 0, 3, 2, 2]])  # two pairs; the self-loop does not count
    assert modularity(edges, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.5)
    assert modularity(edges, torch.tensor([0, 1, 0, 1])) == pytest.approx(-0.5)
    assert modularity(edges[:, :0], torch.tensor([0, 0])) == 0
