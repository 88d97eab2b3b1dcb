"""`gnna bench epoch`: times training steps of whole models, plain, by every peer, and with the plug-in.

Each case has its own process. A step is forward, backward and Adam. All arms of a case start from the same weights, and
their outputs and gradients are compared with a float64 run of the plain framework. On a CPU, the plain framework is
timed first with torch's default allocator. Then all arms are timed with freed memory kept, which separates the gain of
the allocator from the other gains.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from torch.nn import functional as F

import gnna_plugin
from gnna_plugin import allocator
from gnna_plugin.frameworks import FRAMEWORKS
from gnna_plugin.tools.bench import peers
from gnna_plugin.tools.bench.vendor import torch_sparse_kernel
from gnna_plugin.tools.compare.measure import OtherWork, PeakMemory, median_and_spread
from gnna_plugin.tools.compare.runner import max_rel_error
from gnna_plugin.tools.compare.spec import UsageError, WorkerError
from gnna_plugin.tools.exact import double_fits, outputs_and_gradients

OURS = {"pyg": "gnna", "dgl": "gnna in DGL"}
PLAIN = {name: framework.label for name, framework in FRAMEWORKS.items()}
AS_RUN = {name: f"{label}, as run" for name, label in PLAIN.items()}
MEMO, FUSED = "PyG + memo", "PyG + memo + fused gather (torch.sparse.mm)"
_ESSENTIAL = {*OURS.values(), *PLAIN.values(), *AS_RUN.values()}
TOLERANCE = 1e-3  # of outputs and gradients; ten times the plain framework's float32 error if that is larger
_TAKEN_CORES = 0.1  # a round in which other processes used more cores is repeated
_SLICE_S = 0.25  # seconds of steps per arm and round


@dataclass(frozen=True)
class Shape:
    """A model of ``layers`` layers of ``hidden`` features.

    ``norm`` puts BatchNorm and dropout 0.5 between the layers.
    """

    layers: int
    hidden: int
    norm: bool

    @classmethod
    def parse(cls, text: str) -> Shape:
        match = re.fullmatch(r"(\d+)x(\d+)(\+norm)?", text)
        if not match or not int(match[1]) or not int(match[2]):
            raise UsageError(f"'{text}' is not a shape; shapes are LAYERSxHIDDEN or LAYERSxHIDDEN+norm, such as 2x16")
        return cls(int(match[1]), int(match[2]), bool(match[3]))

    def __str__(self) -> str:
        return f"{self.layers}x{self.hidden}{'+norm' if self.norm else ''}"


@dataclass(frozen=True)
class Arm:
    """A way to train.

    Attributes:
        name: name in the table.
        framework: key of FRAMEWORKS.
        structure: key of the adapter's STRUCTURES, the form in which the model gets the graph.
        cached: whether PyG's GCNConv caches its normalisation.
        compiled: whether torch.compile compiles the model.
        around: returns the context in which the arm runs, such as that with the plug-in enabled.
    """

    name: str
    framework: str
    structure: str
    cached: bool = False
    compiled: bool = False
    around: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext


@dataclass(frozen=True)
class Case:
    """The measurements of one process.

    The fields are the graph and the arguments of `gnna bench epoch`.
    """

    graph: object
    model: str
    shape: Shape
    dim: int
    classes: int
    device: torch.device
    threads: int
    rounds: int
    seed: int
    split: bool
    peers: tuple[str, ...] | None  # other arms to time; None means all, and () only the frameworks and the plug-in
    cpu_time: bool = False
    frameworks: tuple[str, ...] = tuple(FRAMEWORKS)


def cases(args, graphs, device):
    """Yield (rows, {peer: reason}) of every graph, model and shape.

    Each is measured in its own process.
    """
    shapes = [Shape.parse(text) for text in args.shapes]
    for graph in graphs:
        for model in args.models:
            for shape in shapes:
                case = Case(
                    graph,
                    model,
                    shape,
                    args.dim,
                    args.classes,
                    device,
                    torch.get_num_threads(),
                    args.rounds,
                    args.seed,
                    args.split,
                    tuple(args.peers) if args.peers else None,
                    args.cpu_time,
                )
                yield in_own_process(case)


def in_own_process(case: Case) -> tuple[list[dict], dict]:
    """Return what measure() does, from a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure, case).result()


def parts_of_gain(ms: dict[str, float]) -> dict[str, float]:
    """Return by which factors the parts of the plug-in shorten a step of PyG, and "whole", their product.

    The parts are the allocator's setting, the cached normalisation (memo), the gather fused with the reduction, and the
    kernel compared with torch.sparse.mm's. A part that was not timed belongs to the next one.

    Args:
        ms: milliseconds of a step by the name of the arm, with those that `split` adds.
    """
    names = {"allocator": PLAIN["pyg"], "memo": MEMO, "fused gather": FUSED, "kernel": OURS["pyg"]}
    first = before = ms.get(AS_RUN["pyg"], ms[PLAIN["pyg"]])
    parts = {}
    for part, name in names.items():
        if name in ms and not (part == "allocator" and AS_RUN["pyg"] not in ms):
            parts[part], before = before / ms[name], ms[name]
    return {"whole": first / before, **parts}


