"""Runs a user's script without and with the plug-in, each time in a process of its own, and reads what was recorded."""

import json
import math
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from gnna_plugin.tools.compare.measure import median_and_spread
from gnna_plugin.tools.compare.spec import ACCELERATED, ALLOCATOR, BASELINE, WorkerError
from gnna_plugin.tools.script import program

_WARM_UP = 5  # steps at the start that are not part of the median, if there are four times as many

_ABOUT_TIME = re.compile(r"\b(time|duration|elapsed|seconds?|ms|took)\b", re.IGNORECASE)


@dataclass
class Arm:
    """What was measured of the script in one arm, over all rounds.

    Attributes:
        name: BASELINE, ALLOCATOR or ACCELERATED.
        step_ms: milliseconds per step, a list per round.
        losses: the losses of the steps, a list per round; None for steps without one.
        seconds: seconds from the import of the framework to the end of the process, per round.
        peak_mib: peak memory in MiB, per round: on a GPU of torch's tensors, else of the process above its memory after
            the import of the framework.
        last_line: what last_result() finds in the output of the script, per round.
        record: the recorder's file of the last round.
    """

    name: str
    step_ms: list[list[float]] = field(default_factory=list)
    losses: list[list[float | None]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)
    last_line: list[str] = field(default_factory=list)
    record: dict = field(default_factory=dict)

    @property
    def steps(self):
        """The number of steps of the last round."""
        return len(self.losses[-1])

    def step_time(self):
        """Return the median and the interquartile range of the steps after the first few, or None without steps."""
        times = [ms for round_ms in self.step_ms for ms in _after_warm_up(round_ms)]
        return median_and_spread(times) if times else None

    def row(self, baseline):
        """Return the results as a flat dict. `baseline` is the arm that speed-ups are relative to."""
        mine, plain = self.step_time(), baseline.step_time()
        return {
            "arm": self.name,
            "steps": self.steps,
            "step_ms": mine and mine[0],
            "spread_ms": mine and mine[1],
            "speedup": plain[0] / mine[0] if mine and plain else None,
            "peak_mib": statistics.median(self.peak_mib),
            "seconds": statistics.median(self.seconds),
            "last_loss": next((loss for loss in reversed(self.losses[-1]) if loss is not None), None),
            "last_line": self.last_line[-1],
        }


def _after_warm_up(times):
    return times[_WARM_UP if len(times) >= 4 * _WARM_UP else min(1, len(times) - 1) :]


def measure(args, rounds, allocator, seed, seconds, on_progress):
    """Run the arms in turn, `rounds` times, and return the Arms in order, the baseline first.

    Args:
        args: the parsed command line, with the script (see program.add_arguments).
        allocator: whether to run the arm ALLOCATOR too.
        seconds: end each run after its first step that ends later than so many seconds after the first one; None:
            the script runs to its end.
        on_progress: called with what is under way, in words, the number of runs that are done, and their total.

    Raises:
        UsageError: there is no such script.
        WorkerError: the script failed in an arm; the text ends with what it wrote to stderr.
    """
    command = program.command(args)
    arms = [Arm(name) for name in (BASELINE, *([ALLOCATOR] if allocator else []), ACCELERATED)]
    done = 0
    for number in range(rounds):
        for arm in arms:
            on_progress(f"{arm.name}, round {number + 1}", done, rounds * len(arms))
            _run(command, arm, seed, seconds)
            done += 1
    return arms


def _run(command, arm, seed, seconds):
    switches = {"GNNA_ALLOCATOR": arm.name == ALLOCATOR, "GNNA_KEEP_OFF": arm.name != ACCELERATED}
    variables = {name: "1" if on else "0" for name, on in switches.items()}
    with tempfile.TemporaryDirectory(prefix="gnna-") as folder:
        environment = program.environment(
            "1" if arm.name == ACCELERATED else "0",
            **variables, GNNA_RECORD=folder, GNNA_SEED=str(seed), GNNA_SECONDS=str(seconds or ""),
        )  # fmt: skip
        out, err = Path(folder) / "stdout", Path(folder) / "stderr"
        status = _wait(command, environment, out, err)
        last = "\n".join(_text(err).rstrip().splitlines()[-15:])
        if status:
            raise WorkerError(f"the script ended with status {status} ({arm.name}):\n{last}")
        records = [json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).glob("*.json")]
        printed = _text(out)
    if not records:
        raise WorkerError(
            "there is nothing to compare: the script imports neither torch_geometric nor dgl, or it ended without "
            f"Python's usual exit ({arm.name})\n{last}".rstrip()
        )
    # Of the processes that a script starts, the one that trains; of several that train, rank 0.
    record = max(records, key=lambda found: (len(found["losses"]) > 0, -found["rank"], len(found["losses"])))
    if arm.name == ACCELERATED and record["status"] is None:
        raise WorkerError(f"the plug-in was off at the end of the script\n{last}".rstrip())
    arm.record = record
    arm.step_ms.append(record["step_ms"])
    arm.losses.append(record["losses"])
    arm.seconds.append(record["seconds"])
    arm.peak_mib.append(record["peak_mib"])
    arm.last_line.append(last_result(printed))


def _wait(command, environment, out, err):
    """Run the script with its output in files, and return its exit status.

    Processes that it leaves behind are not waited for. It is killed if this process is interrupted or terminated.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
            )
            try:
                return process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _text(path):
    return path.read_text(encoding="utf-8", errors="replace")


def last_result(text):
    """Return the last line that has a number and is not about time; without one, the last line that has a number."""
    lines = [line.strip() for line in text.splitlines() if any(character.isdigit() for character in line)]
    results = [line for line in lines if not _ABOUT_TIME.search(line)]
    return (results or lines or [""])[-1]


def loss_gap(found, expected):
    """Return the largest difference of two loss curves, relative to the largest loss, and the step where it is.

    Returns:
        (gap, step) over the steps that both curves have, or None if none of them has a loss. The gap is infinite if one
        loss is finite and the other is not.
    """
    return max(loss_gaps(found, expected), default=None)


def loss_gaps(found, expected):
    """Return [(gap, step)] as loss_gap() defines it, of every step with a loss in both curves."""
    pairs = [(a, b, n) for n, (a, b) in enumerate(zip(found, expected, strict=False)) if None not in (a, b)]
    scale = max((abs(b) for _, b, _ in pairs if math.isfinite(b)), default=1.0) or 1.0
    return [(_distance(a, b) / scale, step) for a, b, step in pairs]


def _distance(a, b):
    if math.isfinite(a) and math.isfinite(b):
        return abs(a - b)
    return 0.0 if a == b or (math.isnan(a) and math.isnan(b)) else math.inf
