"""The measurements in docs/results/, from which benchmarks/figures.py makes charts and tables.

    python benchmarks/measurements.py FILE NAME      keep what `gnna compare --json` or `gnna bench epoch --json` wrote

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


def load(name: str) -> dict:
    """Return {"about", "rows"} of docs/results/NAME.json."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def store(path: Path, name: str, machine: str | None = None, partial: bool = False) -> None:
    """Keep a file that gnna wrote. Columns that are not flat are left out.

    Args:
        path: what `--json` wrote.
        name: the name in docs/results/.
        machine: the processor, if the file does not have it.
        partial: accept a run that did not finish. Graphs without all their cases are left out, in the command too.

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
    if lacking := unfinished(about["command"], rows):
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
    words = command.split()

    def given(option: str) -> list[str]:
        start = words.index(option) + 1 if option in words else len(words)
        return list(itertools.takewhile(lambda word: not word.startswith("--"), words[start:]))

    wanted = max(1, len(given("--models"))) * max(1, len(given("--shapes")))
    cases = {graph: {row["model"] for row in rows if row["graph"] == graph} for graph in given("--graph")}
    return [graph for graph, models in cases.items() if len(models) < wanted]


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
