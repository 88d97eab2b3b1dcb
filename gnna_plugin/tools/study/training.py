"""Training steps of the paper's models: figures 9 and 10, 11c (renumbering) and 12a (hidden width).

bench/epoch.py owns the models, the arms, the check against float64 and the timing. This file chooses the cases, runs
them in worker processes and makes a row of each.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import torch

import gnna_plugin
from gnna_plugin import allocator
from gnna_plugin.tools import renumbering
from gnna_plugin.tools.bench import epoch, peers
from gnna_plugin.tools.compare.measure import median_and_spread
from gnna_plugin.tools.compare.runner import max_rel_error
from gnna_plugin.tools.compare.spec import MODEL_DEFAULTS, WorkerError
from gnna_plugin.tools.study.graphs import Source


class Workers:
    """The processes that measure, one at a time.

    On a CPU, each measurement has a new process, because the plug-in changes the process's allocator. On a GPU, one
    process measures all cases, because starting CUDA takes seconds.
    """

    def __init__(self, device: torch.device):
        self.device, self.pool = device, None

    def __call__(self, function: Callable, *arguments):
        """Return (the function's result, None), or (None, the reason) if memory ran out or the library failed.

        Raises:
            WorkerError: a result is wrong.
        """
        self.pool = self.pool or ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            result = self.pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            self.close()
            return None, "the process was killed, most likely because the machine ran out of memory"
        except (RuntimeError, MemoryError, NotImplementedError) as error:
            self.close()
            return None, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if self.device.type == "cpu":
            self.close()
        return result, None

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
            self.pool = None


def case_of(graph, source: Source, model: str, framework: str, device: torch.device, args, hidden: int | None = None):
    """Return the epoch.Case of one row. args: the arguments rounds, seed and cpu_time."""
    layers, usual = MODEL_DEFAULTS[model]
    return epoch.Case(
        graph,
        model,
        epoch.Shape(layers, hidden or usual, False),
        source.dim,
        source.classes,
        device,
        torch.get_num_threads(),
        args.rounds,
        args.seed,
        False,
        (),
        args.cpu_time,
        (framework,),
    )


def epochs(sources: list[Source], framework: str, hiddens, device: torch.device, args, advance) -> Iterator[tuple]:
    """Yield (row, None) for every graph, model and hidden width, or (row without times, reason).

    Args:
        hiddens: hidden widths; (None,) means the model's own.
        args: the arguments models, rounds, seed and cpu_time.
        advance: called with what is measured next.
    """
    workers = Workers(device)
    try:
        for source in sources:
            advance(f"loading {source.name}", 0)
            graph = source.load(args.seed)
            for model in args.models:
                for hidden in hiddens:
                    case = case_of(graph, source, model, framework, device, args, hidden)
                    advance(f"{source.name} {model} {case.shape}", 0)
                    found, reason = workers(_measure, case)
                    yield {**_facts(source, case), **(_times(found[0], framework) if found else {})}, reason
                    advance("", 1)
    finally:
        workers.close()


def _facts(source: Source, case: epoch.Case) -> dict:
    about = {"model": case.model, "layers": case.shape.layers, "hidden": case.shape.hidden}
    return {**source.facts(case.graph), **about, "dim": case.dim, "classes": case.classes, "device": str(case.device)}


def _measure(case: epoch.Case):
    _start_afresh()
    return epoch.measure(case)


def _start_afresh() -> None:
    """Free what an earlier measurement of this process left."""
    gnna_plugin.clear_cache()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _times(rows: list[dict], framework: str) -> dict:
    """Return the fields of a study's row that come from the rows of one epoch.Case.

    On a CPU, the baseline is the framework as users run it. same_allocator_ms is its time with the plug-in's setting of
    the C allocator.
    """
    by = {row["peer"]: row for row in rows}
    plain, ours = by[epoch.PLAIN[framework]], by[epoch.OURS[framework]]
    base = by.get(epoch.AS_RUN[framework], plain)
    return {
        "framework": framework,
        "baseline_ms": base["ms"],
        "baseline_spread_ms": base["spread_ms"],
        "same_allocator_ms": None if base is plain else plain["ms"],
        "accelerated_ms": ours["ms"],
        "accelerated_spread_ms": ours["spread_ms"],
        "speedup": base["ms"] / ours["ms"],
        "same_allocator_speedup": None if base is plain else plain["ms"] / ours["ms"],
        "error": ours["error"],
        "baseline_peak_mib": plain.get("peak_mib"),
        "accelerated_peak_mib": ours.get("peak_mib"),
        "how": ours["how"],
        "missing_cores": max(row["missing_cores"] for row in rows),
    }


# ---- figure 11c ------------------------------------------------------------------------------------------------------


def renumberings(sources: list[Source], framework: str, device: torch.device, args, advance) -> Iterator[tuple]:
    """Yield (row, None) for every graph and model with its own and with renumbered nodes, or (row, reason).

    Arguments as for epochs(). The order is found once per graph, on the CPU, and its time is order_s.
    """
    workers = Workers(device)
    try:
        for source in sources:
            advance(f"loading and ordering {source.name}", 0)
            graph = source.load(args.seed)
            start = time.perf_counter()
            order = renumbering.find_order(graph)
            order_s = time.perf_counter() - start
            moved = renumbering.renumbered(graph, order)
            spans = {"span": renumbering.average_edge_span(graph), "new_span": renumbering.average_edge_span(moved)}
            for model in args.models:
                case = case_of(graph, source, model, framework, device, args)
                advance(f"{source.name} {model} {case.shape}", 0)
                found, reason = workers(measure_renumbering, case, moved, order)
                yield {**_facts(source, case), **spans, "order_s": order_s, **(found or {})}, reason
                advance("", 1)
    finally:
        workers.close()


def measure_renumbering(case: epoch.Case, moved, order: np.ndarray) -> dict:
    """Time training steps with the plug-in on a graph and on the same graph renumbered, in turn.

    Schedules are off in both, so that only the renumbering acts. Outputs and gradients of the renumbered graph, put
    back into the old order, are compared with those of the graph itself in the plain framework: in float64, by the rule
    of bench/epoch.py, or if that does not fit into memory in float32, only to report the error. Changes the process.

    Args:
        case: the case with the graph's own nodes, and one framework.
        moved: the renumbered graph.
        order: the old node of every new position.

    Raises:
        WorkerError: the result for the renumbered graph differs.
    """
    _start_afresh()
    torch.set_num_threads(case.threads)
    (framework,) = case.frameworks
    plain, ours = _arms(case, framework)
    data = epoch.Data(case)
    new_case, new_data = replace(case, graph=moved), epoch.Data(case)
    places = torch.from_numpy(order).to(case.device)
    new_data.src, new_data.dst = moved.src, moved.dst
    new_data.x, new_data.y = data.x[places], data.y[places]
    training = {"own": epoch.Training(ours, case, data), "renumbered": epoch.Training(ours, new_case, new_data)}
    baseline = epoch.Training(plain, case, data)
    found, expected = baseline.outputs_and_gradients(data.x), baseline.in_double()
    usual = max_rel_error(found, expected) if expected else math.inf
    with ours.around():
        error = _error(training["renumbered"].outputs_and_gradients(new_data.x), expected or found, order)
    del baseline, found, expected
    if not error <= max(epoch.TOLERANCE, 10 * usual):
        raise WorkerError(f"the result for the renumbered {case.graph.name} is wrong: relative error {error:.1e}")
    timings = epoch.time_steps(training, case, keeps_memory=case.device.type == "cpu")
    allocator.restore()
    (own, spread), (new, new_spread) = (median_and_spread(timings[name][0]) for name in training)
    return {
        "framework": framework,
        "own_ms": own,
        "own_spread_ms": spread,
        "renumbered_ms": new,
        "renumbered_spread_ms": new_spread,
        "speedup": own / new,
        "error": error,
        "missing_cores": max(timing[1] for timing in timings.values()),
    }


def _arms(case: epoch.Case, framework: str) -> tuple[epoch.Arm, epoch.Arm]:
    structure = next(iter(peers.adapter(framework).STRUCTURES))
    ours = epoch.Arm(
        epoch.OURS[framework],
        framework,
        structure,
        around=lambda: gnna_plugin.enabled(framework, min_work=0, schedule=False),
    )
    return epoch.Arm(epoch.PLAIN[framework], framework, structure), ours


def _error(found: dict, expected: dict, order: np.ndarray) -> float:
    outputs = np.empty_like(found["outputs"])
    outputs[order] = found["outputs"]
    return max_rel_error({**found, "outputs": outputs}, expected)
