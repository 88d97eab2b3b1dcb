"""Records a training script from inside its process: the times of its steps, its losses, and its peak memory.

A step ends with a step of an optimizer. Its time is the time since the step before, with everything that the script
does in between. Its loss is the last scalar that was differentiated before it. At the end of the process, the recorder
writes one JSON file.
"""

import atexit
import functools
import itertools
import json
import os
import platform
import random
import sys
import time

import torch
from torch.optim import optimizer as optimizers

import gnna_plugin
from gnna_plugin.tools.compare.measure import PeakMemory
from gnna_plugin.tuned import processor

_running = False


def start(folder):
    """Begin to record this process, once.

    Random number generators get the seed GNNA_SEED, so that a script without a seed starts from the same weights in
    every process. With GNNA_ALLOCATOR=1, freed memory is kept as enable() keeps it. GNNA_SECONDS ends the process after
    a step that ends later than so many seconds after the first one.

    Args:
        folder: an existing folder, into which the file PID.json is written.
    """
    global _running
    if _running:
        return
    _running = True
    _seed(int(os.environ.get("GNNA_SEED", "0")))
    if os.environ.get("GNNA_ALLOCATOR") == "1":
        gnna_plugin.allocator.keep_freed_memory()
    recorder = _Recorder()
    atexit.register(recorder.write, os.path.join(folder, f"{os.getpid()}.json"))


def _seed(seed):
    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)


class _Recorder:
    """The marks and losses of the steps so far."""

    def __init__(self):
        self.process = os.getpid()
        self.memory = PeakMemory("cpu")
        self.begin = time.perf_counter()
        self.marks, self.losses, self.loss = [], [], None
        optimizers.register_optimizer_step_post_hook(self._step)
        self.scaled = None, None
        self.limit = float(os.environ.get("GNNA_SECONDS") or "inf")
        _before(torch.Tensor, "backward", self._note)
        _after(torch.amp.GradScaler, "scale", self._note_scaled)

    def _note_scaled(self, scaled, _scaler, value):
        self.scaled = scaled, value

    def _note(self, value, *_args, **_kwargs):
        scaled, unscaled = self.scaled
        if value is scaled:  # the gradient scaler's multiple of the loss
            value = unscaled
        self.scaled = None, None
        self.loss = value.detach().clone() if value.numel() == 1 else None

    def _step(self, *_):
        self.marks.append(_now())
        self.losses.append(self.loss)
        self.loss = None
        if self.marks[-1][0] - self.marks[0][0] > self.limit:
            raise SystemExit(0)

    def write(self, path):
        """Write the file of this process. Processes that it forked write none."""
        if os.getpid() != self.process:
            return
        on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
        if on_gpu:
            torch.cuda.synchronize()
        status = gnna_plugin.status()
        record = {
            "rank": int(os.environ.get("RANK", "0")),
            "seconds": time.perf_counter() - self.begin,
            "step_ms": [_milliseconds(*pair) for pair in itertools.pairwise(self.marks)],
            "losses": [None if loss is None else float(loss) for loss in self.losses],
            "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else self.memory.mib(),
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "threads": torch.get_num_threads(),
            "status": status.as_dict() if status.frameworks else None,
            "status_text": str(status) if status.frameworks else "",
            "versions": _versions(),
        }
        text = json.dumps(record, default=str)  # raises before there is a file
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def _before(cls, name, note):
    """Call `note` with the arguments of a method before every call of it."""
    original = getattr(cls, name)

    @functools.wraps(original)
    def method(*args, **kwargs):
        note(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(cls, name, method)


def _after(cls, name, note):
    """Call `note` with the result and the arguments of a method after every call of it."""
    original = getattr(cls, name)

    @functools.wraps(original)
    def method(*args, **kwargs):
        result = original(*args, **kwargs)
        note(result, *args, **kwargs)
        return result

    setattr(cls, name, method)


def _now():
    """Return (seconds, event). The event is None if the process does not use a GPU."""
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return time.perf_counter(), None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return time.perf_counter(), event


def _milliseconds(start, stop):
    if start[1] is None or stop[1] is None:
        return 1e3 * (stop[0] - start[0])
    return start[1].elapsed_time(stop[1])


def _versions():
    found = {"gnna_plugin": gnna_plugin.__version__, "torch": torch.__version__, "python": platform.python_version()}
    for name in ("torch_geometric", "dgl", "numpy"):
        if (module := sys.modules.get(name)) is not None:
            found[name] = getattr(module, "__version__", "")
    return {**found, "processor": processor()}
