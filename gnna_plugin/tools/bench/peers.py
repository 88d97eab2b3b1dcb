"""The peers, which compute the same: the plug-in, torch itself, and what the adapters of installed frameworks offer.

A peer is a function of a Problem. It does the preparation that a user does once, and returns the call that is timed, a
function of the operands. It raises Unsupported if it has no such operation. If its max or min of an empty row is
infinite by its own rules, it has the attribute empty_rows_are_infinite.
"""

from __future__ import annotations

import warnings

import torch

from gnna_plugin.data.problem import Peer, Problem, Unsupported
from gnna_plugin.frameworks import FRAMEWORKS

OURS = "gnna"


def adapter(framework: str):
    """Return the module tools.peers of a framework's adapter.

    If it cannot be imported, the result is the reason, a string. The module has PEERS: {name: Peer}.
    """
    try:
        return FRAMEWORKS[framework].load("tools.peers")
    except ImportError as error:
        return str(error)


def all_peers() -> tuple[dict[str, Peer], dict[str, str]]:
    """Return {name: Peer}, the plug-in first, and {framework: why its import failed}."""
    found, missing = dict(_OWN), {}
    for framework in FRAMEWORKS:
        module = adapter(framework)
        if isinstance(module, str):
            missing[framework] = module
        else:
            found.update(module.PEERS)
    return found, missing


def csr(problem: Problem):
    """Return the in-neighbour CSR of the problem as int64 (rowptr, col, order).

    Entry k of col belongs to edge order[k].
    """
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
    if problem.weight == "static":  # prepared once in the plan's order, as other peers put it into a matrix once
        fixed = problem.operands()[1]
        torch.ops.gnna.mark_constant(fixed)
        return lambda x, weight: torch.ops.gnna.spmm(x, fixed, src, dst, nodes, reduce)
    return lambda x, weight=None: torch.ops.gnna.spmm(x, weight, src, dst, nodes, reduce)


def _matrix(problem: Problem, values=None):
    rowptr, col, order = csr(problem)
    values = torch.ones(problem.edges, dtype=problem.dtype, device=col.device) if values is None else values[order]
    shape = (problem.num_nodes, problem.num_nodes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns that its sparse tensors are in beta
        return torch.sparse_csr_tensor(rowptr, col, values, shape, check_invariants=False)


def _weighted_matrix(problem: Problem):
    """Return the matrix with the static weight, if any, as its values.

    The weight is that of operands(seed=0). Putting it into the matrix is part of the preparation.
    """
    if problem.heads > 1 or problem.weight == "learned":
        raise Unsupported("supports no weights that are learned or differ by head")
    return _matrix(problem, problem.operands()[1] if problem.weight == "static" else None)


def _sparse_mm(problem: Problem):
    if problem.kind != "spmm" or problem.reduce != "sum":
        raise Unsupported("supports only sums over neighbours")
    matrix = _weighted_matrix(problem)
    return lambda x, weight=None: torch.sparse.mm(matrix, x)


def _sparse_mm_reduce(problem: Problem):
    if problem.kind != "spmm" or problem.src.is_cuda:
        raise Unsupported("supports only reductions over neighbours, on a CPU")
    matrix = _weighted_matrix(problem)
    name = {"max": "amax", "min": "amin"}.get(problem.reduce, problem.reduce)
    return lambda x, weight=None: torch.sparse.mm(matrix, x, name)


def _sampled_addmm(problem: Problem):
    if problem.kind != "sddmm" or problem.heads > 1:
        raise Unsupported("supports only dot products of whole rows")
    pattern = _matrix(problem)
    if not bool((problem.dst[1:] >= problem.dst[:-1]).all()):
        raise Unsupported("gives results only in the order of an edge list sorted by destination")
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
