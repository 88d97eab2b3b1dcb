"""Draws a study's rows into an .svg or .png file. matplotlib is imported only here, when a plot is asked for.

This file imports nothing of the package, so that benchmarks/figures.py can load it without torch.
"""

from __future__ import annotations

import statistics

STAND_IN, DECIDER = "stand-in", "decider"  # as graphs.py and launches.py write them into rows
_COLOURS = ("#1f6fb4", "#e08a2e", "#3d9a5f", "#b0486f", "#6b6fb8", "#8a6d3b")


def bars(path: str, rows: list[dict], title: str, label: str) -> None:
    """Draw the speed-ups as bars: a group per graph, a bar per model, a geometric mean per type, and a line at 1.

    Args:
        path: the file to write.
        rows: rows with type, graph, origin, model and speedup. Rows without a speed-up are left out.
        title: title of the plot.
        label: label of the vertical axis.
    """
    rows = [row for row in rows if "speedup" in row]
    models = list(dict.fromkeys(row["model"] for row in rows))
    types = list(dict.fromkeys(row["type"] for row in rows))
    places: dict[tuple[str, str | None], float] = {}
    ticks, edge = [], 0.0
    for kind in types:
        names = list(dict.fromkeys(row["graph"] for row in rows if row["type"] == kind))
        for name in [*names, *([None] if len(names) > 1 else [])]:
            places[kind, name] = edge
            ticks.append(_tick(name, rows))
            edge += 1.0
        edge += 0.5
    figure, axes = _figure(title, label, width=max(5.0, 0.45 * edge + 1.5), height=4.6)
    axes.margins(y=0.12)  # for the numbers and types at the top
    for kind in types if len(types) > 1 else ():
        first = min(place for (of, _), place in places.items() if of == kind)
        axes.text(first - 0.4, 0.97, f"type {kind}", transform=axes.get_xaxis_transform(), va="top", fontsize=9)
    for number, model in enumerate(models):
        offset = (number + 0.5) / len(models) * 0.8 - 0.4
        mine = [row for row in rows if row["model"] == model]
        where = [places[row["type"], row["graph"]] + offset for row in mine]
        heights = [row["speedup"] for row in mine]
        colour = _COLOURS[number % len(_COLOURS)]
        axes.bar(where, heights, 0.8 / len(models), label=model, color=colour)
        for kind in types:
            values = [row["speedup"] for row in mine if row["type"] == kind]
            if values and (kind, None) in places:
                mean, place = statistics.geometric_mean(values), places[kind, None] + offset
                axes.bar(place, mean, 0.8 / len(models), color=colour, edgecolor="black", hatch="//")
                axes.text(place, mean, f" {mean:.1f}", rotation=90, ha="center", va="bottom", fontsize=8)
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set_xticks(list(places.values()), ticks, rotation=45, ha="right")
    axes.set_xlim(-0.7, edge - 0.8)
    axes.legend()
    if any(row["origin"] == STAND_IN for row in rows):
        axes.set_xlabel("* generated, with the published numbers of nodes and edges", fontsize=8, loc="right")
    _save(figure, path)


def _tick(name: str | None, rows: list[dict]) -> str:
    """Return a graph's label, or that of a mean for None."""
    if name is None:
        return "geometric mean"
    return f"{name}*" if any(row["graph"] == name and row["origin"] == STAND_IN for row in rows) else name


def sweep_lines(path: str, rows: list[dict], title: str) -> None:
    """Draw times against a launch parameter, relative to the decider's launch: a line per graph and width.

    Graphs without a time of the decider's launch are left out.
    """
    figure, axes = _figure(title, "time / time of the decider's launch", width=7.0)
    for number, (graph, width) in enumerate(dict.fromkeys((row["graph"], row["width"]) for row in rows)):
        mine = [row for row in rows if (row["graph"], row["width"]) == (graph, width) and row["us"] is not None]
        decided = next((row["us"] for row in mine if row["value"] == DECIDER), None)
        if decided is None:
            continue
        points = [(row["value"], row["us"] / decided) for row in mine if row["value"] != DECIDER]
        name = f"{_tick(graph, mine)}, width {width}"
        axes.plot(*zip(*points, strict=True), marker="o", label=name, color=_COLOURS[number % len(_COLOURS)])
    axes.axhline(1.0, color="grey", linestyle="--", linewidth=0.8, label="the decider's launch")
    values = sorted({row["value"] for row in rows if row["value"] != DECIDER})
    _logarithmic(axes, rows[0]["parameter"].replace("_", " "), values)
    _save(figure, path)


def hidden_lines(path: str, rows: list[dict], title: str, baseline: str) -> None:
    """Draw the speed-up over the hidden width: a line per graph and model."""
    rows = [row for row in rows if "speedup" in row]
    figure, axes = _figure(title, f"speed-up over {baseline}", width=7.0)
    for number, (graph, model) in enumerate(dict.fromkeys((row["graph"], row["model"]) for row in rows)):
        mine = [row for row in rows if (row["graph"], row["model"]) == (graph, model)]
        points = [row["hidden"] for row in mine], [row["speedup"] for row in mine]
        name = f"{_tick(graph, mine)}, {model}"
        axes.plot(*points, marker="o", label=name, color=_COLOURS[number % len(_COLOURS)])
    axes.axhline(1.0, color="grey", linewidth=0.8)
    _logarithmic(axes, "hidden width", sorted({row["hidden"] for row in rows}))
    _save(figure, path)


def spmm_bars(path: str, rows: list[dict], title: str) -> None:
    """Draw each library's time relative to the plug-in's, as bars per graph."""
    named = [
        {**row, "graph": f"{row['graph']} x {row['width']}", "model": row["peer"], "speedup": row["times_of_ours"]}
        for row in rows
    ]
    bars(path, named, title, "time / gnna's time")


def _figure(title: str, label: str, width: float, height: float = 4.0):
    from matplotlib.figure import Figure  # without pyplot, so that no display is needed and no figure stays open

    figure = Figure(figsize=(width, height), layout="constrained")
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
    """Write the figure. The same rows give the same file, so it holds no date."""
    unsaid = {"Date": None, "Creator": None} if path.lower().endswith(".svg") else None
    figure.savefig(path, dpi=150, metadata=unsaid)