def measure(case: Case) -> tuple[list[dict], dict]:
    """Measure one case. Changes the process, such as its threads and allocator.

    Returns:
        A row for every arm that trains the case, and {arm: reason} for those that do not.
    """
    torch.set_num_threads(case.threads)
    arms, left_out = _arms(case)
    data, training, reference, timings = Data(case), {}, {}, {}
    as_run = [arm for arm in arms if arm.name in AS_RUN.values()]
    for arm in as_run:  # first, because the plug-in changes the allocator
        training[arm.name] = Training(arm, case, data)
    timings.update(time_steps(training, case, keeps_memory=False))
    for arm in arms:
        try:
            training.setdefault(arm.name, None)
            training[arm.name] = training[arm.name] or Training(arm, case, data)
            with arm.around():
                training[arm.name].check(reference)
        except Exception as problem:
            if arm.name in _ESSENTIAL:
                raise
            training.pop(arm.name, None)
            left_out[arm.name] = f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"
    rest = {name: arm for name, arm in training.items() if name not in timings}
    timings.update(time_steps(rest, case, keeps_memory=case.device.type == "cpu"))
    return _rows(case, data, training, timings), left_out


def _arms(case: Case) -> tuple[list[Arm], dict]:
    enabled = gnna_plugin.enabled
    on_cpu = case.device.type == "cpu"
    arms, left_out = [], {}
    for framework in case.frameworks:
        module = peers.adapter(framework)
        if isinstance(module, str):
            left_out[PLAIN[framework]] = module
            continue
        default = next(iter(module.STRUCTURES))
        # First, because the errors of the other arms are compared with the error of this one.
        arms.append(Arm(PLAIN[framework], framework, default))
        if on_cpu:
            arms.append(Arm(AS_RUN[framework], framework, default))
        if framework == "pyg":
            arms += _pyg_arms(case, module, default)
        arms.append(Arm(OURS[framework], framework, default, around=lambda f=framework: enabled(f, min_work=0)))
    return [arm for arm in arms if case.peers is None or arm.name in _ESSENTIAL or arm.name in case.peers], left_out


def _pyg_arms(case: Case, module, default: str) -> list[Arm]:
    enabled, gcn = gnna_plugin.enabled, case.model == "gcn"
    arms = [Arm(f"PyG {name}", "pyg", name) for name in module.STRUCTURES if name != default]
    if gcn:
        arms.append(Arm("PyG cached", "pyg", default, cached=True))
    arms.append(Arm("PyG compiled", "pyg", default, cached=gcn, compiled=True))
    if case.split:
        if gcn:  # only=[] accelerates no layer, so the cached gcn_norm is the only effect of the plug-in
            arms.append(Arm(MEMO, "pyg", default, around=lambda: enabled("pyg", only=[])))
        if case.model != "gat":

            @contextlib.contextmanager
            def around():
                with enabled("pyg", min_work=0), torch_sparse_kernel(case.device.type):
                    yield

            arms.append(Arm(FUSED, "pyg", default, around=around))
    return arms


class Data:
    """The edges of a case, and random features and labels on its device, which draws them itself."""

    def __init__(self, case: Case):
        graph = case.graph
        self.src, self.dst, self.num_nodes = graph.src, graph.dst, graph.num_nodes
        generator = torch.Generator(case.device).manual_seed(case.seed)
        options = {"generator": generator, "device": case.device}
        self.x = torch.randn(graph.num_nodes, case.dim, **options)
        self.y = torch.randint(0, case.classes, (graph.num_nodes,), **options)


