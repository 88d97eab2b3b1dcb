"""Tables of a study's rows for people, at most 80 columns wide, each with a text that explains it."""

from __future__ import annotations

import math

from rich import box
from rich.markup import escape
from rich.table import Table

from gnna_plugin.frameworks import FRAMEWORKS
from gnna_plugin.tools.bench import peers
from gnna_plugin.tools.bench.show import number
from gnna_plugin.tools.study import graphs, launches, spmm

_BUSY_CORES = 0.1


def geometric_mean(values: list[float]) -> float:
    """Return the geometric mean of a non-empty list of positive numbers."""
    return math.exp(sum(map(math.log, values)) / len(values))


def mean_rows(rows: list[dict], key: str = "speedup") -> list[dict]:
    """Return {type, model, count, speedup} for every type and model, and over all types if there are several.

    speedup is the geometric mean of the rows' ``key``. Rows without it count nowhere.
    """
    measured = [row for row in rows if row.get(key)]
    found = []
    for model in dict.fromkeys(row["model"] for row in measured):
        mine = [row for row in measured if row["model"] == model]
        types = list(dict.fromkeys(row["type"] for row in mine))
        for kind in types if len(types) == 1 else [*types, None]:
            values = [row[key] for row in mine if kind is None or row["type"] == kind]
            found.append({"type": kind, "model": model, "count": len(values), "speedup": geometric_mean(values)})
    return found


def training_table(rows: list[dict], framework: str) -> tuple[Table, str]:
    """Return the table of figures 9, 10 and 12a: training steps of the framework and of the plug-in in it."""
    hidden = len({(row["model"], row["hidden"]) for row in rows}) > len({row["model"] for row in rows})
    label = FRAMEWORKS[framework].label
    caption = "Times are medians in ms of a step: forward, backward and Adam." + _origins(rows)
    if any(row.get("same_allocator_ms") for row in rows):
        caption += f" In brackets: relative to {label} with the plug-in's setting of the C allocator."
    table = _table(("type", "graph", "from", "model"), (f"{label} ms", "gnna ms", "speed-up"))
    for row in rows:
        model = f"{row['model']} {row['layers']}x{row['hidden']}" if hidden else row["model"]
        table.add_row(*_names(row), model, *_training_cells(row))
    if means := mean_rows(rows):
        table.add_section()
        for mean in means:
            kind = "all" if mean["type"] is None else mean["type"]
            what = f"geom. mean of {mean['count']}"
            table.add_row(kind, what, "", mean["model"], "", "", f"[bold]{mean['speedup']:.2f}x[/bold]")
    return table, caption


def _training_cells(row: dict) -> tuple[str, str, str]:
    if "speedup" not in row:
        return "", "", "failed"
    same = row["same_allocator_speedup"]
    brackets = "" if same is None else f" ({same:.2f}x)"
    return number(row["baseline_ms"]), number(row["accelerated_ms"]), f"{row['speedup']:.2f}x{brackets}"


def renumbering_table(rows: list[dict]) -> tuple[Table, str]:
    """Return the table of figure 11c."""
    caption = (
        "Times are medians in ms of a training step with the plug-in, schedules off. AES: average edge span, "
        f"mean |src - dst|, with the graph's own ids and in Rabbit order.{_origins(rows)}"
    )
    headings = ("AES", "new AES", "own ms", "new ms", "speed-up")
    table = _table(("graph", "from", "model"), headings)
    for row in rows:
        times = ("", "", "failed")
        if "speedup" in row:
            times = number(row["own_ms"]), number(row["renumbered_ms"]), f"{row['speedup']:.2f}x"
        spans = f"{row['span']:,.0f}", f"{row['new_span']:,.0f}"
        name = escape(row["graph"]).replace(":", ":\n")
        table.add_row(name, row["origin"], row["model"], *spans, *times)
    return table, caption


def sweep_table(rows: list[dict]) -> tuple[Table, str]:
    """Return the table of figures 11a and 11b: a row per value, a column per graph and width."""
    names = _columns(rows)
    values = list(dict.fromkeys(row["value"] for row in rows))
    parameter = rows[0]["parameter"]
    caption = (
        "Medians in us of an unweighted float32 sum by kernel `group`, in brackets relative to the last row, which is "
        f"the launch that the decider chooses by itself, of either kernel.{_origins(rows)}"
    )
    table = _table((parameter.replace("_", " "),), tuple(names.values()))
    times = {(row["graph"], row["width"], row["value"]): row["us"] for row in rows}
    best = {
        case: min((t for (g, w, v), t in times.items() if (g, w) == case and t and v != launches.DECIDER), default=None)
        for case in names
    }
    for value in values:
        if value == launches.DECIDER:
            table.add_section()
        cells = []
        for case in names:
            us, decided = times.get((*case, value)), times.get((*case, launches.DECIDER))
            text = "-" if us is None else number(us)
            if us and decided and value != launches.DECIDER:
                text += f" ({us / decided:.2f})"
            cells.append(f"[bold]{text}[/bold]" if us is not None and us == best[case] else text)
        table.add_row(str(value), *cells)
    return table, caption


def spmm_table(rows: list[dict]) -> tuple[Table, str]:
    """Return the table of the single SpMM: a row per library, a column per graph and width, and the mean ratios."""
    names = _columns(rows)
    widths = {row["width"] for row in rows}
    width = f", width {widths.pop()}" if len(widths) == 1 else ""
    caption = (
        f"Medians in ms of an unweighted float32 sum{width}. x gnna: geometric mean of the library's time / the "
        f"plug-in's.{_origins(rows)} {spmm.ABOUT_GUNROCK}"
    )
    table = _table(("",), (*names.values(), "x gnna"))
    times = {(row["graph"], row["width"], row["peer"]): row["ms"] for row in rows}
    means = spmm.means(rows)
    for peer in dict.fromkeys([peers.OURS, *means]):
        cells = [number(times[(*case, peer)]) if (*case, peer) in times else "" for case in names]
        table.add_row(peer, *cells, f"{means[peer][0]:.2f}" if peer in means else "")
    return table, caption


def busy_line(rows: list[dict]) -> str | None:
    """Return a warning if other processes used the machine while a row was measured."""
    taken = max((row.get("missing_cores") or 0.0 for row in rows), default=0.0)
    if taken <= _BUSY_CORES:
        return None
    return f"other processes took up to {taken:.1f} cores: do not rely on these times"


def _columns(rows: list[dict]) -> dict[tuple, str]:
    """Return {(graph, width): heading}. Long names are broken so that five columns fit into 80 characters."""
    cases = list(dict.fromkeys((row["graph"], row["width"]) for row in rows))
    several = len({width for _, width in cases}) > 1
    return {(graph, width): _broken(graph) + (f"\nx {width}" if several else "") for graph, width in cases}


def _broken(name: str) -> str:
    parts = escape(name).replace(":", ":\n").replace("-", "-\n").split("\n")
    return "\n".join(part[at : at + 11] for part in parts for at in range(0, len(part), 11))


def _names(row: dict) -> tuple[str, str, str]:
    return row["type"], escape(row["graph"]), row["origin"]


def _origins(rows: list[dict]) -> str:
    if not any(row["origin"] == graphs.STAND_IN for row in rows):
        return ""
    return " Stand-in: generated, with the published numbers of nodes and edges, not the real graph."


def _table(names: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in names:
        table.add_column(heading, overflow="fold", no_wrap=heading not in ("", "graph"))
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
