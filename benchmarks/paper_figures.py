"""The tables and plots of docs/paper-figures.md, from what `gnna study --json` wrote on a GPU.

gnna_plugin/tools/study/plot.py draws the plots. `gnna study --plot` draws the same ones.
"""

from __future__ import annotations

import importlib.util
import statistics
from pathlib import Path
from types import ModuleType

from formatting import commands, conditions, described, label, ms, size, table, times
from measurements import PAPER, load

PLOT = Path(__file__).resolve().parent.parent / "gnna_plugin" / "tools" / "study" / "plot.py"
STUDIES = ("h200-fig10", "h200-fig11a", "h200-fig11b", "h200-fig11c", "h200-fig12a", "h200-spmm")
FILE, STAND_IN, DECIDER = "file", "stand-in", "decider"


def _rows(name: str) -> list[dict]:
    return load(name)["rows"]


def _named(row: dict) -> str:
    return row["graph"] + ("*" if row["origin"] == STAND_IN else "")


def _graphs(rows: list[dict]) -> dict[str, dict]:
    """Return {graph: its first row} in the order of the rows."""
    found: dict[str, dict] = {}
    for row in rows:
        found.setdefault(row["graph"], row)
    return found


def _shape(row: dict) -> str:
    return label(f"{row['model']} {row['layers']}x{row['hidden']}")


def _range(values: list[float], digits: int = 1) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def _lacking(name: str) -> str:
    """Return a sentence on the cases that were not measured, or nothing."""
    missing = load(name)["about"].get("lacks", [])
    if not missing:
        return ""
    parts = [text.partition(": ") for text in missing]
    named = [f"{label(case.split()[0])} on {graph}" if case else graph for graph, _, case in parts]
    return f" The run was stopped before its end, so {' and '.join(named)} is missing."


def graphs(folder: str) -> str:
    """A sentence on files and one on stand-ins."""
    found = _graphs(_rows("h200-fig10"))
    files = [name for name, row in found.items() if row["origin"] == FILE]
    drawn = [name for name, row in found.items() if row["origin"] == STAND_IN]
    return (
        f"- Real graphs, from files: {', '.join(files)}.\n"
        f"- [Stand-ins](graphs.md#stand-ins), marked by `*`: {', '.join(drawn)}. These are generated graphs with the "
        "published numbers of nodes and edges. They are not the real graphs."
    )


def about(folder: str) -> str:
    return f"{conditions(*STUDIES)}\n\n{commands(*STUDIES)}"


def training(folder: str) -> str:
    """Figure 10: times and speed-ups of every graph, and the means of every type."""
    rows = _rows("h200-fig10")
    shapes = list(dict.fromkeys(map(_shape, rows)))
    cases = {(row["graph"], _shape(row)): row for row in rows if "speedup" in row}
    lines = []
    for kind in PAPER:
        mine = {name: row for name, row in _graphs(rows).items() if row["type"] == kind}
        for name, row in mine.items():
            cells = []
            for shape in shapes:
                case = cases.get((name, shape))
                cells.append(f"{ms(case['baseline_ms'])}, {ms(case['accelerated_ms'])}" if case else "-")
                cells.append(f"{case['speedup']:.2f}x" if case else "-")
            lines.append([kind, described(_named(row), row), *cells])
        means = []
        for shape in shapes:
            values = [cases[name, shape]["speedup"] for name in mine if (name, shape) in cases]
            means += [f"mean of {len(values)}", f"**{statistics.geometric_mean(values):.2f}x**"]
        lines.append([kind, "geometric mean", *means])
    heading = ["type", "graph (nodes / edges)"]
    for shape in shapes:
        heading += [f"{shape}: PyG, gnna_plugin", "speed-up"]
    return table(heading, lines)


