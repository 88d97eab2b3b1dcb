"""Words, numbers and tables in which benchmarks/figures.py and benchmarks/paper_figures.py show measurements."""

from __future__ import annotations

from measurements import load

BUSY = 0.1  # cores that other processes used, from which a table says so
MODELS = {"gcn": "GCN", "gin": "GIN", "sage": "SAGE", "gat": "GAT"}


def ms(value: float) -> str:
    """Return a time with one decimal, with none from 100 on and with two below 1."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def times(value: float) -> str:
    return f"{value:.1f}x"


def size(count: int) -> str:
    """Return a count as "11 k" or "2.1 M"."""
    if count >= 999_500:
        return f"{count / 1e6:.1f} M"
    return f"{count / 1e3:.0f} k" if count >= 9_950 else f"{count / 1e3:.1f} k"


def label(model: str) -> str:
    """Return "gcn 2x16" as "GCN 2x16"."""
    name, *shape = model.split()
    return " ".join([MODELS.get(name, name), *shape])


def described(graph: str, row: dict) -> str:
    return f"{graph} ({size(row['nodes'])} / {size(row['edges'])})"


def table(heading: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(heading) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heading, rule, *lines])


def machine_of(about: dict) -> str:
    """Return the GPU, or the threads of the processor."""
    if about.get("gpu"):
        return f"one {about['gpu']}"
    return f"{about['threads']} threads of an {about['processor']}"


def conditions(name: str, *others: str) -> str:
    """Return machine, versions and date of a file as a sentence, and a second one if the machine was busy.

    others: files of the same machine, versions and date.
    """
    about = load(name)["about"]
    versions, rows = about["versions"], [row for file in (name, *others) for row in load(file)["rows"]]
    pyg = f" and torch-geometric {versions['torch_geometric']}" if "torch_geometric" in versions else ""
    text = f"Measured on {machine_of(about)} with torch {versions['torch']}{pyg}, on {about['date']}."
    spreads = [
        row[f"{arm}spread_ms"] / row[f"{arm}ms"]
        for row in rows
        for arm in ("", "baseline_", "accelerated_", "own_", "renumbered_")
        if f"{arm}spread_ms" in row and f"{arm}ms" in row
    ]
    if spreads:
        text += f" Interquartile ranges are up to {100 * max(spreads):.0f} % of the medians."
    taken = max((row.get("missing_cores") or 0.0 for row in rows), default=0.0)
    if taken > BUSY:
        text += f" Other processes used up to {taken:.1f} CPU cores meanwhile, so ratios are more reliable than times."
    return text


def commands(*names: str) -> str:
    """Return the commands of files as a block of code."""
    return "\n".join(f"    {load(name)['about']['command']}" for name in names)
