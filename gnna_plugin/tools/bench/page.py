"""`gnna bench page`: writes docs/benchmarks.md from stored JSON, so that no figure is typed by hand.

This file owns the text and the tables of the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from gnna_plugin.tools.bench import epoch, peers
from gnna_plugin.tools.bench.show import number, title
from gnna_plugin.tools.compare.spec import UsageError

_HEAD = """# Benchmarks

Made by `gnna bench page`; do not edit. Times are medians, in milliseconds unless stated otherwise. Results of kernels
and models were compared with float64 on random input before they were timed. A library that is not named was not
installed or has no such operation.
"""
_TITLES = {
    "spmm": "Reducing neighbours' features",
    "segment": "Reducing given messages",
    "sddmm": "Dot products of the features at both ends of every edge",
    "epoch": "Training steps",
    "plan": "Plans",
    "host": "Host time of calls",
}
_FLOORS = """*x best peer*: time of the fastest other library / time of gnna. *GB/s*: bytes that must move / time of
gnna. *of floor*: floor / time of gnna. The floor is the time of moving these bytes at the rate at which this machine
gathers random rows of that width, measured in the same run. It can be beaten on graphs whose neighbours have near ids.
"""
_SPLIT = """The factors of the gain over PyG. Their product is *whole*. *allocator*: freed memory is kept. *memo*:
gcn_norm is cached. *fused gather*: the gather is fused with the reduction, in torch's own sparse kernel (MKL or
cuSPARSE). *kernel*: the plug-in's kernel in place of that one, and its shorter path through the host.
"""


def run(args) -> int:
    """Write the page and return the exit status 0.

    Raises:
        UsageError: `gnna bench` did not write one of the files.
    """
    results = [_read(path) for path in args.files]
    sections = [_HEAD]
    for kind, heading in _TITLES.items():
        found = [result for result in results if result["kind"] == kind]
        if found:
            sections.append(f"## {heading}\n")
            sections += [part for result in found for part in _section(kind, result)]
    Path(args.output).write_text("\n".join(sections), encoding="utf-8")
    return 0


def _read(path: str) -> dict:
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
        if result["kind"] not in _TITLES or not result["rows"] or "command" not in result["about"]:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a file that `gnna bench ... --json` wrote ({error})") from error
    return result


def _section(kind: str, result: dict) -> Iterable[str]:
    about, rows = result["about"], result["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    where = about.get("gpu") or f"{about['threads']} threads of {about['processor']}, {about['instruction_set']}"
    command = re.sub(r" --(json|csv) \S+", "", about["command"])  # the paths do not matter to a reader
    yield f"{about['date']}, {where}; {versions}.\n\n    {command}\n"
    taken = max((row.get("missing_cores") or 0.0 for row in rows), default=0.0)
    if taken > 0.1:
        yield f"Other processes used up to {taken:.1f} cores meanwhile, so ratios are more reliable than times.\n"
    if any(row.get("how") == "CPU time" for row in rows):
        yield "One thread, measured in CPU time, because other processes used the machine.\n"
    if kind in ("spmm", "segment", "sddmm"):
        yield _FLOORS
        yield _kernels(rows)
    elif kind == "epoch":
        yield _epochs(rows)
        yield from _split(rows)
    else:
        unit = "us" if kind == "host" else "ms"
        for case, group in _grouped(rows, title).items():
            yield f"{case}:\n"
            yield _table(["", unit], [[row["peer"], number(row[unit])] for row in group])


def _grouped(rows: list[dict], key: Callable) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _names(rows: list[dict]) -> list[str]:
    return list(dict.fromkeys(row["peer"] for row in rows))


def _table(heading: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(heading) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heading, rule, *lines]) + "\n"


def _kernels(rows: list[dict]) -> str:
    names, lines = _names(rows), []
    for case, group in _grouped(rows, _kernel_case).items():
        by = {row["peer"]: row for row in group}
        ours = by[peers.OURS]
        others = [row["ms"] for name, row in by.items() if name != peers.OURS]
        line = [case, *(number(by[name]["ms"]) if name in by else "-" for name in names)]
        line.append(f"{min(others) / ours['ms']:.2f}x" if others else "-")
        line += (
            [number(ours["achieved_gbs"]), f"{ours['of_gather_floor']:.2f}"] if "achieved_gbs" in ours else ["-"] * 2
        )
        lines.append(line)
    return _table(["graph, width", *names, "x best peer", "GB/s", "of floor"], lines)


def _kernel_case(row: dict) -> str:
    extra = [str(row[key]) for key, usual in (("reduce", "sum"), ("dtype", "float32")) if row[key] != usual]
    extra += [f"{row['weight']} weight"] if row["weight"] != "none" else []
    extra += [f"{row['heads']} heads"] if row["heads"] > 1 else []
    extra += ["backward"] if row["direction"] == "backward" else []
    return ", ".join([row["graph"], str(row["width"]), *extra])


def _epoch_case(row: dict) -> str:
    return f"{row['graph']}, {row['model']}"


def _epochs(rows: list[dict]) -> str:
    shown = [row for row in rows if row["peer"] not in (epoch.MEMO, epoch.FUSED)]
    names, lines = _names(shown), []
    for case, group in _grouped(shown, _epoch_case).items():
        by = {row["peer"]: row["ms"] for row in group}
        lines.append([case, *(number(by[name]) if name in by else "-" for name in names)])
    return _table(["graph, model", *names], lines)


_PARTS = ("whole", "allocator", "memo", "fused gather", "kernel")


def _split(rows: list[dict]) -> Iterable[str]:
    lines = []
    for case, group in _grouped(rows, _epoch_case).items():
        by = {row["peer"]: row["ms"] for row in group}
        if epoch.FUSED not in by:
            continue
        parts = epoch.parts_of_gain(by)
        lines.append([case, *(f"{parts[name]:.2f}x" if name in parts else "-" for name in _PARTS)])
    if lines:
        yield _SPLIT
        yield _table(["graph, model", *_PARTS], lines)
