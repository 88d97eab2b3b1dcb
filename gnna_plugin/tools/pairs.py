"""Times training steps in pairs, one plain and one accelerated, in one process.

The two steps of a pair run one after the other on one CPU thread and are timed by its processor time. Other processes
take the processor away from both and add nothing to that time. This makes the ratio hold on a busy machine, and leaves
out what only separate processes can show: the first step, peak memory, and the effect of the allocator.
"""

import contextlib
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F

import gnna_plugin
from gnna_plugin.frameworks import FRAMEWORKS
from gnna_plugin.tools.compare.data import build_model, training_data

# Steps of each kind before the first pair. They build the plans and fill the allocator's cache.
_WARM_UP = 3
_MIN_PAIRS = 5


def time_in_pairs(graph, case, *, device="cpu", threads=1, seconds=5.0):
    """Return (plain, accelerated, ratio, pairs): milliseconds of a training step, and how many times faster it is.

    All three are medians over the pairs. With one CPU thread the time is processor time, otherwise it is wall time.

    Args:
        graph, case: a Graph and its Case, whose model is trained.
        device: "cpu" or "cuda".
        threads: number of CPU threads.
        seconds: wall time after which no further pair starts; at least 5 pairs are measured.
    """
    clock = _device_clock if device == "cuda" else time.thread_time if threads == 1 else time.perf_counter
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with gnna_plugin.enabled(case.framework):
            plain, accelerated = _trainer(graph, case, device), _trainer(graph, case, device)
            for _ in range(_WARM_UP):
                _time(plain, clock, on=False)
                _time(accelerated, clock, on=True)
            pairs, end = [], time.perf_counter() + seconds
            while len(pairs) < _MIN_PAIRS or time.perf_counter() < end:
                pairs.append((_time(plain, clock, on=False), _time(accelerated, clock, on=True)))
    finally:
        torch.set_num_threads(before)
    times = np.array(pairs)
    ratio = statistics.median(times[:, 0] / times[:, 1])
    return float(np.median(times[:, 0])), float(np.median(times[:, 1])), float(ratio), len(pairs)


def _time(step, clock, *, on):
    with contextlib.nullcontext() if on else gnna_plugin.disabled():
        start = clock()
        step()
        return 1e3 * (clock() - start)


def _device_clock():
    torch.cuda.synchronize()
    return time.perf_counter()


def _trainer(graph, case, device):
    """Return a function that runs one training step of a new model."""
    resolved = case.resolved()
    data = training_data(graph, resolved)
    models = FRAMEWORKS[case.framework].load("tools.models")
    structure = models.make_graph(data.src, data.dst, data.num_nodes, device)
    torch.manual_seed(case.seed)
    model = build_model(models, resolved, data, structure, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=case.lr)
    x, y = torch.from_numpy(data.x).to(device), torch.from_numpy(data.y).to(device)
    train = slice(None) if data.train is None else torch.from_numpy(data.train).to(device)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x, structure)[train], y[train]).backward()
        optimizer.step()

    return step
