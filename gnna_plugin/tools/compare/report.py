"""How results are shown and stored: the table for people, the notes under it, JSON and CSV for programs.

This file owns the names and the order of the columns; it computes nothing.
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
_OF_THE_GRAPH = ("rows", "cols", "edges", "max_degree", "device")  # the same in every decision, and in the table


def comparison_table(results, title=None, accuracy=True):
    """A rich Table, fit for 80 columns, with a row per arm of each Result; ``accuracy`` shows the test accuracy too."""
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
    """A rich Table that sets frameworks side by side: per graph and model, each framework as it is, with the plug-in's
    setting of the C allocator where that was measured, and with the plug-in; each column of ratios is over one plain
    framework. The Results of one graph and model stand next to each other, one per framework."""
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
    "Median of training steps ± interquartile range, and how many times faster than each plain framework. Peak: above "
    "the loaded data. Same alloc.: with freed memory kept, as enable() sets it. Each framework draws its own weights."
)


def _arms(rows):
    """(label, ms, spread, peak, accuracy) of every arm, the plain ones first."""
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
    text = ("Median of training steps ± interquartile range. Peak: above the loaded data. First: what the first epoch "
            "costs on top. To even: the epochs that repay it.")
    if any(result.row["baseline_same_allocator_ms"] is not None for result in results):
        text += (" Same alloc.: the plain framework with freed memory kept, as enable() sets it; the speed-up in "
                 "brackets is over that.")
    return text


def _rows(row):
    """The cells of the plain arm, of the one with the same allocator setting if there was one, and of ours."""
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
    """A warning for every Result that was measured on a busy machine or varies much; none on a quiet machine."""
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
    """Plain sentences on correctness over all Results: errors, loss curves, equal bits, what disable() put back."""
    rows, details = [result.row for result in results], [result.detail for result in results]
    errors = [row["max_rel_error"] for row in rows if row["max_rel_error"] is not None]
    if errors:
        plain = _largest(detail["baseline_error"] for detail in details if detail["baseline_error"] is not None)
        yield (f"largest error of outputs and gradients against float64: {_largest(errors):.1e} "
               f"(the plain framework in float32: {plain:.1e})")
    if len(errors) < len(rows):
        yield f"{len(rows) - len(errors)} without a float64 reference: it would not fit the memory"
    gap = f"loss curves with and without: within {_largest(row['loss_gap'] for row in rows):.1e} of each other"
    reordered = [detail["reordered_loss_gap"] for detail in details if detail["reordered_loss_gap"] is not None]
    yield gap + (f" (plain runs with the edges in another order: {_largest(reordered):.1e})" if reordered else "")
    differ = [_name(row) for row, detail in zip(rows, details, strict=True)
              if not detail["same_bits"]]
    yield (f"[red]the same input gave different bits: {', '.join(differ)}[/red]" if differ
           else "the same input gave the same bits, twice over")
    left = sorted({name for detail in details for name in detail["not_restored"]})
    checked = max(detail["hooks_checked"] for detail in details)
    yield (f"[red]disable() left {len(left)} names changed: {', '.join(left[:5])}[/red]" if left
           else f"disable() put everything back: {checked:,} functions and classes are the objects they were")


def _name(row):
    return escape(f"{row['graph']} {row['model']}")


def _largest(values):
    return float(np.max(list(values)))  # unlike max(), shows a nan wherever it stands


def decision_lines(results):
    """Sentences on what ran where: fused calls, each layer's configuration and why, what was left to the framework."""
    for result in results:
        row = result.row
        yield (f"[bold]{_name(row)}[/bold]: {row['fused_calls']:,} aggregations accelerated, "
               f"{row['fallback_calls']:,} left to {row['framework']}")
        seen = set()
        for decision in row["decisions"]:
            line = _decision(decision)
            if line not in seen:  # the same layer decides alike in every epoch
                seen.add(line)
                yield f"  {line}"
        for layer, counts in result.detail["layers"].items():
            for what, key in (("not fused", "materialised"), ("left to the framework", "framework")):
                for reason, times in counts[key].items():
                    yield Text(f"  {layer}: {what} {times:,} times: {reason}").markup


def _decision(decision):
    """One line from a decision: the layer, what it computes, what was chosen, and why. Text is no markup."""
    facts = {key: value for key, value in decision.items() if key not in _OF_THE_GRAPH}
    layer, reason = facts.pop("layer", "layer"), facts.pop("reason", "no reason given")
    return Text(f"{layer}: {' '.join(f'{key}={value}' for key, value in facts.items())}\n    because {reason}").markup


def model_summary(case):
    """The case's model in words, such as "gcn, 2 layers x 16"."""
    layers, hidden = MODEL_DEFAULTS[case.model]
    return f"{case.model}, {case.layers or layers} layers x {case.hidden or hidden}"


def write_json(results, path):
    """Write the rows as a JSON list; a number that is not finite becomes null."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump([_finite(result.row) for result in results], file, indent=1, default=str)
        file.write("\n")


def write_csv(results, path):
    """Write the rows as CSV with a header, without the nested columns decisions and versions; null is an empty cell."""
    rows = [{key: value for key, value in _finite(r.row).items() if key not in _NOT_FLAT} for r in results]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
