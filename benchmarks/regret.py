"""What the decider's rules cost: the time of the launch it chooses over that of the best launch of a grid.

    python benchmarks/regret.py measure OUT.json --graph G [G ...] [--widths 16 64 128] [--dtype bfloat16] [--heads 4]
    python benchmarks/regret.py show OUT.json [MORE.json ...]

`measure`, on a GPU, times for every graph and width launches of both kernels over lanes, loads, groups, block sizes and
cuts of long rows, each compared with the chosen one's result; rows are in the order that a plan has after some calls.
`show` prints the regret per case, its geometric mean, and the worst above 10 us. Rules are fitted by reading it: say
which graphs had no part in that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

CALLS_TO_SORT = 8  # a plan on a GPU sorts its rows by degree at the sixth
ABOVE_MS = 0.01  # a launch shorter than that is mostly the launch


def grid(pieces: int, chosen: dict) -> list[dict]:
    """Partial configurations of both kernels for a row of ``pieces`` 16-byte loads; the decider completes them."""
    covers = [
        (dw, vectors)
        for dw in (1, 2, 4, 8, 16, 32)
        for vectors in (1, 2, 4)
        if pieces / 4 <= dw * vectors < 2 * max(pieces, 1) or (pieces > 64 and dw == 32)
    ]
    found = [{**chosen, "long_row": edges} for edges in (16, 32, 64, 128, 256, 512)]
    for (dw, vectors), warps in itertools.product(covers, (2, 4, 8)):
        shape = {"dw": dw, "vectors": vectors, "warps_per_block": warps}
        found += [{"kernel": "rows", **shape, "groups": g} for g in (1, 2, 4, 8) if dw * g <= 32]
        found += [{"kernel": "groups", **shape, "ngs": ngs} for ngs in (8, 16, 32, 64) if vectors < 4]
    return found


def measure(args) -> None:
    import torch

    from gnna_plugin import decider, tuned
    from gnna_plugin.data import load_graph
    from gnna_plugin.tools.bench.timing import Rounds
    from gnna_plugin.tools.tune.launches import Launch, timed

    device, dtype = torch.device("cuda", torch.cuda.current_device()), getattr(torch, args.dtype)
    cases, heads = [], args.heads
    for name in args.graph:
        graph = load_graph(name)
        row, col = torch.from_numpy(graph.dst).to(device), torch.from_numpy(graph.src).to(device)
        nodes = graph.num_nodes
        longest = torch.ops.gnna.max_degree(col, row, nodes, nodes)
        torch.ops.gnna.set_auto_schedule(True)
        for _ in range(CALLS_TO_SORT):
            torch.ops.gnna.spmm(torch.ones(nodes, 1, device=device), None, col, row, nodes, "sum")
        for width in args.widths:
            facts = tuned.Facts(
                nodes, nodes, row.numel(), longest, width, width // max(heads, 1), dtype.itemsize, heads > 0, "sum"
            )
            shape, weights = ((heads, width // heads), (row.numel(), heads)) if heads else ((width,), None)
            launch = Launch(facts, row, col, shape, weights, dtype)
            times: dict[str, float] = {}
            with timed(launch, Rounds(3, 0.002, 3)) as (decided, time_of):
                chosen = decided({})
                for partial in [chosen, *grid(-(-width * dtype.itemsize // 16), chosen)]:
                    try:
                        key = json.dumps(decided(partial), sort_keys=True)
                    except ValueError:
                        continue
                    if key not in times and (ms := time_of(json.loads(key))) is not None:
                        times[key] = ms
            best = min(times, key=times.__getitem__)
            cases.append({
                "graph": graph.name, **asdict(facts), "gpu": torch.cuda.get_device_name(), "launches": len(times),
                "device": decider.device_facts(device), "times": [[json.loads(k), ms] for k, ms in times.items()],
                "chosen": chosen, "chosen_ms": times[json.dumps(chosen, sort_keys=True)],
                "best": json.loads(best), "best_ms": times[best],
            })  # fmt: skip
            print(f"{graph.name}, {width}: {len(times)} launches", flush=True)
            Path(args.file).write_text(json.dumps(cases))


def geometric_mean(values) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def differences(chosen: dict, best: dict) -> str:
    return ", ".join(f"{name} {best[name]}" for name in best if best[name] != chosen.get(name))


def show(cases: list[dict]) -> None:
    table = Table(title=f"time of the chosen launch over the best's, sum on {cases[0]['gpu']}")
    for heading in (
        "graph",
        "width",
        "bytes each",
        "weights",
        "launches",
        "chosen us",
        "best us",
        "regret",
        "the best launch has",
    ):
        table.add_column(heading, justify="right")
    regrets, large = [], []
    for case in cases:
        regret = case["chosen_ms"] / case["best_ms"]
        regrets.append(regret)
        large += [regret] if case["best_ms"] > ABOVE_MS else []
        cells = (
            case["graph"],
            case["width"],
            case["itemsize"],
            case["width"] // case["head_dim"] if case["weighted"] else 0,
            case["launches"],
            f"{case['chosen_ms'] * 1e3:.1f}",
        )
        cells += (f"{case['best_ms'] * 1e3:.1f}", f"{regret:.2f}", differences(case["chosen"], case["best"]))
        table.add_row(*map(str, cells))
    console = Console(width=160)
    console.print(table)
    worst = f", above 10 us {geometric_mean(large):.3f}, worst {max(large):.2f}" if large else ""
    console.print(f"geometric mean of {len(cases)} cases {geometric_mean(regrets):.3f}{worst}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("measure")
    sub.add_argument("file")
    sub.add_argument("--graph", nargs="+", required=True)
    sub.add_argument("--widths", nargs="+", type=int, default=[16, 64, 128])
    sub.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    sub.add_argument("--heads", type=int, default=0, help="of a weight per edge and head; 0: without weights")
    sub = commands.add_parser("show")
    sub.add_argument("files", nargs="+")
    args = parser.parse_args()
    if args.command == "measure":
        measure(args)
    else:
        show([case for file in args.files for case in json.loads(Path(file).read_text())])


if __name__ == "__main__":
    main()
