"""Fits the decider's rules on half of the graphs and reports what they cost on the other half, against the best launch.

    python benchmarks/fit_decider.py measure OUT.json --graph G [G ...] [--widths 16 32 64 128 256]     (on a GPU)
    python benchmarks/fit_decider.py fit OUT.json [MORE.json ...]                                        (anywhere)

`measure` times a grid of launches of both kernels for every graph and width. `fit` looks for the thresholds, in the
form that csrc/cpu/decide.cpp has them, with the smallest geometric mean of time over best time on every second graph,
and prints, per case of the other graphs, that regret for the shipped decider and for the fitted rules.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

UNMEASURED = 3.0  # the regret of a configuration that is not in the grid: worse than any bad one that was


def grid(pieces: int) -> list[dict]:
    """Partial configurations of both kernels for a row of ``pieces`` 16-byte loads; the decider completes them."""
    covers = [
        (dw, vectors)
        for dw in (1, 2, 4, 8, 16, 32)
        for vectors in (1, 2, 4)
        if pieces / 4 <= dw * vectors < 2 * max(pieces, 1) or (pieces > 64 and dw == 32)
    ]
    found = []
    for (dw, vectors), warps in itertools.product(covers, (2, 4, 8)):
        shape = {"dw": dw, "vectors": vectors, "warps_per_block": warps}
        found += [{"kernel": "rows", **shape, "groups": g} for g in (1, 2, 4, 8, 16, 32) if dw * g <= 32]
        found += [{"kernel": "groups", **shape, "ngs": ngs} for ngs in (8, 16, 32, 64, 128) if vectors < 4]
    return found


def measure(args) -> None:
    import torch

    from gnna_plugin import tuned
    from gnna_plugin.bench.timing import Rounds
    from gnna_plugin.decider import device_facts
    from gnna_plugin.graphs import load_graph
    from gnna_plugin.tune.launches import Launch, timed

    device = torch.device("cuda", torch.cuda.current_device())
    cases = []
    for name in args.graph:
        graph = load_graph(name)
        row, col = torch.from_numpy(graph.dst).to(device), torch.from_numpy(graph.src).to(device)
        nodes = graph.num_nodes
        longest = torch.ops.gnna.max_degree(col, row, nodes, nodes)
        for width in args.widths:
            facts = tuned.Facts(nodes, nodes, row.numel(), longest, width, width, 4, False, "sum")
            launch = Launch(facts, row, col, (width,), None, torch.float32)
            times: dict[str, float] = {}
            with timed(launch, Rounds(3, 0.005, 3)) as (decided, time_of):
                chosen = decided({})
                for partial in [chosen, *grid(-(-width // 4))]:
                    try:
                        key = json.dumps(decided(partial), sort_keys=True)
                    except ValueError:
                        continue
                    if key not in times and (ms := time_of(json.loads(key))) is not None:
                        times[key] = ms
            _, processors, l2 = device_facts(device)
            cases.append({
                "graph": name, **asdict(facts), "gpu": torch.cuda.get_device_name(), "processors": processors,
                "l2_bytes": l2, "decider": chosen, "times": [[json.loads(key), ms] for key, ms in times.items()],
            })  # fmt: skip
            print(f"{name}, {width}: {len(times)} launches", flush=True)
            Path(args.file).write_text(json.dumps(cases))


@dataclass(frozen=True)
class Rules:
    """The thresholds of decide.cpp that are fitted, with what it ships as the start.

    ``ngs`` 0 never chooses the paper's kernel; otherwise it is chosen where the longest row exceeds ``skew`` times the
    average.
    """

    degree_2: float = 24
    degree_4: float = 48
    degree_8: float = 96
    busy_warps: int = 24
    tiny_warps: int = 32
    block: int = 2
    tiny_block: int = 8
    short_degree: float = 8
    skew: float = math.inf
    ngs: int = 0


CHOICES = {
    "degree_2": (4, 6, 8, 12, 16, 24, 32, 48),
    "degree_4": (12, 16, 24, 32, 48, 64, 96),
    "degree_8": (32, 48, 64, 96, 128, 192, 256),
    "busy_warps": (0, 8, 16, 24, 32, 48, 64),
    "tiny_warps": (0, 8, 16, 32, 64, 128),
    "block": (2, 4, 8),
    "tiny_block": (2, 4, 8),
    "short_degree": (0, 4, 8, 12, 16),
    "skew": (4, 16, 64, 256, 1024, math.inf),
    "ngs": (0, 8, 16, 32, 64, 128),
}


def chosen_by(rules: Rules, case: dict) -> dict:
    """What the rules launch for a case: the parameters of the grid."""
    degree = case["edges"] / max(case["rows"], 1)
    pieces = -(-case["width"] // 4)
    power = min(1 << (pieces - 1).bit_length(), 64) if pieces > 1 else 1
    dw, vectors = (
        (4, 2) if pieces == 8 and degree < rules.short_degree else (power, 1) if pieces <= 8 else (power // 2, 2)
    )
    small = case["rows"] < rules.tiny_warps * case["processors"]
    shape = {"dw": dw, "vectors": vectors, "warps_per_block": rules.tiny_block if small else rules.block}
    if rules.ngs and case["max_degree"] > rules.skew * max(degree, 1):
        return {"kernel": "groups", **shape, "ngs": rules.ngs}
    groups = 8 if degree >= rules.degree_8 else 4 if degree >= rules.degree_4 else 2 if degree >= rules.degree_2 else 1
    groups = min(groups, 32 // dw)
    while groups < 32 // dw and case["rows"] * dw * groups / 32 < rules.busy_warps * case["processors"]:
        groups *= 2
    return {"kernel": "rows", **shape, "groups": groups}


def regret(config: dict, case: dict) -> float:
    """Its time over the best measured one; where other parameters differ too, that of the quickest that agrees."""
    agreeing = [ms for tried, ms in case["times"] if all(tried.get(name) == value for name, value in config.items())]
    return min(agreeing) / min(ms for _, ms in case["times"]) if agreeing else UNMEASURED


def geometric_mean(values) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def fit(cases: list[dict], sweeps: int = 4) -> Rules:
    """The rules with the smallest geometric mean of regrets: one threshold at a time, until nothing improves."""

    def cost(rules: Rules) -> float:
        return geometric_mean(regret(chosen_by(rules, case), case) for case in cases)

    best = Rules()
    best_cost = cost(best)
    for _ in range(sweeps):
        before = best_cost
        # ngs and skew mean nothing without each other, so they are tried together.
        steps = [{name: value} for name, values in CHOICES.items() for value in values]
        steps += [{"ngs": n, "skew": s} for n, s in itertools.product(CHOICES["ngs"], CHOICES["skew"])]
        for step in steps:
            rules = replace(best, **step)
            if rules.degree_2 <= rules.degree_4 <= rules.degree_8 and (found := cost(rules)) < best_cost:
                best, best_cost = rules, found
        if best_cost == before:
            break
    return best


def report(cases: list[dict]) -> None:
    graphs = sorted({case["graph"] for case in cases})
    used = set(graphs[::2])
    rules = fit([case for case in cases if case["graph"] in used])
    table = Table(title=f"regret on graphs that were not fitted on; fitted on {', '.join(sorted(used))}")
    for heading in ("graph", "width", "best us", "shipped", "fitted", "best launch"):
        table.add_column(heading, justify="right")
    shipped, fitted, large = [], [], []
    for case in cases:
        if case["graph"] in used:
            continue
        launch, ms = min(case["times"], key=lambda item: item[1])
        costs = regret(case["decider"], case), regret(chosen_by(rules, case), case)
        shipped.append(costs[0])
        fitted.append(costs[1])
        large += [costs] if ms > 0.01 else []
        cells = (f"{ms * 1e3:.1f}", f"{costs[0]:.2f}", f"{costs[1]:.2f}", str(launch))
        table.add_row(case["graph"], str(case["width"]), *cells)
    console = Console(width=200)
    console.print(table)
    console.print(f"fitted rules: {rules}", highlight=False)
    if not shipped:
        raise SystemExit("one graph only: there is none to hold out")
    for name, values, position in (("shipped", shipped, 0), ("fitted", fitted, 1)):
        worst = max((costs[position] for costs in large), default=float("nan"))
        console.print(f"{name}: geometric mean {geometric_mean(values):.3f}, worst above 10 us {worst:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("measure")
    sub.add_argument("file")
    sub.add_argument("--graph", nargs="+", required=True)
    sub.add_argument("--widths", nargs="+", type=int, default=[16, 32, 64, 128, 256])
    sub = commands.add_parser("fit")
    sub.add_argument("files", nargs="+")
    args = parser.parse_args()
    if args.command == "measure":
        measure(args)
    else:
        report([case for file in args.files for case in json.loads(Path(file).read_text())])


if __name__ == "__main__":
    main()