class Training:
    """The training of one arm: its model, its optimizer and its graph."""

    def __init__(self, arm: Arm, case: Case, data: Data):
        module = peers.adapter(arm.framework)
        self.arm, self.case, self.data, self.error = arm, case, data, None
        self.graph = module.STRUCTURES[arm.structure](data.src, data.dst, data.num_nodes, case.device, case.model)
        torch.manual_seed(case.seed)
        shape = case.shape
        self.plain_model = FRAMEWORKS[arm.framework].load("tools.models").make_bench_model(
            case.model, case.dim, shape.hidden, case.classes, shape.layers, shape.norm, arm.cached
        ).to(case.device)
        self.start = {name: value.clone() for name, value in self.plain_model.state_dict().items()}
        self.model = torch.compile(self.plain_model, dynamic=False) if arm.compiled else self.plain_model
        self.optimizer = torch.optim.Adam(self.plain_model.parameters(), lr=0.01)

    def step(self) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.data.x, self.graph), self.data.y).backward()
        self.optimizer.step()

    def check(self, reference: dict) -> None:
        """Compare outputs and gradients with the plain framework in float64.

        The comparison uses the initial weights and no dropout. It sets ``error``, which is the largest relative error.
        It is None if the float64 messages do not fit into memory.

        Args:
            reference: dict in which the plain arm of each framework, which must come first, stores its float64 result
                and its own error.

        Raises:
            WorkerError: the result is wrong.
        """
        self.plain_model.load_state_dict(self.start)
        found = self.outputs_and_gradients(self.data.x)
        framework = self.arm.framework
        if self.arm.name == PLAIN[framework]:
            reference[framework] = self.in_double()
        expected = reference[framework]
        if expected is None:
            return
        self.error = max_rel_error(found, expected)
        usual = reference.setdefault((framework, "error"), self.error)
        if not self.error <= max(TOLERANCE, 10 * usual):
            raise WorkerError(f"{self.arm.name} is wrong: relative error {self.error:.1e}")

    def outputs_and_gradients(self, x: torch.Tensor) -> dict:
        """Return outputs and gradients of the present weights without dropout, as NumPy arrays by name."""
        try:
            return outputs_and_gradients(
                self.plain_model, lambda: self.model(x, self.graph), lambda out: F.cross_entropy(out, self.data.y)
            )
        finally:
            self.plain_model.zero_grad()
            self.plain_model.train()

    def in_double(self) -> dict | None:
        """Return outputs_and_gradients() in float64, or None if the messages do not fit into memory."""
        width = max(self.case.dim, self.case.shape.hidden, self.case.classes)
        if not double_fits(len(self.data.src), self.data.num_nodes, width, self.case.device.type):
            return None
        self.plain_model.double()
        try:
            return self.outputs_and_gradients(self.data.x.double())
        finally:
            self.plain_model.float()


def time_steps(training: dict[str, Training], case: Case, keeps_memory: bool) -> dict[str, tuple]:
    """Time the steps of all arms in turn.

    Rounds in which other processes were busy are repeated. The first step after a change of arms is not counted,
    because plans and freed memory are as the other arm left them.

    Returns:
        {arm: (milliseconds of every step, cores that other processes used, milliseconds of the first step)}.
    """
    if not training:
        return {}
    found = {name: [] for name in training}
    counts, firsts = {}, {}
    for number in range(2 * case.rounds):
        others = OtherWork()
        samples = {}
        for name, arm in training.items():
            with arm.arm.around():
                if keeps_memory:  # again, because leaving the arm with the plug-in restored torch's allocator
                    allocator.keep_freed_memory()
                first = _clocked(arm.step, case)
                if number == 0:
                    firsts[name] = first
                    counts[name] = max(1, min(50, round(_SLICE_S * 1e3 / _clocked(arm.step, case))))
                samples[name] = [_clocked(arm.step, case) for _ in range(counts[name])]
        taken = 0.0 if case.cpu_time else others.missing_cores(case.threads) or 0.0
        for name, times in samples.items():
            found[name].append((taken, times))
        if sum(entry[0] <= _TAKEN_CORES for entry in next(iter(found.values()))) >= case.rounds:
            break
    timings = {}
    for name, entries in found.items():
        kept = sorted(entries, key=lambda entry: entry[0])[: case.rounds]
        timings[name] = [ms for _, times in kept for ms in times], kept[-1][0], firsts[name]
    return timings


def _clocked(step: Callable, case: Case) -> float:
    clock = time.process_time if case.cpu_time else time.perf_counter
    start = clock()
    step()
    if case.device.type == "cuda":
        torch.cuda.synchronize(case.device)
    return (clock() - start) * 1e3


def _rows(case: Case, data: Data, training: dict, timings: dict) -> list[dict]:
    ours = median_and_spread(timings[OURS["pyg"]][0])[0] if OURS["pyg"] in timings else None
    rows = []
    for name, (times, taken, first) in timings.items():
        ms, spread = median_and_spread(times)
        framework_ours = OURS[training[name].arm.framework]
        base = median_and_spread(timings[framework_ours][0])[0] if framework_ours in timings else ours
        row = {
            "graph": case.graph.name,
            "nodes": data.num_nodes,
            "edges": len(data.src),
            "operation": "epoch",
            "model": f"{case.model} {case.shape}",
            "dim": case.dim,
            "peer": name,
            "ms": ms,
            "spread_ms": spread,
            "first_ms": first,
            "steps": len(times),
            "how": "CPU time" if case.cpu_time else "clock",
            "times_of_ours": ms / base if base else None,
            "error": training[name].error,
            "missing_cores": taken,
        }
        if case.device.type == "cuda":
            meter = PeakMemory("cuda")
            with training[name].arm.around():
                training[name].step()
            row["peak_mib"] = meter.mib()
        rows.append(row)
    return rows
