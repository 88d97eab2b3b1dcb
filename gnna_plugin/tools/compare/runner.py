"""Runs the arms of a comparison, each in a fresh process, and turns their measurements into rows.

This file owns which arms run, how a worker process is started, how its failure is reported, and every number that is
computed from two arms: speed-up, epochs to break even, largest error, distance of the loss curves.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from gnna_plugin import _load
from gnna_plugin.frameworks import FRAMEWORKS
from gnna_plugin.tools.compare.data import save_graph
from gnna_plugin.tools.compare.spec import ACCELERATED, ALLOCATOR, BASELINE, UsageError, WorkerError


@dataclass(frozen=True)
class Result:
    """The measurements of one case.

    Attributes:
        row: the values that --json writes.
        detail: values for the notes under the table.
            layers: fused and unfused calls per layer.
            baseline_error: error of the plain float32 run against float64, or None.
            reordered_loss_gap: distance of the loss curves of plain runs whose edges differ only in order, or None.
            same_bits: whether two accelerated runs agree in every bit.
            not_restored: names that disable() did not restore, out of hooks_checked names.
            missing_cores: cores that other processes used, in the arm with the most.
    """

    row: dict
    detail: dict = field(default_factory=dict)


def check_framework(name):
    """Raise UsageError unless FRAMEWORKS[``name``] is installed."""
    package = FRAMEWORKS[name].package
    if not FRAMEWORKS[name].is_installed():
        raise UsageError(f"{package} is not installed here: pip install {package}")


def choose_device(requested):
    """Return (device, remark): "cpu" or "cuda", and a sentence for the user or None.

    Args:
        requested: "auto", "cpu" or "cuda".

    Raises:
        UsageError: "cuda" was requested, but torch finds no CUDA device or the plug-in was built without CUDA.
    """
    if requested == "cpu":
        return "cpu", None
    sees = torch.cuda.is_available()
    if sees and _load.built_with_cuda():
        return "cuda", f"running on {torch.cuda.get_device_name()}"
    missing = (
        f"gnna_plugin was built without CUDA ({_load.build_info()['reason']}): rebuild it with GNNA_CUDA=1"
        if sees
        else f"torch {torch.__version__} sees no CUDA device"
    )
    if requested == "cuda":
        raise UsageError(f"--device cuda: {missing}")
    return "cpu", f"running on the CPU: {missing}"


def measure_cases(cases, *, device="cpu", threads=None, command="", on_progress=None):
    """Measure cases of one framework and return their Results, in order.

    Each arm is one fresh process that runs all the cases. The arms are the plain framework, the framework with the
    plug-in, and on a CPU the plain framework with the plug-in's allocator setting.

    Args:
        cases: list of (Graph, Case).
        device: "cpu" or "cuda".
        threads: number of CPU threads; None for torch's choice.
        command: the command line, to be stored in the rows.
        on_progress: called with what is under way, in words, and with how much of it is done, of what total.

    Raises:
        WorkerError: a worker failed. The text holds what it wrote.
    """
    if not cases:
        return []
    threads = threads or torch.get_num_threads()
    framework = cases[0][1].framework
    with tempfile.TemporaryDirectory(prefix="gnna-compare-") as folder:
        resolved = _stage(cases, Path(folder))
        run = _Runner(Path(folder), framework, device, threads, on_progress or (lambda what, done, total: None))
        plain = run(BASELINE, resolved)
        for case, result in zip(resolved, plain["cases"], strict=True):
            case.update(epochs=result["epochs"], budget_s=None)  # the other arms train as many epochs
        ours = run(ACCELERATED, resolved)
        same = run(ALLOCATOR, resolved) if device == "cpu" else None
        versions = {**plain["versions"], **ours["versions"]}
        about = dict(framework=framework, device=device, threads=threads, command=command, versions=versions)
        return [
            _result(graph, case, plain["cases"][i], ours["cases"][i], same and same["cases"][i], about, Path(folder))
            for i, ((graph, _), case) in enumerate(zip(cases, resolved, strict=True))
        ]


def _stage(cases, folder):
    """Write each graph once, and return the cases as dicts.

    Each dict has the folder of its graph.
    """
    places, resolved = {}, []
    for number, (graph, case) in enumerate(cases):
        if id(graph) not in places:
            places[id(graph)] = folder / f"graph{len(places)}"
            places[id(graph)].mkdir()
            save_graph(graph, places[id(graph)])
        resolved.append({**case.resolved(), "number": number, "folder": str(places[id(graph)])})
    return resolved


class _Runner:
    def __init__(self, folder, framework, device, threads, on_progress):
        self.folder, self.framework, self.device = folder, framework, device
        self.threads, self.on_progress = threads, on_progress

    def __call__(self, arm, cases):
        """Run one arm in a fresh process and return its result dict."""
        spec_path, result_path = self.folder / f"{arm}.json", self.folder / f"{arm}-result.json"
        mine = [{**case, "proof": str(_proof(self.folder, arm, case))} for case in cases]
        if arm == BASELINE:
            for case in mine:
                case["reference_proof"] = str(_proof(self.folder, "reference", case)) if case["reference"] else None
        for case in mine:  # only one plain arm trains with reordered edges: the faster one if there are two
            case["reorder"] = case["reorder"] and arm == (ALLOCATOR if self.device == "cpu" else BASELINE)
        spec = dict(arm=arm, framework=self.framework, device=self.device, threads=self.threads, cases=mine,
                    result=str(result_path))
        spec_path.write_text(json.dumps(spec))
        errors = self.folder / f"{arm}-stderr"
        command = [sys.executable, "-m", "gnna_plugin.tools.compare.worker", str(spec_path)]
        with open(errors, "wb") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=_environment(self.threads),
                                       encoding="utf-8", errors="replace")
            try:
                for line in process.stdout:
                    self._tell(arm, cases, line)
                code = process.wait()
            finally:
                if process.poll() is None:  # interrupted: the worker must not keep running
                    process.kill()
                    process.wait()
                process.stdout.close()
        if code != 0 or not result_path.exists():
            raise WorkerError(_failure(arm, code, errors.read_text(errors="replace")))
        return json.loads(result_path.read_text())

    def _tell(self, arm, cases, line):
        try:
            event = json.loads(line)
            event["case"] = cases[event["case"]]
        except (ValueError, TypeError, KeyError, IndexError):
            return  # no event, such as a line that a library printed
        case = event["case"]
        what = f"{case['graph']} {case['model']}, {arm}: {event['phase']}"
        self.on_progress(what, event["done"], event["total"])


def _environment(threads):
    env = {key: value for key, value in os.environ.items() if key != "GNNA_ENABLE"}  # it would accelerate the baseline
    env.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    env["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # the same imports work there
    return env


def _proof(folder, arm, case):
    return folder / f"{arm}-proof{case['number']}.npz"


def _failure(arm, code, stderr):
    if code == -signal.SIGKILL:
        return f"the {arm} worker was killed, most likely because the machine ran out of memory\n{stderr}".rstrip()
    how = f"ended by signal {-code}" if code < 0 else f"ended with status {code}"
    return f"the {arm} worker {how}\n{stderr}".rstrip()


# ---- numbers computed from two arms ----------------------------------------------------------------------------------


def _result(graph, case, plain, ours, same, about, folder):
    reference = _proof(folder, "reference", case)
    reordered = (same or plain).get("reordered_losses")
    saved = plain["median_ms"] - ours["median_ms"]
    extra = max(0.0, ours["first_call_ms"] - plain["first_call_ms"])
    row = dict(
        graph=graph.name, nodes=graph.num_nodes, edges=graph.num_edges, framework=about["framework"],
        model=case["model"], device=about["device"],
        baseline_ms=plain["median_ms"], accelerated_ms=ours["median_ms"],
        speedup=plain["median_ms"] / ours["median_ms"],
        baseline_same_allocator_ms=same["median_ms"] if same and same["has_setting"] else None,
        baseline_peak_mib=plain["peak_mib"], accelerated_peak_mib=ours["peak_mib"],
        first_call_ms=ours["first_call_ms"], break_even_epochs=extra / saved if saved > 0 else None,
        max_rel_error=_error_of(_proof(folder, ACCELERATED, case), reference),
        loss_gap=loss_gap(ours["losses"], plain["losses"]),
        baseline_accuracy=plain["accuracy"], accelerated_accuracy=ours["accuracy"],
        fused_calls=ours["fused_calls"], fallback_calls=ours["fallback_calls"], decisions=ours["decisions"],
        baseline_spread_ms=plain["spread_ms"], accelerated_spread_ms=ours["spread_ms"],
        epochs=ours["epochs"], threads=about["threads"], seed=case["seed"], command=about["command"],
        versions=about["versions"],
    )
    detail = dict(
        missing_cores=max((arm["missing_cores"] or 0.0 for arm in (plain, ours, same) if arm), default=0.0),
        layers=ours["layers"], same_bits=ours["same_bits"], not_restored=ours["not_restored"],
        hooks_checked=ours["hooks_checked"],
        reordered_loss_gap=loss_gap(reordered, plain["losses"]) if reordered else None,
        baseline_error=_error_of(_proof(folder, BASELINE, case), reference),
    )
    return Result(row, detail)


def _error_of(path, reference):
    if not reference.exists():
        return None
    with np.load(path) as found, np.load(reference) as expected:
        return max_rel_error(found, expected)


def max_rel_error(found, expected):
    """Return the largest relative error of any array.

    The error of an array is max |found - expected| / max |expected|. If the expected array is all zeros, its absolute
    error is used. The result is nan if any error is nan.

    Args:
        found, expected: mappings {name: array} with the same names and shapes.

    Raises:
        ValueError: names or shapes differ.
    """
    if set(found) != set(expected):
        raise ValueError(f"the runs gave different arrays: {sorted(set(found) ^ set(expected))}")
    worst = 0.0
    for name in expected:
        have, want = np.asarray(found[name], dtype=np.float64), np.asarray(expected[name], dtype=np.float64)
        if have.shape != want.shape:
            raise ValueError(f"{name} has shape {have.shape}, expected {want.shape}")
        if want.size:
            scale = float(np.abs(want).max())
            worst = float(np.maximum(worst, np.abs(have - want).max() / (scale or 1.0)))  # np.maximum keeps a nan
    return worst


def loss_gap(found, expected):
    """Return the largest relative distance between two loss curves of equal length.

    The result is nan if any loss is nan.
    """
    have, want = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    return float((np.abs(have - want) / np.maximum(np.abs(want), np.finfo(np.float32).tiny)).max())