def training_text(folder: str) -> str:
    """The plot of figure 10 and what it shows."""
    rows = [row for row in _rows("h200-fig10") if "speedup" in row]
    small = [row["speedup"] for row in rows if row["type"] == "I" and row["origin"] == FILE]
    large = [row["speedup"] for row in rows if row["type"] == "III"]
    names = list(dict.fromkeys(row["graph"] for row in rows if row["type"] == "I" and row["origin"] == FILE))
    return (
        f"![Speed-up of a training step over PyG on the paper's graphs, by type]({folder}paper-fig10.svg)\n\n"
        f"On the graphs of Type III, training is {_range(large)} times as fast as in PyG. "
        f"On {', '.join(names[:-1])} and {names[-1]}, where the host limits both sides, it is {_range(small)} times as "
        f"fast.{_lacking('h200-fig10')}"
    )


def _relative(name: str) -> tuple[dict[str, dict], dict[tuple, float | None], dict[str, float]]:
    """Return the graphs, {(graph, value): time relative to the decider's} and {graph: the decider's time in us}."""
    rows = _rows(name)
    decided = {row["graph"]: row["us"] for row in rows if row["value"] == DECIDER}
    ratios = {(row["graph"], row["value"]): row["us"] and row["us"] / decided[row["graph"]] for row in rows}
    return _graphs(rows), ratios, decided


def _sweep(name: str, heading: str) -> str:
    found, ratios, decided = _relative(name)
    values = list(dict.fromkeys(value for _, value in ratios if value != DECIDER))
    best = {graph: _best(ratios, graph)[1] for graph in found}
    lines = []
    for value in values:
        cells = []
        for graph in found:
            ratio = ratios[graph, value]
            text = "-" if ratio is None else f"{ratio:.2f}"
            cells.append(f"**{text}**" if ratio == best[graph] else text)
        lines.append([str(value), *cells])
    lines.append(["the decider's launch, us", *(ms(decided[graph]) for graph in found)])
    return table([heading, *map(_named, found.values())], lines)


def _best(ratios: dict, graph: str) -> tuple[int, float]:
    """Return the best value of a graph and its relative time."""
    mine = [(r, value) for (name, value), r in ratios.items() if name == graph and value != DECIDER and r]
    ratio, value = min(mine)
    return value, ratio


def _sweep_text(name: str, folder: str, file: str, alt: str, what: str) -> str:
    found, ratios, _ = _relative(name)
    best = [_best(ratios, graph) for graph in found]
    values = sorted({value for value, _ in best})
    several = " or ".join(map(str, values))
    return (
        f"![{alt}]({folder}{file})\n\n"
        f"The best {what} is {several}. With it, the paper's kernel takes "
        f"{_range([ratio for _, ratio in best])} times as long as the launch that the decider chooses.{_lacking(name)}"
    )


def group_size(folder: str) -> str:
    return _sweep("h200-fig11a", "group size")


def group_size_text(folder: str) -> str:
    alt = "Time of the paper's kernel over the group size, relative to the decider's launch"
    return _sweep_text("h200-fig11a", folder, "paper-fig11a.svg", alt, "group size")


def workers(folder: str) -> str:
    return _sweep("h200-fig11b", "dimension workers")


def workers_text(folder: str) -> str:
    alt = "Time of the paper's kernel over the dimension workers, relative to the decider's launch"
    return _sweep_text("h200-fig11b", folder, "paper-fig11b.svg", alt, "number of dimension workers")


def renumbering(folder: str) -> str:
    lines = [
        [
            described(_named(row), row),
            ms(row["own_ms"]),
            ms(row["renumbered_ms"]),
            f"{row['speedup']:.2f}x",
            size(round(row["span"])),
            size(round(row["new_span"])),
        ]
        for row in _rows("h200-fig11c")
    ]
    return table(["graph (nodes / edges)", "own ids", "renumbered", "speed-up", "AES", "AES, renumbered"], lines)


def renumbering_text(folder: str) -> str:
    rows = _rows("h200-fig11c")
    longer = sum(row["new_span"] > row["span"] for row in rows)
    return (
        f"{_shape(rows[0])} with renumbered nodes has {_range([row['speedup'] for row in rows], 2)} of the speed that "
        f"it has with the graph's own ids, so renumbering gains nothing here. In {longer} of the {len(rows)} graphs, "
        f"it even makes the average edge span (AES) longer.{_lacking('h200-fig11c')}"
    )


