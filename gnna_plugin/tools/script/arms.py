"""Runs a user's script without and with the plug-in, each time in a process of its own, and reads what was recorded."""

import json
import math
import statistics
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from gnna_plugin.tools.compare.measure import median_and_spread
from gnna_plugin.tools.compare.spec import ACCELERATED, ALLOCATOR, BASELINE, WorkerError
from gnna_plugin.tools.script import program

_WARM_UP = 5  # steps at the start that are not part of the median, if there are four times as many


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
        last_line: the last line that the script printed and that has a digit, per round; "" if there is none.
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


def measure(args, rounds, allocator, seed, on_progress):
    """Run the arms in turn, `rounds` times, and return the Arms in order, the baseline first.

    Args:
        args: the parsed command line, with the script (see program.add_arguments).
        allocator: whether to run the arm ALLOCATOR too.
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
            _run(command, arm, seed)
            done += 1
    return arms


def _run(command, arm, seed):
    with tempfile.TemporaryDirectory(prefix="gnna-") as folder:
        environment = program.environment(
            "1" if arm.name == ACCELERATED else "0",
            GNNA_RECORD=folder,
            GNNA_SEED=str(seed),
            GNNA_ALLOCATOR="1" if arm.name == ALLOCATOR else "0",
        )
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
        last = "\n".join(done.stderr.rstrip().splitlines()[-15:])
        if done.returncode:
            raise WorkerError(f"the script ended with status {done.returncode} ({arm.name}):\n{last}")
        records = [json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).glob("*.json")]
    if not records:
        raise WorkerError(
            "there is nothing to compare: the script imports neither torch_geometric nor dgl, or it ended without "
            f"Python's usual exit ({arm.name})\n{last}".rstrip()
        )
    # Of the processes that a script starts, the one that trains; of several that train, rank 0.
    record = max(records, key=lambda found: (len(found["losses"]) > 0, -found["rank"], len(found["losses"])))
    arm.record = record
    arm.step_ms.append(record["step_ms"])
    arm.losses.append(record["losses"])
    arm.seconds.append(record["seconds"])
    arm.peak_mib.append(record["peak_mib"])
    arm.last_line.append(_last_line(done.stdout))


def _last_line(text):
    lines = [line.strip() for line in text.splitlines() if any(character.isdigit() for character in line)]
    return lines[-1] if lines else ""


def loss_gap(found, expected):
    """Return the largest difference of two loss curves, relative to the largest loss, and the step where it is.

    Returns:
        (gap, step), or None if the curves have no common steps with a loss. The gap is infinite if the numbers of steps
        differ, or if one loss is finite and the other is not.
    """
    if len(found) != len(expected):
        return math.inf, min(len(found), len(expected))
    steps = range(len(found))
    pairs = [(a, b, n) for a, b, n in zip(found, expected, steps, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    scale = max((abs(b) for _, b, _ in pairs if math.isfinite(b)), default=1.0) or 1.0
    return max((_distance(a, b) / scale, step) for a, b, step in pairs)


def _distance(a, b):
    if math.isfinite(a) and math.isfinite(b):
        return abs(a - b)
    return 0.0 if a == b or (math.isnan(a) and math.isnan(b)) else math.inf
