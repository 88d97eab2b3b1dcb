"""Formats results: tables and notes for people, JSON and CSV for programs.

This file owns the names and the order of the tables' columns. The measured values come from runner.py.
"""

import csv
import json
import math

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gnna_plugin.tools.compare.spec import LABELS, MODEL_DEFAULTS

_NOT_FLAT = ("decisions", "versions")
_OF_THE_GRAPH = ("rows", "cols", "edges", "max_degree", "device")  # the same in every decision, so not repeated


def comparison_table(results, title=None, accuracy=True):
    """Return a rich Table with a row for every arm of every Result.

    It is at most 80 columns wide. ``accuracy`` adds the column of the test accuracy.
    """
    table = Table(title=title, title_justify="left", caption=_caption(results), caption_justify="left",
                  box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("graph,\nmodel", overflow="fold")
    table.add_column("", no_wrap=True)
    for heading in ("ms/epoch", "speed-up", "peak\nMiB", "first\n+ms", "to\neven", *["test\naccuracy"] * accuracy):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        for cells in _rows(result.row):
            table.add_row(*(cells if accuracy else cells[:-1]))
        table.add_row()
    return table


def frameworks_table(results, title=None):
    """Return a rich Table that compares frameworks.

    The rows are grouped by graph and model. A group has rows for each plain framework, for the plain framework with the
    plug-in's setting of the C allocator if that was measured, and for each framework with the plug-in. Each column of
    ratios is relative to one plain framework.
    """
    frameworks = list(dict.fromkeys(result.row["framework"] for result in results))
    table = Table(title=title, title_justify="left", caption=_FRAMEWORKS_CAPTION, caption_justify="left",
                  box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("graph,\nmodel", overflow="fold")
    table.add_column("", no_wrap=True)
    headings = "ms/epoch", *(f"over\n{LABELS[name]}" for name in frameworks), "peak\nMiB", "test\naccuracy"
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    groups = {}
    for result in results:
        groups.setdefault((result.row["graph"], result.row["model"]), []).append(result.row)
    for (graph, model), rows in groups.items():
        plain = {row["framework"]: row["baseline_ms"] for row in rows}
        names = [escape(graph).replace(":", ":\n"), model]
        for label, time, spread, peak, accuracy in _arms(rows):
            ratios = (f"{plain[name] / time:.2f}x" if name in plain else "" for name in frameworks)
            cell = _ms(time) if spread is None else _spread(time, spread)
            table.add_row(names.pop(0) if names else "", label, cell, *ratios, peak, accuracy)
        table.add_row()
    return table


_FRAMEWORKS_CAPTION = (
    "Median training step ± interquartile range, and how many times faster it is than in each plain framework. Peak: "
    "memory above the loaded data. Same alloc.: with the allocator setting of enable(), which keeps freed memory. Each "
    "framework draws its own weights."
)


def _arms(rows):
    """Yield (label, ms, spread, peak, accuracy) of every arm, the plain ones first."""
    for row in rows:
        name = LABELS[row["framework"]]
        yield (name, row["baseline_ms"], row["baseline_spread_ms"], _mib(row["baseline_peak_mib"]),
               _share(row["baseline_accuracy"]))
        if row["baseline_same_allocator_ms"] is not None:
            yield f"{name}, same alloc.", row["baseline_same_allocator_ms"], None, "", ""
    for row in rows:
        yield (f"[bold]{LABELS[row['framework']]} accelerated[/bold]", row["accelerated_ms"],
               row["accelerated_spread_ms"], _mib(row["accelerated_peak_mib"]), _share(row["accelerated_accuracy"]))


def _caption(results):
    text = ("Median training step ± interquartile range. Peak: memory above the loaded data. First: extra time of the "
            "first epoch. To even: number of epochs that repay it.")
    if any(result.row["baseline_same_allocator_ms"] is not None for result in results):
        text += (" Same alloc.: the plain framework with the allocator setting of enable(), which keeps freed memory; "
                 "the speed-up in brackets is relative to it.")
    return text


def _rows(row):
    """Yield the cells of every arm.

    The arms are the plain one, the one with the same allocator setting if there is one, and the accelerated one.
    """
    name, model = escape(row["graph"]).replace(":", ":\n"), row["model"]
    same = row["baseline_same_allocator_ms"]
    speedup = f"[bold]{row['speedup']:.2f}x[/bold]"
    if same is not None:
        speedup += f" ({same / row['accelerated_ms']:.2f}x)"
    ours = _spread(row["accelerated_ms"], row["accelerated_spread_ms"])
    yield (name, "plain", _spread(row["baseline_ms"], row["baseline_spread_ms"]), "", _mib(row["baseline_peak_mib"]),
           "", "", _share(row["baseline_accuracy"]))
    if same is not None:
        yield model, "same alloc.", _ms(same), f"{row['baseline_ms'] / same:.2f}x", "", "", "", ""
    yield ("" if same is not None else model, "[bold]accelerated[/bold]", ours, speedup,
           _mib(row["accelerated_peak_mib"]), _ms(row["first_call_ms"]), _epochs(row["break_even_epochs"]),
           _share(row["accelerated_accuracy"]))


def _ms(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _spread(value, spread):
    return f"{_ms(value)} ± {_ms(spread)}"


def _mib(value):
    return f"{value:,.0f}"


def _share(value):
    return "" if value is None else f"{100 * value:.1f} %"


def _epochs(value):
    if value is None:
        return "never"
    return f"{math.ceil(value)}"


def noise_lines(results):
    """Yield a warning for every Result of a busy machine or with a large spread."""
    for result in results:
        row, missing = result.row, result.detail["missing_cores"]
        spread = max(row[f"{arm}_spread_ms"] / row[f"{arm}_ms"] for arm in ("baseline", "accelerated"))
        if missing > 0.25:
            why = f"other processes took {missing:.1f} of the {row['threads']} cores"
        elif spread > 0.3:
            why = f"epochs vary by {100 * spread:.0f} %"
        else:
            continue
        yield f"[yellow]{_name(row)}: {why}: do not rely on these times, repeat on a quiet machine[/yellow]"


def proof_lines(results):
    """Yield sentences on correctness over all Results.

    They concern the errors, the loss curves, equal bits in two runs, and what disable() restored.
    """
    rows, details = [result.row for result in results], [result.detail for result in results]
    errors = [row["max_rel_error"] for row in rows if row["max_rel_error"] is not None]
    if errors:
        plain = _largest(detail["baseline_error"] for detail in details if detail["baseline_error"] is not None)
        yield (f"largest error of outputs and gradients against float64: {_largest(errors):.1e} "
               f"(the plain framework in float32: {plain:.1e})")
    if len(errors) < len(rows):
        yield f"{len(rows) - len(errors)} of the cases have no float64 reference: it would not fit into memory"
    gap = ("loss curves with and without the plug-in: "
           f"within {_largest(row['loss_gap'] for row in rows):.1e} of each other")
    reordered = [detail["reordered_loss_gap"] for detail in details if detail["reordered_loss_gap"] is not None]
    yield gap + (f" (plain runs with the edges in another order: {_largest(reordered):.1e})" if reordered else "")
    differ = [_name(row) for row, detail in zip(rows, details, strict=True)
              if not detail["same_bits"]]
    yield (f"[red]the same input gave different bits: {', '.join(differ)}[/red]" if differ
           else "two runs on the same input gave the same bits")
    left = sorted({name for detail in details for name in detail["not_restored"]})
    checked = max(detail["hooks_checked"] for detail in details)
    yield (f"[red]disable() did not restore {len(left)} names: {', '.join(left[:5])}[/red]" if left
           else f"disable() restored everything: all {checked:,} functions and classes are the original objects")


def _name(row):
    return escape(f"{row['graph']} {row['model']}")


def _largest(values):
    return float(np.max(list(values)))  # unlike max(), np.max gives nan if any value is nan


def decision_lines(results):
    """Yield sentences on what ran where.

    They give the numbers of fused calls, the configuration of each layer with its reason, and the fallbacks.
    """
    for result in results:
        row = result.row
        yield (f"[bold]{_name(row)}[/bold]: {row['fused_calls']:,} aggregations accelerated, "
               f"{row['fallback_calls']:,} left to {row['framework']}")
        seen = set()
        for decision in row["decisions"]:
            line = _decision(decision)
            if line not in seen:  # a layer has the same decision in every epoch
                seen.add(line)
                yield f"  {line}"
        for layer, counts in result.detail["layers"].items():
            for what, key in (("not fused", "materialised"), ("left to the framework", "framework")):
                for reason, times in counts[key].items():
                    yield Text(f"  {layer}: {what} {times:,} times: {reason}").markup


def _decision(decision):
    """Return the text of a decision as rich markup.

    It has the layer, the facts, the choice and the reason.
    """
    facts = {key: value for key, value in decision.items() if key not in _OF_THE_GRAPH}
    layer, reason = facts.pop("layer", "layer"), facts.pop("reason", "no reason given")
    return Text(f"{layer}: {' '.join(f'{key}={value}' for key, value in facts.items())}\n    because {reason}").markup


def model_summary(case):
    """Return the case's model in words, such as "gcn, 2 layers x 16"."""
    layers, hidden = MODEL_DEFAULTS[case.model]
    return f"{case.model}, {case.layers or layers} layers x {case.hidden or hidden}"


def write_json(results, path):
    """Write the rows as a JSON list. Numbers that are not finite become null."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump([finite(result.row) for result in results], file, indent=1, default=str)
        file.write("\n")


def write_csv(results, path):
    """Write the rows as CSV with a header.

    The nested columns decisions and versions are left out. Numbers that are not finite become empty cells.
    """
    rows = [{key: value for key, value in finite(r.row).items() if key not in _NOT_FLAT} for r in results]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def finite(value):
    """Return nested dicts and lists in which numbers that are not finite are None, which JSON can hold."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
