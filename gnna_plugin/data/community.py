"""Draws the community graph, the default graph, which needs no download.

It has communities of uneven size with most edges inside them, heavy-tailed degrees, ids that follow the communities
with some noise, and labels that a model can learn from the features.
"""

import numpy as np

DEFAULT_SIZE = (100_000, 1_500_000)
NUM_FEATURES = 64
NUM_CLASSES = 10

_INSIDE = 0.8  # share of edges that stay in their community
_ID_NOISE = 8.0  # standard deviation of a node id around its place, in nodes
# Standard deviation of the class centres, where the noise of a node has 1. The mean over a node's neighbours is enough
# to tell its class, its own features are not.
_SIGNAL = 0.3


def community_graph(num_nodes, num_edges, *, seed=0):
    """Draw a symmetric graph without self-loops or repeated edges.

    The same arguments give the same arrays.

    Args:
        num_nodes: number of nodes.
        num_edges: number of directed edges, an even number.
        seed: seed of the random numbers.

    Returns:
        The keyword arguments of gnna_plugin.data.Graph as a dict: num_nodes; src and dst, int64 [num_edges], sorted by
        (dst, src); x, float32 [num_nodes, 64]; y, int64 [num_nodes], one of 10 classes, chosen by the community;
        train_mask, val_mask and test_mask, bool [num_nodes], with 10, 10 and 80 per cent of the nodes.

    Raises:
        ValueError: there is no such graph of this size.
    """
    if num_nodes < 2 or num_edges < 2 or num_edges % 2:
        raise ValueError(f"community:{num_nodes}x{num_edges}: needs an even number of edges, and at least 2 nodes")
    if num_edges > num_nodes * (num_nodes - 1) // 2:
        raise ValueError(f"community:{num_nodes}x{num_edges}: more than half of all possible edges; ask for fewer")
    rng = np.random.default_rng(seed)
    starts = _community_starts(rng, num_nodes)
    community = np.searchsorted(starts, np.arange(num_nodes), side="right") - 1
    low, high = _undirected_edges(rng, num_nodes, num_edges // 2, starts, community)

    # The ids follow the communities exactly up to here. Real ids, from a crawl or an export, do so only roughly.
    old_id = np.argsort(np.arange(num_nodes) + rng.normal(0, _ID_NOISE, num_nodes))
    place = np.argsort(old_id)
    low, high = place[low], place[high]
    key = np.sort(np.concatenate([low * num_nodes + high, high * num_nodes + low]))
    dst, src = np.divmod(key, num_nodes)

    labels = rng.integers(0, NUM_CLASSES, len(starts))[community[old_id]]
    centres = rng.normal(0, _SIGNAL, (NUM_CLASSES, NUM_FEATURES)).astype(np.float32)
    x = rng.standard_normal((num_nodes, NUM_FEATURES), dtype=np.float32)
    x += centres[labels]
    part = rng.random(num_nodes)
    return dict(num_nodes=num_nodes, src=src, dst=dst, x=x, y=labels,
                train_mask=part < 0.1, val_mask=(part >= 0.1) & (part < 0.2), test_mask=part >= 0.2)


def _community_starts(rng, num_nodes):
    """Return the first node of each community, ascending from 0.

    The sizes have a heavy tail from 60 to 2,000 nodes.
    """
    draws = max(1, num_nodes // 60)
    sizes = np.minimum(60 * (1 + rng.pareto(1.5, draws)), 2_000).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return starts[: max(1, int(np.searchsorted(starts, num_nodes)))]


def _undirected_edges(rng, num_nodes, wanted, starts, community):
    """Draw distinct pairs low < high and return them as two arrays, int64 [wanted].

    Endpoints are drawn in proportion to a heavy-tailed propensity.
    """
    propensity = np.minimum(1 + rng.pareto(2.0, num_nodes), 100.0)
    upto = np.concatenate([[0.0], np.cumsum(propensity)])
    ends = np.concatenate([starts[1:], [num_nodes]])
    found = np.empty(0, np.int64)
    rounds = 0
    while len(found) < wanted:
        missing = wanted - len(found)
        draws = int(missing * 1.1) + 64
        u = _draw(rng, upto, np.zeros(draws), np.full(draws, upto[-1]))
        inside = rng.random(draws) < _INSIDE
        first = np.where(inside, upto[starts[community[u]]], 0.0)
        last = np.where(inside, upto[ends[community[u]]], upto[-1])
        # In a dense graph the likely pairs run out. Later rounds draw uniformly, so that the loop always ends.
        v = _draw(rng, upto, first, last) if rounds < 8 else rng.integers(0, num_nodes, draws)
        u = u if rounds < 8 else rng.integers(0, num_nodes, draws)
        pairs = (np.minimum(u, v) * num_nodes + np.maximum(u, v))[u != v]
        fresh = np.setdiff1d(pairs, found)
        # A random selection, because the pairs are sorted and cutting off the tail would leave out the highest ids.
        found = np.concatenate([found, rng.permutation(fresh)[:missing]])
        rounds += 1
    return np.divmod(found, num_nodes)


def _draw(rng, upto, first, last):
    """Draw nodes in proportion to their propensity.

    ``upto`` is the running sum of the propensities from 0. Entry i of the result is drawn from the part of ``upto``
    between first[i] and last[i].
    """
    at = np.searchsorted(upto, first + rng.random(len(first)) * (last - first), side="right") - 1
    return np.clip(at, 0, len(upto) - 2)
