"""Draws distinct edges from given degrees and communities, in bounded memory: the inner loop of the stand-ins.

Every node owns as many stubs as it should have edges. Stubs are read in order, so that the degrees are as given. Each
stub is joined to a stub of its community or, less often, of the whole graph. Repeated pairs and self-loops are dropped
and drawn again until the count is exact.
"""

import numpy as np

_PIECE = 1 << 22  # edges drawn at once, which bounds every temporary array
_SKEWED_ROUNDS = 6  # later rounds draw nodes uniformly, because dense communities and hubs run out of new pairs
_ROUNDS = 1_000


def draw_distinct(rng, *, labels, starts, stubs, first_stub, inside, even_sources, symmetric, wanted):
    """Draw exactly ``wanted`` distinct pairs without self-loops.

    Args:
        rng: a NumPy random generator.
        labels: int32 [N], the final id of every node.
        starts: int64 [C + 1], the first node of every community; the last entry is N.
        stubs, first_stub: int32 [S] and int64 [N + 1]. Node i owns the stubs first_stub[i] <= s < first_stub[i + 1].
        inside: share of the pairs that stay in one community; 1 means all.
        even_sources: draw sources uniformly instead of by their stubs.
        symmetric: whether pairs are undirected.
        wanted: number of pairs.

    Returns:
        int64 [wanted]: dst * N + src, or low * N + high for undirected pairs, in no particular order.

    Raises:
        ValueError: fewer pairs were found in the largest number of rounds.
    """
    n = len(labels)
    sampler = _Sampler(rng, labels, starts, stubs, first_stub, inside, even_sources, symmetric)
    runs, found, accepted = [], 0, 1.0
    for attempt in range(_ROUNDS):
        missing = wanted - found
        draws = wanted if attempt == 0 else int(missing * 1.05 / max(accepted, 0.02)) + 64
        fresh = np.empty(draws, np.int64)
        for begin in range(0, draws, _PIECE):
            end = min(begin + _PIECE, draws)
            fresh[begin:end] = sampler.piece(attempt, begin, end, draws)
        fresh.sort()
        keep = np.empty(draws, bool)
        keep[:1] = True
        np.not_equal(fresh[1:], fresh[:-1], out=keep[1:])
        keep &= fresh >= 0  # self-loops are -1
        fresh = fresh[keep]
        for run in runs:  # both are sorted, so the search reads memory in order
            fresh = fresh[~_holds(run, fresh)]
        accepted = len(fresh) / draws
        if len(fresh) > missing:
            # Random ones, because the keys are sorted and cutting off the tail would leave out the highest ids.
            drop = rng.choice(len(fresh), len(fresh) - missing, replace=False, shuffle=False)
            fresh = np.delete(fresh, drop)
        found += len(fresh)
        if len(fresh):
            runs.append(fresh)
        if found == wanted:
            return np.concatenate(runs) if len(runs) > 1 else runs[0]
        if len(runs) > 4:  # all but the first are short
            runs[1:] = [np.sort(np.concatenate(runs[1:]))]
    raise ValueError(f"only {found} of {wanted} distinct edges exist among {n} nodes in communities of this size")


def _holds(run, keys):
    """Return bool [len(keys)]: which of the sorted ``keys`` the sorted ``run`` has."""
    return run[np.minimum(np.searchsorted(run, keys), len(run) - 1)] == keys


class _Sampler:
    def __init__(self, rng, labels, starts, stubs, first_stub, inside, even_sources, symmetric):
        self.rng, self.labels, self.stubs = rng, labels, stubs
        self.inside, self.even_sources, self.symmetric = inside, even_sources, symmetric
        self.community = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
        # (first, count) of the nodes and of the stubs of every community.
        self.node_span = starts[:-1], np.diff(starts)
        self.stub_span = first_stub[starts[:-1]], np.diff(first_stub[starts])
        # (room of every community, degree of every node): edges of a node beyond the room leave its community.
        self.degree_room = (0.5 * self.node_span[1]).astype(np.float32), np.diff(first_stub).astype(np.float32)

    def piece(self, attempt, begin, end, draws):
        """Draw the pairs [begin, end) of the ``draws`` pairs of round ``attempt``.

        Returns their keys, int64 [end - begin], where -1 stands for a self-loop.
        """
        count = end - begin
        late = attempt >= _SKEWED_ROUNDS
        if late:
            u = self._below(count, len(self.labels)).astype(np.int32)
        elif attempt == 0:  # all stubs in order; for undirected pairs every second one, as the rest become partners
            u = self.stubs[np.arange(begin, end, dtype=np.int64) * len(self.stubs) // draws]
        else:
            u = self.stubs[self._below(count, len(self.stubs))]
        even = late or self.even_sources
        first, length = self.node_span if even else self.stub_span
        community = self.community[u]
        at = self._below(count, length[community]) + first[community]
        if self.inside < 1:
            room, degree = self.degree_room
            share = np.minimum(np.float32(self.inside), room[community] / np.maximum(degree[u], 1))
            outside = self.rng.random(count, dtype=np.float32) >= share
            at[outside] = self._below(int(outside.sum()), len(self.labels) if even else len(self.stubs))
        v = at if even else self.stubs[np.minimum(at, len(self.stubs) - 1)]
        u, v = self.labels[u], self.labels[v]
        if self.symmetric:
            u, v = np.minimum(u, v), np.maximum(u, v)
        keys = u.astype(np.int64) * len(self.labels) + v
        keys[u == v] = -1
        return keys

    def _below(self, count, limit):
        """Draw integers in [0, limit), int64 [count].

        ``limit`` is a number or an array, below 2^31.
        """
        return (self.rng.integers(0, 1 << 32, count, dtype=np.uint32).astype(np.int64) * limit) >> 32
