"""`gnna bench spmm`, `segment` and `sddmm`: times one aggregation, forward or backward, against every peer.

A result is compared with float64 before it is timed. A peer that is wrong, fails or has no such operation is not timed,
and the reason is reported. The backward pass is torch.autograd.grad alone, on a retained autograd graph.
"""

from __future__ import annotations

import logging
import math

import torch

from gnna_plugin.data.problem import Problem, Unsupported, error_of, exact
from gnna_plugin.tools.bench import peers, rates
from gnna_plugin.tools.bench.timing import Rounds, buffers, time_calls
from gnna_plugin.tools.compare.spec import WorkerError

# Relative to the largest element, for rows of up to some ten thousand edges.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-12, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def measure(problem: Problem, direction: str, wanted: list[str] | None, rounds: Rounds) -> tuple[list[dict], dict]:
    """Check and time a problem with every peer.

    Args:
        problem: the Problem.
        direction: "forward" or "backward".
        wanted: names of peers; None or an empty list means all.
        rounds: the Rounds of timing.

    Returns:
        A row for every peer that computes the problem, and {peer: reason} for those that do not. A row has peer, ms,
        spread_ms, how, eager_ms, error, missing_cores, times_of_ours (its ms / the plug-in's) and the floors of
        rates.floors().

    Raises:
        WorkerError: the plug-in's own result is wrong.
    """
    device = problem.src.device
    # torch.compile runs uncompiled after eight shapes, so compiled code is dropped before each problem.
    torch.compiler.reset()
    available, missing = peers.all_peers()
    operands = problem.operands()
    copies = buffers(2 * operands[0].nbytes, device)
    sets = [operands, *(problem.operands(seed) for seed in range(1, copies))]
    grad = torch.randn(problem.output_shape()).to(device, problem.dtype) if direction == "backward" else None
    expected = exact(problem, operands, grad)
    by_norm = grad is not None and problem.reduce in ("max", "min")

    calls, errors, left_out = {}, {}, dict(missing)
    for name, prepare in available.items():
        if wanted and name != peers.OURS and name not in wanted:
            continue
        try:
            call = _call(prepare(problem), sets, grad)
            found = call(0)
            if getattr(prepare, "empty_rows_are_infinite", False) and grad is None:
                found = [found[0].nan_to_num(nan=math.nan, posinf=0.0, neginf=0.0)]
            errors[name] = error_of(found, expected, by_norm)
        except Unsupported as reason:
            left_out[name] = str(reason)
            continue
        except Exception as error:  # a failure of a peer is reported, and the others are timed
            if name == peers.OURS:
                raise
            logging.getLogger("gnna_plugin").info("%s failed", name, exc_info=True)
            left_out[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        if not errors[name] <= (1e-3 if by_norm else TOLERANCE[problem.dtype]):
            left_out[name] = f"wrong: relative error {errors[name]:.1e}"
            if name == peers.OURS:
                raise WorkerError(f"gnna's {problem.kind} is {left_out[name]}")
            continue
        calls[name] = call
    del expected
    timings, missing_cores = time_calls(calls, device, rounds, copies)
    limits = _floors(problem, direction, rounds.cpu_time)
    rows = []
    for name, timing in timings.items():
        row = {
            "peer": name,
            "ms": timing.ms,
            "spread_ms": timing.spread_ms,
            "how": timing.how,
            "eager_ms": timing.eager_ms,
            "error": errors[name],
            "times_of_ours": timing.ms / timings[peers.OURS].ms,
            "missing_cores": missing_cores,
            **limits,
        }
        if limits:
            row["achieved_gbs"] = limits["moved_bytes"] / timing.ms / 1e6
            row["of_gather_floor"] = limits["gather_floor_ms"] / timing.ms
        rows.append(row)
    return rows, left_out


def _call(function, sets, grad):
    """Return the call that is timed.

    It is a function of the buffer's number, which returns [output] or the gradients.
    """
    if grad is None:

        def forward(i):
            with torch.no_grad():
                return [function(*sets[i])]

        return forward
    outs = [function(*operands) for operands in sets]
    leaves = [[t for t in operands if t.requires_grad] for operands in sets]
    shaped = grad.view(outs[0].shape)
    return lambda i: torch.autograd.grad(outs[i], leaves[i], shaped, retain_graph=True)


def _floors(problem: Problem, direction: str, cpu_time: bool) -> dict:
    """Return the floors, or {} if the bytes that must move are not known.

    They are known for all forward passes, and for the gradient of a sum without learned weights.
    """
    if direction == "backward" and (problem.kind != "spmm" or problem.reduce != "sum" or problem.weight == "learned"):
        return {}
    size, edges, nodes = problem.dtype.itemsize, problem.edges, problem.num_nodes
    rows = problem.width * size
    streamed = 4 * edges + 8 * (nodes + 1)  # column ids and row pointers of the plan
    if problem.kind == "segment":
        gathered, once, results, table = edges * rows, edges * rows, nodes * rows, edges
    elif problem.kind == "sddmm":
        gathered, once, table = edges * rows, nodes * rows, nodes
        results = nodes * rows + edges * problem.heads * size  # b once, and an element per edge and head
    else:
        gathered, once, results, table = edges * rows, nodes * rows, nodes * rows, nodes
        streamed += edges * problem.heads * size if problem.weight != "none" else 0
    streamed += results
    described = (table, problem.width, problem.dtype, problem.src.device)
    found = rates.floors(gathered, streamed, once, described, cpu_time)
    return {**found, "moved_bytes": gathered + streamed}
