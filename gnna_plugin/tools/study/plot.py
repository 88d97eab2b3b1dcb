"""Draws a study's rows into an .svg or .png file. matplotlib is imported only here, when a plot is asked for."""

from __future__ import annotations

import argparse
import importlib.util

from gnna_plugin.tools.arguments import output_file
from gnna_plugin.tools.compare.spec import UsageError
from gnna_plugin.tools.study import graphs, launches

_SUFFIXES = (".svg", ".png")


def plot_file(text: str) -> str:
    """Return the path of a plot that can be written, for argparse."""
    if not text.lower().endswith(_SUFFIXES):
        raise argparse.ArgumentTypeError(f"{text}: plots end in {' or '.join(_SUFFIXES)}")
    return output_file(text)


def check_matplotlib() -> None:
    """Raise UsageError unless matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed here: pip install matplotlib")


def bars(path: str, rows: list[dict], title: str, label: str) -> None:
    """Draw the speed-ups as bars: a group per graph, a bar per model, and a line at 1.

    Args:
        path: the file to write.
        rows: rows with graph, origin, model and speedup. Rows without a speed-up are left out.
        title: title of the plot.
        label: label of the vertical axis.
    """
    rows = [row for row in rows if "speedup" in row]
    names = list(dict.fromkeys(row["graph"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = _figure(title, label, width=max(5.0, 0.6 * len(names) + 2))
    for number, model in enumerate(models):
        places = [names.index(row["graph"]) + (number + 0.5) / len(models) * 0.8 - 0.4 for row in _of(rows, model)]
        heights = [row["speedup"] for row in _of(rows, model)]
        axes.bar(places, heights, 0.8 / len(models), label=model)
    axes.axhline(1.0, color="grey", linewidth=0.8)
    drawn = {row["graph"] for row in rows if row["origin"] == graphs.STAND_IN}
    labels = [f"{name}*" if name in drawn else name for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right")
    axes.legend()
    if drawn:
        axes.set_xlabel("* generated, with the published numbers of nodes and edges", fontsize=8, loc="right")
    _save(figure, path)


def _of(rows: list[dict], model: str) -> list[dict]:
    return [row for row in rows if row["model"] == model]


def sweep_lines(path: str, rows: list[dict], title: str) -> None:
    """Draw times against a launch parameter: a line per graph and width, dashed at the decider's own time."""
    figure, axes = _figure(title, "us", width=7.0)
    for graph, width in dict.fromkeys((row["graph"], row["width"]) for row in rows):
        mine = [row for row in rows if (row["graph"], row["width"]) == (graph, width) and row["us"] is not None]
        points = [(row["value"], row["us"]) for row in mine if row["value"] != launches.DECIDER]
        values, times = [value for value, _ in points], [us for _, us in points]
        (line,) = axes.plot(values, times, marker="o", label=f"{graph}, width {width}")
        for row in mine:
            if row["value"] == launches.DECIDER:
                axes.axhline(row["us"], color=line.get_color(), linestyle="--", linewidth=0.8)
    axes.plot([], [], color="grey", linestyle="--", linewidth=0.8, label="the decider's own choice")
    parameter = rows[0]["parameter"]
    _logarithmic(axes, parameter.replace("_", " "), list(launches.SWEEPS[parameter]))
    _save(figure, path)


def hidden_lines(path: str, rows: list[dict], title: str, baseline: str) -> None:
    """Draw times against the hidden width: per graph and model, solid with the plug-in and dotted without."""
    rows = [row for row in rows if "speedup" in row]
    figure, axes = _figure(title, "ms per training step", width=7.0)
    for graph, model in dict.fromkeys((row["graph"], row["model"]) for row in rows):
        mine = [row for row in rows if (row["graph"], row["model"]) == (graph, model)]
        hidden = [row["hidden"] for row in mine]
        (line,) = axes.plot(hidden, [row["accelerated_ms"] for row in mine], marker="o", label=f"{graph}, {model}")
        axes.plot(hidden, [row["baseline_ms"] for row in mine], linestyle=":", color=line.get_color())
    axes.plot([], [], color="grey", linestyle=":", label=baseline)
    _logarithmic(axes, "hidden width", sorted({row["hidden"] for row in rows}))
    _save(figure, path)


def spmm_bars(path: str, rows: list[dict], title: str) -> None:
    """Draw each library's time relative to the plug-in's, as bars per graph."""
    named = [
        {**row, "graph": f"{row['graph']} x {row['width']}", "model": row["peer"], "speedup": row["times_of_ours"]}
        for row in rows
    ]
    bars(path, named, title, "time / gnna's time")


def _figure(title: str, label: str, width: float):
    from matplotlib.figure import Figure  # without pyplot, so that no display is needed and no figure stays open

    figure = Figure(figsize=(width, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    axes.set_ylabel(label)
    return figure, axes


def _logarithmic(axes, label: str, ticks: list[int]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
    axes.legend(fontsize=8)


def _save(figure, path: str) -> None:
    figure.savefig(path, dpi=150)
