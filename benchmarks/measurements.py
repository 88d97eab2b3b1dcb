"""The measurements in docs/results/, from which benchmarks/figures.py makes charts and tables.

    python benchmarks/measurements.py FILE NAME      keep what `gnna compare`, `bench epoch` or `study --json` wrote

docs/results/NAME.json holds {"about", "rows"}: the command, date, machine and versions of a run, and flat rows.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import re
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"

# The paper's graphs by type, and the types that a study measures if none are given (gnna_plugin/tools/study).
PAPER = {
    "I": ["citeseer", "cora", "pubmed", "ppi"],
    "II": ["PROTEINS_full", "OVCAR-8H", "Yeast", "DD", "TWITTER-Real-Graph-Partial", "SW-620H"],
    "III": ["amazon0505", "artist", "com-amazon", "soc-BlogCatalog", "amazon0601"],
}
ALL_TYPES = ("fig9", "fig10")


def load(name: str) -> dict:
    """Return {"about", "rows"} of docs/results/NAME.json."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def store(path: Path, name: str, machine: str | None = None, partial: bool = False) -> None:
    """Keep a file that gnna wrote. Columns that are not flat are left out.

    Args:
        path: what `--json` wrote.
        name: the name in docs/results/.
        machine: the processor, if the file does not have it.
        partial: accept a run that did not finish. Graphs without all their cases are left out, in the command too. Of a
            study, all cases are kept, and about["lacks"] lists those that are missing.

    Raises:
        SystemExit: the run did not finish.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = found if isinstance(found, list) else found["rows"]
    about = {} if isinstance(found, list) else dict(found["about"])
    for key in ("command", "versions", "device", "threads"):
        if key not in about and key in rows[0]:
            about[key] = rows[0][key]
    about.setdefault("date", datetime.date.fromtimestamp(path.stat().st_mtime).isoformat())
    about.setdefault("processor", machine or about["versions"].get("processor"))
    about["command"] = public(about["command"])
    if kind := None if isinstance(found, list) else found.get("kind"):
        if missing := lacks(kind, about["command"], rows):
            if not partial:
                raise SystemExit(f"{path} lacks {', '.join(missing)}: let the run finish, or use --partial")
            about["lacks"] = missing
    elif lacking := unfinished(about["command"], rows):
        if not partial:
            raise SystemExit(f"{path} lacks cases of {', '.join(lacking)}: let the run finish, or use --partial")
        rows = [row for row in rows if row["graph"] not in lacking]
        about["command"] = " ".join(word for word in about["command"].split() if word not in lacking)
    flat = [
        {key: value for key, value in row.items() if key != "command" and not isinstance(value, (dict, list))}
        for row in rows
    ]
    lines = ",\n".join("  " + json.dumps(row) for row in flat)
    text = f'{{\n "about": {json.dumps(about)},\n "rows": [\n{lines}\n ]\n}}\n'
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")


def public(command: str) -> str:
    """Return a command without the paths of its outputs, as a user would type it."""
    command = re.sub(r" --(json|csv|html) \S+", "", command)
    return re.sub(r"^\S*python\S* -m gnna_plugin", "gnna", command)


def unfinished(command: str, rows: list[dict]) -> list[str]:
    """Return the graphs of a command that have fewer cases in the rows than it asks for."""
    wanted = max(1, len(_given(command, "--models"))) * max(1, len(_given(command, "--shapes")))
    cases = {graph: {row["model"] for row in rows if row["graph"] == graph} for graph in _given(command, "--graph")}
    return [graph for graph, models in cases.items() if len(models) < wanted]


def lacks(kind: str, command: str, rows: list[dict]) -> list[str]:
    """Return the cases of a study that are missing: a graph without any, or "GRAPH: CASE".

    A graph should have all cases that any graph has.
    """
    types = _given(command, "--types") or (list(PAPER) if kind in ALL_TYPES else ["III"])
    graphs = _given(command, "--graph") or [graph for group in types for graph in PAPER[group]]
    cases: dict[str, list[str]] = {graph: [] for graph in graphs}
    for row in rows:
        case = " ".join(str(row[key]) for key in ("model", "hidden", "width", "peer", "value") if key in row)
        cases.setdefault(row["graph"], []).append(case)
    wanted = dict.fromkeys(case for found in cases.values() for case in found)
    missing = []
    for graph, found in cases.items():
        missing += [f"{graph}: {case}" for case in wanted if case not in found] if found else [graph]
    return missing


def _given(command: str, option: str) -> list[str]:
    """Return the values of an option in a command."""
    words = command.split()
    start = words.index(option) + 1 if option in words else len(words)
    return list(itertools.takewhile(lambda word: not word.startswith("--"), words[start:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("name")
    parser.add_argument("--machine", help="the processor, if the file does not have it")
    parser.add_argument("--partial", action="store_true", help="accept a run that did not finish")
    args = parser.parse_args()
    store(args.file, args.name, args.machine, args.partial)


if __name__ == "__main__":
    main()
