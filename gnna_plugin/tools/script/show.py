"""Presents the comparison of a script: a table and sentences for people, JSON and CSV for programs."""

import csv
import datetime
import json
import math

from rich import box
from rich.table import Table
from rich.text import Text

from gnna_plugin.tools.compare.report import finite
from gnna_plugin.tools.compare.spec import ACCELERATED, ALLOCATOR, BASELINE
from gnna_plugin.tools.script.arms import loss_gap, loss_gaps

LABELS = {BASELINE: "plain", ALLOCATOR: "same allocator", ACCELERATED: "accelerated"}
# Above this share of the largest loss, two loss curves are no longer called equal.
_EQUAL_LOSSES = 1e-3
# Interquartile range of the steps, as a share of their median, from which a warning is given.
_LARGE_SPREAD = 0.3


def result(arms, command):
    """Return the stored form of a comparison: {"kind", "about", "rows", "step_ms", "losses", "status"}."""
    ours = arms[-1]
    about = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "device": ours.record["device"],
        "threads": ours.record["threads"],
        "versions": ours.record["versions"],
    }
    return {
        "kind": "script",
        "about": about,
        "rows": [arm.row(arms[0]) for arm in arms],
        "step_ms": {arm.name: arm.step_ms for arm in arms},
        "losses": {arm.name: arm.losses for arm in arms},
        "status": ours.record["status"],
    }


def table(arms):
    """Return a rich Table with a row per arm, at most 80 columns wide."""
    caption = (
        "Median time from one optimizer step to the next ± interquartile range. Peak: memory above that after the "
        "import of the framework, on a GPU of torch's tensors. Total: from the import to the end."
    )
    if len(arms) > 2:
        caption += (
            " Same allocator: the plain framework with the allocator setting of enable(); the speed-up in brackets is "
            "relative to it."
        )
    found = Table(box=box.SIMPLE_HEAD, show_edge=False, caption=caption, caption_justify="left", padding=(0, 1, 0, 0))
    found.add_column("", no_wrap=True)
    for heading in ("steps", "ms/step", "speed-up", "peak\nMiB", "last\nloss", "total\ns"):
        found.add_column(heading, justify="right", no_wrap=True)
    for arm in arms:
        row = arm.row(arms[0])
        time = "" if row["step_ms"] is None else f"{row['step_ms']:,.2f} ± {row['spread_ms']:,.2f}"
        speedup = _speedup(arm, arms)
        loss = "" if row["last_loss"] is None else f"{row['last_loss']:.6g}"
        found.add_row(LABELS[arm.name], f"{arm.steps:,}", time, speedup, f"{row['peak_mib']:,.0f}", loss,
                      f"{row['seconds']:,.1f}")  # fmt: skip
    return found


def _speedup(arm, arms):
    if arm is arms[0] or arm.step_time() is None or arms[0].step_time() is None:
        return ""
    ratios = [base.step_time()[0] / arm.step_time()[0] for base in arms if base.step_time() and base is not arm]
    text = _times(ratios[0])
    return f"{text} ({_times(ratios[1])})" if arm is arms[-1] and len(ratios) > 1 else text


def _times(ratio):
    return f"{ratio:.1f}x" if ratio >= 10 else f"{ratio:.2f}x"


def sentences(arms):
    """Yield what else was found, as rich Texts: noise, losses, printed results, and last what ran on the plug-in."""
    plain, ours = arms[0], arms[-1]
    if not ours.steps:
        yield Text("no step of an optimizer was seen, so only the total times can be compared", "yellow")
    yield from _noise_sentences(arms)
    yield from _loss_sentences(plain, ours)
    if plain.last_line[-1] == ours.last_line[-1]:
        if ours.last_line[-1]:
            yield Text(f"both print, last: {ours.last_line[-1]}")
    else:
        yield Text(f"plain prints, last:       {plain.last_line[-1]}")
        yield Text(f"accelerated prints, last: {ours.last_line[-1]}")
    yield Text(ours.record["status_text"])


def _noise_sentences(arms):
    times = [(arm, *arm.step_time()) for arm in arms if arm.step_time()]
    for arm, median, spread in times:
        if spread > _LARGE_SPREAD * median:
            yield Text(
                f"{LABELS[arm.name]}: steps vary by {100 * spread / median:.0f} % of their median, because of "
                "other processes or of what the script does between steps: rely on the total times, or repeat with "
                "--rounds 3",
                "yellow",
            )


def _loss_sentences(plain, ours):
    gap = loss_gap(ours.losses[-1], plain.losses[-1])
    if gap is None:
        return
    own = loss_gap(plain.losses[0], plain.losses[-1]) if len(plain.losses) > 1 else None
    text = f"loss curves with and without the plug-in: within {gap[0]:.1e} of the largest loss"
    if math.isinf(gap[0]):
        text = "loss curves with and without the plug-in: finite in one only"
    if ours.steps != plain.steps:
        text += f", in the first {min(ours.steps, plain.steps):,} steps"
    if own is not None:
        text += f" (two plain runs: {own[0]:.1e})"
    if gap[0] <= max(_EQUAL_LOSSES, own[0] if own else 0.0):
        yield Text(text)
        return
    first = first_difference(ours.losses[-1], plain.losses[-1])
    yield Text(f"{text}; above {_EQUAL_LOSSES:.0e} from step {first + 1} on", "yellow")
    start = loss_gap(ours.losses[-1][:1], plain.losses[-1][:1])
    if start is not None and start[0] <= _EQUAL_LOSSES < gap[0] and first > 0:
        yield Text(f"the first losses agree to {start[0]:.1e}; training can amplify rounding")
    yield Text("`gnna run --verify` compares every call of a layer; --rounds 2 shows how far two plain runs differ")


def first_difference(found, expected):
    """Return the first step whose losses differ by more than the limit for equal curves, or None."""
    return next((step for gap, step in loss_gaps(found, expected) if gap > _EQUAL_LOSSES), None)


def write_json(found, path):
    """Write the stored form. Numbers that are not finite become null."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(finite(found), file, indent=1, default=str)
        file.write("\n")


def write_csv(found, path):
    """Write the rows, one per arm."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found["rows"][0]))
        writer.writeheader()
        writer.writerows(found["rows"])
