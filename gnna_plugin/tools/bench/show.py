"""Shows and stores measurements: a rich table per case, JSON with the circumstances of the run, CSV with the rows.

This file owns the stored form, {"kind", "about", "rows", "left_out"}, where rows are flat dicts.
"""

from __future__ import annotations

import csv
import datetime
import json
import platform
from pathlib import Path

import torch
from rich import box
from rich.table import Table

import gnna_plugin
from gnna_plugin.frameworks import FRAMEWORKS
from gnna_plugin.tools.bench import peers
from gnna_plugin.tuned import processor


def about(device: torch.device, command: str) -> dict:
    """Return the command, the machine and the versions of a run, as a dict for JSON."""
    versions = {"gnna_plugin": gnna_plugin.__version__, "torch": torch.__version__, "python": platform.python_version()}
    for name, framework in FRAMEWORKS.items():
        if not isinstance(peers.adapter(name), str):
            versions.update(framework.load("tools.models").versions())
    found = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "device": str(device),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "instruction_set": torch.ops.gnna.instruction_set(),
        "versions": versions,
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        versions["cuda"] = str(torch.version.cuda)
    return found


def store(result: dict, json_path: str | None, csv_path: str | None) -> None:
    """Write the stored form to each file that is given."""
    if json_path:
        Path(json_path).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if csv_path:
        names = list(dict.fromkeys(name for row in result["rows"] for name in row))
        with open(csv_path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(result["rows"])


def title(row: dict) -> str:
    """Return the facts of a row's case in words."""
    facts = [str(row["graph"])] if "graph" in row else []
    if "edges" in row:
        facts.append(f"{row['nodes']:,} nodes, {row['edges']:,} edges")
    facts += [str(row[name]) for name in ("model", "operation", "direction") if name in row]
    if "width" in row:
        facts.append(f"width {row['width']}")
    for name, usual in (("reduce", "sum"), ("weight", "none"), ("heads", 1), ("dtype", "float32")):
        if row.get(name, usual) != usual:
            facts.append(f"{name} {row[name]}")
    return ", ".join(facts)


def case_table(rows: list[dict]) -> Table:
    """Return a table of one case's rows.

    It has every column for which a row has a value.
    """
    caption = _floors(rows[0])
    table = Table(
        title=title(rows[0]),
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    columns = [(key, *_COLUMNS[key]) for key in _COLUMNS if any(row.get(key) not in (None, "clock") for row in rows)]
    for _, heading, _ in columns:
        name = heading == ""
        table.add_column(heading, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for row in rows:
        table.add_row(*("" if row.get(key) is None else form(row[key]) for key, _, form in columns))
    return table


def _floors(row: dict) -> str | None:
    if "gather_floor_ms" not in row:
        return None
    return (
        f"Floors: {number(row['gather_floor_ms'])} ms to move {row['moved_bytes'] / 1e6:,.1f} MB at the rate of "
        f"gathering random rows, {row['gather_gbs']:,.1f} GB/s ({row['gather_program']}); "
        f"{number(row['compulsory_floor_ms'])} ms to read and write everything once at the rate of copying, "
        f"{row['copy_gbs']:,.1f} GB/s."
    )


def number(value: float) -> str:
    """Format a value with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _times(value: float) -> str:
    return f"{value:.2f}x"


# Column: (heading, function that formats a value). A table shows the columns that its rows have.
_COLUMNS = {
    "peer": ("", str),
    "ms": ("ms", number),
    "us": ("us", number),
    "spread_ms": ("±", number),
    "spread_us": ("±", number),
    "eager_ms": ("eager ms", number),
    "how": ("timed by", str),
    "first_ms": ("first ms", number),
    "times_of_ours": ("x gnna", _times),
    "achieved_gbs": ("GB/s", number),
    "of_gather_floor": ("floor/ms", lambda value: f"{value:.2f}"),
    "peak_mib": ("peak MiB", number),
    "error": ("error", lambda value: f"{value:.0e}"),
}
