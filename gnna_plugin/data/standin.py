"""Draws stand-ins: generated graphs in place of real graphs that are not available everywhere.

A stand-in has exactly as many nodes and edges as its original, the same kind of degree distribution and communities of
similar size. It is never the original, so its name starts with "standin:" in every table. This file owns the table of
facts and the generator.
"""

from dataclasses import dataclass

import numpy as np

from gnna_plugin.data.graph import Graph
from gnna_plugin.data.sampling import draw_distinct

_PAPER, _SNAP, _OGB = "GNNAdvisor, OSDI 2021, table 1", "SNAP", "OGB, NeurIPS 2020"


@dataclass(frozen=True)
class Facts:
    """The properties of a stand-in.

    nodes and edges are those of the original. The other properties are aims, not measurements of the original.

    Attributes:
        edges: number of directed edges as stored.
        kind: "symmetric" (every edge both ways, without self-loops), "directed" (both ends skewed) or "even" (directed,
            with nearly equal out-degrees). An original with an odd number of edges is "directed" or "even", because no
            symmetric graph without self-loops has that number.
        exponent: exponent of the power law of degrees; None for nearly equal degrees.
        max_degree: in-degree at which the power law is cut, about that of the original.
        community: mean number of nodes of a community.
        inside: share of edges inside communities; 1 gives a block-diagonal matrix, like a batch of small graphs.
        ids: "ordered" (ids follow the communities), "noisy" (they do roughly) or "shuffled" (they do not).
        source: publication that gives nodes and edges.
    """

    nodes: int
    edges: int
    kind: str
    exponent: float | None
    max_degree: int | None
    community: int
    inside: float
    ids: str
    source: str


STANDINS = {
    "citeseer": Facts(3_327, 9_464, "symmetric", 2.8, 99, 50, 0.9, "shuffled", _PAPER),
    "cora": Facts(2_708, 10_858, "symmetric", 2.8, 168, 100, 0.85, "shuffled", _PAPER),
    "pubmed": Facts(19_717, 88_676, "symmetric", 2.4, 171, 300, 0.85, "shuffled", _PAPER),
    "PROTEINS_full": Facts(43_471, 162_088, "symmetric", None, None, 39, 1.0, "ordered", _PAPER),
    "DD": Facts(334_925, 1_686_092, "symmetric", None, None, 284, 1.0, "ordered", _PAPER),
    "amazon0505": Facts(410_236, 4_878_875, "directed", 2.8, 2_760, 200, 0.8, "noisy", _PAPER),
    "amazon0601": Facts(403_394, 3_387_388, "even", 2.8, 2_750, 200, 0.8, "noisy", _PAPER),
    "artist": Facts(50_515, 1_638_396, "symmetric", 2.5, 1_470, 500, 0.6, "shuffled", _PAPER),
    "com-amazon": Facts(334_863, 1_851_744, "symmetric", 3.0, 549, 100, 0.9, "noisy", _PAPER),
    "soc-BlogCatalog": Facts(88_784, 2_093_195, "directed", 2.1, 9_440, 1_000, 0.4, "shuffled", _PAPER),
    "ppi": Facts(56_944, 818_716, "symmetric", 2.5, 720, 2_370, 1.0, "ordered", _PAPER),
    "Yeast": Facts(1_714_644, 3_636_546, "symmetric", None, None, 22, 1.0, "ordered", _PAPER),
    "OVCAR-8H": Facts(1_890_931, 3_946_402, "symmetric", None, None, 47, 1.0, "ordered", _PAPER),
    "SW-620H": Facts(1_889_971, 3_944_206, "symmetric", None, None, 47, 1.0, "ordered", _PAPER),
    "TWITTER-Real-Graph-Partial": Facts(580_768, 1_435_116, "symmetric", None, None, 4, 1.0, "ordered", _PAPER),
    "reddit": Facts(232_965, 114_615_892, "symmetric", 2.3, 21_650, 5_700, 0.75, "shuffled", "GraphSAGE, NeurIPS 2017"),
    "LiveJournal": Facts(4_847_571, 68_993_773, "directed", 2.75, 13_900, 500, 0.6, "noisy", _SNAP),
    "com-orkut": Facts(3_072_441, 234_370_166, "symmetric", 2.7, 33_300, 2_000, 0.5, "noisy", _SNAP),
    "ogbn-arxiv": Facts(169_343, 1_166_243, "even", 2.4, 13_150, 1_000, 0.7, "shuffled", _OGB),
    "ogbn-products": Facts(2_449_029, 123_718_280, "symmetric", 2.6, 17_480, 1_500, 0.8, "shuffled", _OGB),
}


