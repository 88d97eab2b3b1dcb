"""The generated community graph: a default that needs no download, with the structure that real graphs have.

This file owns how that graph is drawn: communities of uneven size whose nodes mostly keep to themselves, degrees with
a heavy tail, ids that follow the communities with mild noise, and labels that a model can learn from the features.
"""

import numpy as np

DEFAULT_SIZE = (100_000, 1_500_000)
NUM_FEATURES = 64
NUM_CLASSES = 10

_INSIDE = 0.8  # share of edges that stay in their community
_ID_NOISE = 8.0  # standard deviation of a node id around its place, in nodes
_SIGNAL = 0.3  # size of a class centre per feature, beside noise of 1: enough with neighbours, too little without


def community_graph(num_nodes, num_edges, *, seed=0):
    """Draw a symmetric graph without loops or repeated edges, as the keyword arguments of gnna_plugin.data.Graph.

    ``num_edges`` counts directed edges and must be even. Returns a dict with num_nodes; src, dst int64 [num_edges]
    sorted by (dst, src); x float32 [num_nodes, 64]; y int64 [num_nodes], one of 10 classes given by the community;
    train_mask, val_mask, test_mask bool [num_nodes], covering 10, 10 and 80 per cent. The same arguments give the same
    arrays. Raises ValueError for a size that has no such graph.
    """
    if num_nodes < 2 or num_edges < 2 or num_edges % 2:
        raise ValueError(f"community:{num_nodes}x{num_edges}: needs 2 nodes or more and an even number of edges")
    if num_edges > num_nodes * (num_nodes - 1) // 2:
        raise ValueError(f"community:{num_nodes}x{num_edges}: more than half of all possible edges, draw fewer")
    rng = np.random.default_rng(seed)
    starts = _community_starts(rng, num_nodes)
    community = np.searchsorted(starts, np.arange(num_nodes), side="right") - 1
    low, high = _undirected_edges(rng, num_nodes, num_edges // 2, starts, community)

    # Nodes were drawn in community order; each is now moved a few places, as a crawl or an export would leave them.
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
    """First node of each community, ascending from 0; sizes are heavy-tailed around 60 to 2,000 nodes."""
    draws = max(1, num_nodes // 60)
    sizes = np.minimum(60 * (1 + rng.pareto(1.5, draws)), 2_000).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return starts[: max(1, int(np.searchsorted(starts, num_nodes)))]


def _undirected_edges(rng, num_nodes, wanted, starts, community):
    """Distinct pairs low < high, int64 [wanted] each, endpoints drawn in proportion to a heavy-tailed propensity."""
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
        # A dense request exhausts the likely pairs; later rounds draw evenly, so that the loop always ends.
        v = _draw(rng, upto, first, last) if rounds < 8 else rng.integers(0, num_nodes, draws)
        u = u if rounds < 8 else rng.integers(0, num_nodes, draws)
        pairs = (np.minimum(u, v) * num_nodes + np.maximum(u, v))[u != v]
        fresh = np.setdiff1d(pairs, found)
        # Kept at random: the pairs come sorted, and cutting the tail off would starve the highest ids.
        found = np.concatenate([found, rng.permutation(fresh)[:missing]])
        rounds += 1
    return np.divmod(found, num_nodes)


def _draw(rng, upto, first, last):
    """Nodes drawn in proportion to their propensity from the span (first, last) of its running sum ``upto``."""
    at = np.searchsorted(upto, first + rng.random(len(first)) * (last - first), side="right") - 1
    return np.clip(at, 0, len(upto) - 2)