def hidden(folder: str) -> str:
    rows = [row for row in _rows("h200-fig12a") if "speedup" in row]
    cases = {(row["graph"], row["hidden"]): row for row in rows}
    found = _graphs(rows)
    lines = []
    for width in dict.fromkeys(row["hidden"] for row in rows):
        cells = []
        for graph in found:
            row = cases.get((graph, width))
            pair = f"{ms(row['baseline_ms'])}, {ms(row['accelerated_ms'])}" if row else ""
            cells.append(f"{pair} ({times(row['speedup'])})" if row else "-")
        lines.append([str(width), *cells])
    return table(["hidden width", *map(_named, found.values())], lines)


def hidden_text(folder: str) -> str:
    rows = [row for row in _rows("h200-fig12a") if "speedup" in row]
    widths = sorted({row["hidden"] for row in rows})

    def at(width: int) -> str:
        return _range([row["speedup"] for row in rows if row["hidden"] == width])

    return (
        f"![Speed-up of a training step of GCN over PyG, by hidden width]({folder}paper-fig12a.svg)\n\n"
        f"The gain grows with the hidden width: {at(widths[0])} times at {widths[0]}, {at(widths[-1])} times at "
        f"{widths[-1]}.{_lacking('h200-fig12a')}"
    )


def spmm(folder: str) -> str:
    rows = _rows("h200-spmm")
    peers = [peer for peer in dict.fromkeys(row["peer"] for row in rows) if peer != "gnna"]
    cases = {(row["graph"], row["peer"]): row for row in rows}
    lines = []
    for graph, row in _graphs(rows).items():
        others = [cases[graph, peer] for peer in peers]
        cells = [ms(1e3 * cases[graph, "gnna"]["ms"])]
        for other in others:
            cells += [ms(1e3 * other["ms"]), times(other["times_of_ours"])]
        lines.append([described(_named(row), row), *cells])
    heading = ["graph (nodes / edges)", "gnna_plugin"]
    for peer in peers:
        heading += [peer, "ratio"]
    return table(heading, lines)


def spmm_text(folder: str) -> str:
    rows = [row for row in _rows("h200-spmm") if row["peer"] != "gnna"]
    ratios = [row["times_of_ours"] for row in rows]
    return (
        f"At width {rows[0]['width']}, cuSPARSE takes {_range(ratios)} times as long as the plug-in (geometric mean: "
        f"{statistics.geometric_mean(ratios):.1f}).{_lacking('h200-spmm')}"
    )


TABLES = {
    "paper-graphs": graphs,
    "paper-about": about,
    "paper-fig10": training,
    "paper-fig10-text": training_text,
    "paper-fig11a": group_size,
    "paper-fig11a-text": group_size_text,
    "paper-fig11b": workers,
    "paper-fig11b-text": workers_text,
    "paper-fig11c": renumbering,
    "paper-fig11c-text": renumbering_text,
    "paper-fig12a": hidden,
    "paper-fig12a-text": hidden_text,
    "paper-spmm": spmm,
    "paper-spmm-text": spmm_text,
}


def draw(folder: Path) -> None:
    """Draw the plots of the page into a folder."""
    plot = _load_plot()
    gpu = load("h200-fig10")["about"]["gpu"].removeprefix("NVIDIA ")
    plot.bars(
        str(folder / "paper-fig10.svg"),
        _rows("h200-fig10"),
        f"Training steps of GCN 2x16 and GIN 5x64 on an {gpu} (figure 10)",
        "speed-up over PyG",
    )
    title = f"The paper's kernel on an {gpu}"
    plot.sweep_lines(str(folder / "paper-fig11a.svg"), _rows("h200-fig11a"), f"{title}: group size (figure 11a)")
    plot.sweep_lines(str(folder / "paper-fig11b.svg"), _rows("h200-fig11b"), f"{title}: dimension workers (figure 11b)")
    title = f"Training steps of GCN on an {gpu} over the hidden width (figure 12a)"
    plot.hidden_lines(str(folder / "paper-fig12a.svg"), _rows("h200-fig12a"), title, "PyG")


def _load_plot() -> ModuleType:
    """Import plot.py by its path, because importing the package needs torch."""
    spec = importlib.util.spec_from_file_location("study_plot", PLOT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
