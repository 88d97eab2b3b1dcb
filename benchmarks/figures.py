"""Draws the charts and writes the marked tables of README.md and docs/ from the measurements in docs/results/.

    python benchmarks/figures.py                     all of it, as `make figures` does (needs matplotlib)
    python benchmarks/figures.py --tables            the tables only

A marked table is the text between `<!-- figures: NAME -->` and `<!-- end -->`. TABLES has the function of each name.
benchmarks/measurements.py keeps measurements, and benchmarks/paper_figures.py has the paper's figures.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from pathlib import Path

import paper_figures
from formatting import MODELS, conditions, described, label, ms, size, table, times
from formatting import commands as commands_of
from measurements import load

ROOT = Path(__file__).resolve().parent.parent
CHARTS = ROOT / "docs" / "figures"
MARKED = re.compile(r"(<!-- figures: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.S)

GRAPH = "com-dblp"  # of the chart and of the figures on the front page
LARGE = 1_500_000  # edges from which the front page gives a range of speed-ups
PLAIN, SPARSE, COMPILED, OURS = "PyG", "PyG torch.sparse", "PyG compiled", "gnna"  # arms of `gnna bench epoch`


# ---- measurements ----------------------------------------------------------------------------------------------------


def epochs(name: str) -> dict[tuple[str, str], dict[str, dict]]:
    """Return {(graph, model with shape): {arm: row}} of a file that `gnna bench epoch` wrote."""
    cases: dict[tuple[str, str], dict[str, dict]] = {}
    for row in load(name)["rows"]:
        cases.setdefault((row["graph"], row["model"]), {})[row["peer"]] = row
    return cases


def _graphs(cases: dict) -> list[str]:
    """Return the graphs of cases by their number of edges."""
    edges = {graph: next(iter(arms.values()))["edges"] for (graph, _), arms in cases.items()}
    return sorted(edges, key=edges.__getitem__)


def _shapes(cases: dict) -> list[str]:
    """Return the models with their shapes, in the order of MODELS."""
    found = dict.fromkeys(model for _, model in cases)
    return sorted(found, key=lambda model: list(MODELS).index(model.split()[0]))


# ---- the marked tables -----------------------------------------------------------------------------------------------


def _ratio(arms: dict[str, dict], key: str = "ms") -> float:
    return arms[PLAIN][key] / arms[OURS][key]


def headline(folder: str) -> str:
    """Three figures: speed and memory on a GPU, speed on a CPU."""
    cases = epochs("h200-epoch")
    large = {case: arms for case, arms in cases.items() if arms[OURS]["edges"] >= LARGE}
    speed = sorted(_ratio(arms) for arms in large.values())
    memory = sorted(1 / _ratio(arms, "peak_mib") for arms in large.values())
    models = list(dict.fromkeys(MODELS[model.split()[0]] for model in _shapes(large)))
    about = load("h200-epoch")["about"]
    gpu = about["gpu"].removeprefix("NVIDIA ")
    graphs = len(_graphs(large))
    cpu = {row["graph"]: row for row in load("cpu-gcn")["rows"]}
    row = cpu.get(GRAPH) or next(iter(cpu.values()))
    plain = row["baseline_ms"] / row["accelerated_ms"]
    same = row["baseline_same_allocator_ms"] / row["accelerated_ms"]
    threads = load("cpu-gcn")["about"]["threads"]
    return (
        f"- **{times(statistics.median(speed))} the speed of PyG on an {gpu}** (median; {times(speed[0])} to "
        f"{times(speed[-1])}): training epochs of {', '.join(models[:-1])} and {models[-1]} on {graphs} graphs of "
        f"{size(LARGE)} edges and more, {len(large)} cases.\n"
        f"- **{statistics.median(memory):.2f} of PyG's peak memory** in the same runs (median; {memory[0]:.2f} to "
        f"{memory[-1]:.2f}).\n"
        f"- **{times(plain)} the speed of PyG on {threads} CPU threads**, and {times(same)} "
        f"that of PyG with the same memory allocator: an epoch of GCN on {row['graph']}."
    )


def chart(folder: str) -> str:
    """The chart and its conditions."""
    row = next(arms[OURS] for (graph, _), arms in epochs("h200-epoch").items() if graph == _chart_graph())
    alt = f"Time of a training epoch and peak memory on {row['graph']}, PyG and gnna_plugin"
    return (
        f"![{alt}]({folder}epoch-h200.svg)\n\n"
        f"{row['graph']}: {size(row['nodes'])} nodes, {size(row['edges'])} edges, {row['dim']} features. Medians, "
        f"float32, eager mode, with the optimizer's step. {conditions('h200-epoch')}"
    )


def h200_epochs(folder: str) -> str:
    """Times of a graph and a shape in a row and of a model in a column."""
    cases = epochs("h200-epoch")
    models = list(dict.fromkeys(model.split()[0] for model in _shapes(cases)))
    shapes, lines = list(dict.fromkeys(model.split()[1] for model in _shapes(cases))), []
    for graph in _graphs(cases)[-8 // len(shapes) :]:
        facts = next(arms for (name, _), arms in cases.items() if name == graph)[OURS]
        for shape in shapes:
            cells = [
                f"{ms(arms[PLAIN]['ms'])}, {ms(arms[OURS]['ms'])} ({times(_ratio(arms))})" if arms else ""
                for arms in (cases.get((graph, f"{model} {shape}")) for model in models)
            ]
            lines.append([described(graph, facts), shape, *cells])
    return table(["graph (nodes / edges)", "layers x width", *(MODELS[model] for model in models)], lines)


def h200_memory(folder: str) -> str:
    """Peak memory of a graph in a row and of a model in a column."""
    cases = epochs("h200-epoch")
    shapes, lines = _shapes(cases), []
    for graph in _graphs(cases):
        cells = []
        for model in shapes:
            arms = cases.get((graph, model))
            cells.append(f"{arms[PLAIN]['peak_mib']:,.0f} / {arms[OURS]['peak_mib']:,.0f}" if arms else "")
        lines.append([graph, *cells])
    return table(["graph", *map(label, shapes)], lines)


def h200_all(folder: str) -> str:
    """Every case of the GPU, with PyG's other paths that were measured."""
    cases, lines = epochs("h200-epoch"), []
    others = [name for name in (SPARSE, COMPILED) if any(name in arms for arms in cases.values())]
    for graph in _graphs(cases):
        for model in _shapes(cases):
            arms = cases.get((graph, model))
            if arms is None:
                continue
            measured = [arms.get(name) for name in (PLAIN, *others)]
            ours = arms[OURS]["ms"]
            cells = [ms(arm["ms"]) if arm else "-" for arm in measured]
            ratios = [times(arm["ms"] / ours) if arm else "-" for arm in measured]
            peaks = f"{arms[PLAIN]['peak_mib']:,.0f} / {arms[OURS]['peak_mib']:,.0f}"
            lines.append([f"{graph}, {label(model)}", *cells, ms(ours), *ratios, peaks])
    over = ["over " + name.removeprefix("PyG ") for name in (PLAIN, *others)]
    return table(["graph, model", PLAIN, *others, "gnna_plugin", *over, "peak MiB, PyG / ours"], lines)