def standin_graph(name, *, seed=0):
    """Draw the stand-in for the graph ``name``.

    Takes one or two seconds and at most 350 MB of memory per 10 million edges. The same name and seed give the same
    graph.

    Args:
        name: a key of STANDINS, in upper or lower case.
        seed: seed of the random numbers.

    Returns:
        A Graph named standin:NAME without features or labels. Its edges are distinct, without self-loops, and sorted by
        (dst, src).

    Raises:
        ValueError: the name is unknown.
    """
    spelled = {known.lower(): known for known in STANDINS}
    if name.lower() not in spelled:
        raise ValueError(f"standin:{name}: no such stand-in; there are {', '.join(STANDINS)}")
    name = spelled[name.lower()]
    facts = STANDINS[name]
    n, symmetric = facts.nodes, facts.kind == "symmetric"
    rng = np.random.default_rng(seed)
    starts = _community_starts(rng, facts)
    stubs, first_stub = _stubs(rng, facts)
    labels = _labels(rng, facts)
    keys = draw_distinct(
        rng,
        labels=labels,
        starts=starts,
        stubs=stubs,
        first_stub=first_stub,
        inside=facts.inside,
        even_sources=facts.kind == "even",
        symmetric=symmetric,
        wanted=facts.edges // 2 if symmetric else facts.edges,
    )
    del stubs, first_stub
    if symmetric:
        keys = _both_ways(keys, n)
    keys.sort()
    src = keys % n
    keys //= n
    return Graph(name=f"standin:{name}", num_nodes=n, src=src, dst=keys)


def _both_ways(keys, n):
    """Return the keys of both directions of undirected pairs low * n + high.

    Overwrites ``keys`` and works in place, so that few copies exist at a time.
    """
    half = len(keys)
    both = np.empty(2 * half, np.int64)
    both[:half] = keys
    mirrored = np.remainder(keys, n, out=both[half:])
    mirrored *= n
    keys //= n
    mirrored += keys
    return both


def _community_starts(rng, facts):
    """Return the first node of every community, int64 [C + 1].

    The last entry is the number of nodes.
    """
    mean, count = facts.community, 2 * facts.nodes // facts.community + 16
    if facts.inside == 1:  # a batch of small graphs, with sizes from 0.5 to 1.5 times the mean
        sizes = rng.integers(max(2, mean // 2), mean + mean // 2 + 1, count)
    else:
        sizes = np.maximum(8, np.minimum(mean / 3 * (1 + rng.pareto(1.5, count)), 20 * mean)).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    kept = starts[: int(np.searchsorted(starts, facts.nodes - 1))]  # the last community has at least two nodes
    return np.concatenate([kept, [facts.nodes]])


def _stubs(rng, facts):
    """Draw the degrees and return (stubs int32 [about E], first_stub int64 [N + 1]).

    stubs[first_stub[i]:first_stub[i + 1]] are all i, as many as the degree of node i.
    """
    n, mean = facts.nodes, facts.edges / facts.nodes
    weight = np.ones(n)
    if facts.exponent is not None:
        # Quantiles of the power law instead of random draws, so that the tail is the same for every seed.
        weight = ((np.arange(n) + 0.5) / n) ** (-1 / (facts.exponent - 1))
        for _ in range(50):
            weight = np.minimum(weight, facts.max_degree / mean * weight.mean())
        rng.shuffle(weight)
    degree = (weight * (mean / weight.mean()) + rng.random(n)).astype(np.int64)
    first_stub = np.concatenate([[0], np.cumsum(degree)])
    return np.repeat(np.arange(n, dtype=np.int32), degree), first_stub


def _labels(rng, facts):
    """Return the final id of every node, int32 [N].

    The nodes are numbered by community before.
    """
    n = facts.nodes
    if facts.ids == "ordered":
        return np.arange(n, dtype=np.int32)
    if facts.ids == "shuffled":
        return rng.permutation(n).astype(np.int32)
    labels = np.empty(n, np.int32)
    labels[np.argsort(np.arange(n) + rng.normal(0, 4 * facts.community, n))] = np.arange(n, dtype=np.int32)
    return labels
