"""Who computes the same: this library, torch itself, and whatever the adapters of the installed frameworks offer.

A peer is a function of a Problem that does all preparation a user would do once, and returns the call that is timed, a
function of the operands. It raises Unsupported for what it has no operation for. A peer whose maximum of no neighbours
is infinite by its own rules has the attribute empty_rows_are_infinite.
"""

from __future__ import annotations

import warnings

import torch

from gnna_plugin.data.problem import Peer, Problem, Unsupported
from gnna_plugin.frameworks import FRAMEWORKS

OURS = "gnna"


def adapter(framework: str):
    """The peers' module of a framework, which has PEERS: {name: Peer}, or why it cannot be imported, a string."""
    try:
        return FRAMEWORKS[framework].load("tools.peers")
    except ImportError as error:
        return str(error)


def all_peers() -> tuple[dict[str, Peer], dict[str, str]]:
    """(peers by name, ours first; {framework: reason} of what cannot be imported)."""
    found, missing = dict(_OWN), {}
    for framework in FRAMEWORKS:
        module = adapter(framework)
        if isinstance(module, str):
            missing[framework] = module
        else:
            found.update(module.PEERS)
    return found, missing


def csr(problem: Problem):
    """(rowptr, col, order): in-neighbour CSR of the problem's edges, int64; order[slot] is the edge's position."""
    order = torch.argsort(problem.dst, stable=True)
    rowptr = torch.zeros(problem.num_nodes + 1, dtype=torch.int64, device=order.device)
    rowptr[1:] = torch.bincount(problem.dst, minlength=problem.num_nodes).cumsum(0)
    return rowptr, problem.src[order], order


def _gnna(problem: Problem):
    src, dst, nodes, reduce = problem.src, problem.dst, problem.num_nodes, problem.reduce
    if problem.kind == "segment":
        return lambda messages: torch.ops.gnna.segment_reduce(messages, dst, nodes, reduce)
    if problem.kind == "sddmm":
        return lambda a, b: torch.ops.gnna.sddmm(a, b, src, dst, 0 if problem.heads == 1 else 1)
    if problem.weight == "static":  # one for all calls, in the plan's order, as peers have it that put it into a matrix
        fixed = problem.operands()[1]
        torch.ops.gnna.mark_constant(fixed)
        return lambda x, weight: torch.ops.gnna.spmm(x, fixed, src, dst, nodes, reduce)
    return lambda x, weight=None: torch.ops.gnna.spmm(x, weight, src, dst, nodes, reduce)


def _matrix(problem: Problem, values=None):
    rowptr, col, order = csr(problem)
    values = torch.ones(problem.edges, dtype=problem.dtype, device=col.device) if values is None else values[order]
    shape = (problem.num_nodes, problem.num_nodes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's sparse tensors are in beta, as it says every time
        return torch.sparse_csr_tensor(rowptr, col, values, shape, check_invariants=False)


def _weighted_matrix(problem: Problem):
    """The matrix with the weight of operands(seed 0) in it: a static weight, which is part of the preparation."""
    if problem.heads > 1 or problem.weight == "learned":
        raise Unsupported("no weights that are learned or differ by head")
    return _matrix(problem, problem.operands()[1] if problem.weight == "static" else None)


def _sparse_mm(problem: Problem):
    if problem.kind != "spmm" or problem.reduce != "sum":
        raise Unsupported("sums of neighbours only")
    matrix = _weighted_matrix(problem)
    return lambda x, weight=None: torch.sparse.mm(matrix, x)


def _sparse_mm_reduce(problem: Problem):
    if problem.kind != "spmm" or problem.src.is_cuda:
        raise Unsupported("a kernel for the CPU only")
    matrix = _weighted_matrix(problem)
    name = {"max": "amax", "min": "amin"}.get(problem.reduce, problem.reduce)
    return lambda x, weight=None: torch.sparse.mm(matrix, x, name)


def _sampled_addmm(problem: Problem):
    if problem.kind != "sddmm" or problem.heads > 1:
        raise Unsupported("dot products of whole rows only")
    pattern = _matrix(problem)
    if not bool((problem.dst[1:] >= problem.dst[:-1]).all()):
        raise Unsupported("results in the order of a sorted edge list only")
    return lambda a, b: torch.sparse.sampled_addmm(pattern, b, a.t(), beta=0.0).values()


def _scatter(problem: Problem):
    return problem.plain


def _compiled(problem: Problem):
    return torch.compile(problem.plain, dynamic=False)


_OWN: dict[str, Peer] = {
    OURS: _gnna,
    "torch.sparse.mm": _sparse_mm,
    "torch.sparse.mm(reduce)": _sparse_mm_reduce,
    "sampled_addmm": _sampled_addmm,
    "gather + scatter": _scatter,
    "gather + scatter, compiled": _compiled,
}