def h200_conditions(folder: str) -> str:
    small = "`gnna bench epoch` accelerates graphs of every size. By default, small ones run as PyG's own code."
    if "bench epoch" not in load("h200-epoch")["about"]["command"]:
        small = "Small graphs run as PyG's own code, except that the normalisation is cached."
    return f"{conditions('h200-epoch')} {small}\n\n{commands_of('h200-epoch')}"


def cpu_epochs(folder: str) -> str:
    """Times on a CPU, with the factors over the two forms of plain PyG side by side."""
    lines = []
    for name in ("cpu-gcn", "cpu-gin"):
        for row in sorted(load(name)["rows"], key=lambda row: -row["edges"])[:4]:
            plain, same, ours = row["baseline_ms"], row["baseline_same_allocator_ms"], row["accelerated_ms"]
            peaks = f"{row['baseline_peak_mib']:,.0f} / {row['accelerated_peak_mib']:,.0f}"
            cells = [ms(plain), ms(same), ms(ours), times(plain / ours), times(same / ours), peaks]
            lines.append([described(row["graph"], row), label(row["model"]), *cells])
    heading = [
        "graph (nodes / edges)",
        "model",
        "PyG",
        "PyG, same allocator",
        "gnna_plugin",
        "over PyG",
        "over same allocator",
        "peak MiB, PyG / ours",
    ]
    return table(heading, lines)


def cpu_conditions(folder: str) -> str:
    return f"GCN: {conditions('cpu-gcn')}\n\nGIN: {conditions('cpu-gin')}\n\n{commands_of('cpu-gcn', 'cpu-gin')}"


def commands(folder: str) -> str:
    return commands_of("h200-epoch", "cpu-gcn", "cpu-gin")


def _front_shapes(cases: dict) -> list[str]:
    """Return one shape per model: the one that most graphs have, of those the first."""
    shapes: dict[str, str] = {}
    for model in _shapes(cases):
        shapes.setdefault(model.split()[0], model)
    return list(shapes.values())


def _chart_graph() -> str:
    cases = epochs("h200-epoch")
    return GRAPH if any(graph == GRAPH for graph, _ in cases) else _graphs(cases)[-1]


TABLES = {
    "headline": headline,
    "chart": chart,
    "h200-epochs": h200_epochs,
    "h200-memory": h200_memory,
    "h200-all": h200_all,
    "h200-conditions": h200_conditions,
    "cpu-epochs": cpu_epochs,
    "cpu-conditions": cpu_conditions,
    "commands": commands,
    **paper_figures.TABLES,
}


def pages() -> list[Path]:
    """Return the files that may have marked tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def rewritten(page: Path) -> str:
    """Return the text of a page with its marked tables made again.

    Raises:
        KeyError: a mark names no table.
    """
    folder = "docs/figures/" if page.parent == ROOT else "figures/"

    def made(match: re.Match) -> str:
        return f"{match[1]}{TABLES[match[2]](folder)}\n{match[4]}"

    return MARKED.sub(made, page.read_text(encoding="utf-8"))


# ---- the chart -------------------------------------------------------------------------------------------------------


def draw() -> None:
    """Draw docs/figures/epoch-h200.svg: time and memory of every model on one graph."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "gnna_plugin", "font.family": "DejaVu Sans", "font.size": 11})
    from matplotlib import pyplot as plt

    graph, cases = _chart_graph(), epochs("h200-epoch")
    models = [model for model in _front_shapes(cases) if (graph, model) in cases]
    arms = [arm for arm in (PLAIN, OURS) if all(arm in cases[graph, model] for model in models)]
    colours = {PLAIN: "#b4bac4", OURS: "#1f6fb4"}
    names = {PLAIN: "PyG", OURS: "PyG with gnna_plugin"}
    figure, panels = plt.subplots(1, 2, figsize=(7.6, 0.72 * len(models) + 1.25), sharey=True)
    figure.patch.set_facecolor("white")
    shown = {"ms": "ms per training epoch", "peak_mib": "peak memory, MiB"}
    for panel, (key, title) in zip(panels, shown.items(), strict=True):
        most = max(cases[graph, model][PLAIN][key] for model in models)
        for place, model in enumerate(models):
            for offset, arm in enumerate(arms):
                value = cases[graph, model][arm][key]
                y = place + (offset - (len(arms) - 1) / 2) * 0.38
                panel.barh(y, value, 0.36, color=colours[arm], label=names[arm] if place == 0 else None)
                text = ms(value) if key == "ms" else f"{value:,.0f}"
                if arm == OURS and (ratio := _ratio(cases[graph, model], key)) >= 1.05:
                    text += f"   {ratio:.1f}x {'faster' if key == 'ms' else 'less'}"
                panel.text(
                    value + most * 0.015,
                    y,
                    text,
                    va="center",
                    fontsize=10,
                    weight="bold" if arm == OURS else "normal",
                    color="#1a1a1a",
                )
        panel.set_title(title, loc="left", fontsize=12, color="#1a1a1a")
        panel.set_xlim(0, most * 1.25)
        panel.xaxis.set_visible(False)
        for side in ("top", "right", "bottom"):
            panel.spines[side].set_visible(False)
        panel.tick_params(length=0)
    panels[0].set_yticks(range(len(models)), [label(model).replace(" ", "\n", 1) for model in models])
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=len(arms), frameon=False)
    figure.tight_layout(rect=(0, 0.07, 1, 1), w_pad=2)
    CHARTS.mkdir(exist_ok=True)
    figure.savefig(CHARTS / "epoch-h200.svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="leave the charts as they are")
    args = parser.parse_args()
    for page in pages():
        text = rewritten(page)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(f"changed: {page.relative_to(ROOT)}")
    if not args.tables:
        draw()
        paper_figures.draw(CHARTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
