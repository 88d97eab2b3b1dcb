"""What the decider's rules cost: the time of the launch they choose over that of the best launch of a grid.

    python benchmarks/regret.py measure OUT.json --graph G [G ...] [--widths 16 64 128] [--dtype bfloat16] [--heads 4]
    python benchmarks/regret.py show OUT.json [MORE.json ...] [--as-measured] [--worst 20]

`measure`, on a GPU, times for every graph and width launches of both kernels over lanes, loads, groups, block sizes and
thresholds of split rows. Each result is compared with the chosen launch's. Rows are in the order that a plan has after
some calls.

`show` needs no GPU. It asks the rules of this checkout for their choice in every case and looks its time up, so that a
change of the rules is judged by timings that exist: the regret per case, its geometric mean, and the worst above 10 us.
A choice that was timed with another threshold of split rows only is estimated from the times of that threshold. With
--as-measured it shows the choice of the rules that were in force when the case was measured.
"""

from __future__ import annotations

import argparse
import bisect
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
SPLITS = (16, 32, 64, 128, 256, 512)  # thresholds that are timed with the chosen launch
SHAPE = ("kernel", "lanes", "vectors", "vector_width", "groups", "group_size", "block")


def grid(pieces: int, chosen: dict) -> list[dict]:
    """Partial configurations of both kernels for a row of ``pieces`` 16-byte loads; the decider completes them."""
    covers = [
        (lanes, vectors)
        for lanes in (1, 2, 4, 8, 16, 32)
        for vectors in (1, 2, 4)
        if pieces / 4 <= lanes * vectors < 2 * max(pieces, 1) or (pieces > 64 and lanes == 32)
    ]
    found = [{**chosen, "split_above": edges} for edges in SPLITS]
    for (lanes, vectors), block in itertools.product(covers, (64, 128, 256)):
        shape = {"lanes": lanes, "vectors": vectors, "block": block}
        found += [{"kernel": "row", **shape, "groups": g} for g in (1, 2, 4, 8) if lanes * g <= 32]
        found += [{"kernel": "group", **shape, "group_size": size} for size in (8, 16, 32, 64) if vectors < 4]
    return found


def measure(args) -> None:
    import torch

    from gnna_plugin import decider
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
            facts = decider.Facts(
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
            cases.append({
                "graph": graph.name, "gpu": torch.cuda.get_device_name(), "device": decider.device_facts(device),
                "facts": asdict(facts), "times": [[json.loads(key), ms] for key, ms in times.items()],
            })  # fmt: skip
            print(f"{graph.name}, {width}: {len(times)} launches", flush=True)
            Path(args.file).write_text(json.dumps(cases))


def geometric_mean(values) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def rules_choose(case: dict) -> dict:
    """What the rules of this checkout choose for a case, as a dictionary of parameters."""
    from gnna_plugin import decider

    return decider.decide_on(case["device"], decider.Facts(**case["facts"])).parameters()


def shape_of(launch: dict) -> tuple:
    return tuple(launch.get(name) for name in SHAPE)


def time_of(case: dict, launch: dict) -> float | None:
    """The time of a launch in ms, None if nothing like it was timed."""
    measured = case["times"][0][0]  # what was chosen then
    by_split = {other["split_above"]: ms for other, ms in case["times"] if shape_of(other) == shape_of(measured)}
    same = [
        (other["split_above"], ms) for other, ms in case["times"] if shape_of(other) == shape_of(launch)
    ]
    for split, ms in same:
        if split == launch["split_above"]:
            return ms
    if not same:
        return None
    split, ms = same[0]
    if launch["kernel"] == "group":
        return ms
    return ms * at_split(by_split, launch["split_above"]) / at_split(by_split, split)


def at_split(by_split: dict[int, float], split: int) -> float:
    """The time at a threshold of split rows, interpolated in its logarithm."""
    known = sorted(by_split)
    if split <= known[0] or split >= known[-1]:
        return by_split[known[0] if split <= known[0] else known[-1]]
    place = bisect.bisect_left(known, split)
    low, high = known[place - 1], known[place]
    share = math.log(split / low) / math.log(high / low)
    return by_split[low] * (1 - share) + by_split[high] * share


def differences(chosen: dict, best: dict) -> str:
    return ", ".join(f"{name} {best[name]}" for name in best if best[name] != chosen.get(name))


def show(cases: list[dict], as_measured: bool, worst: int | None) -> None:
    judged, unknown = [], 0
    for case in cases:
        chosen = case["times"][0][0] if as_measured else rules_choose(case)
        chosen_ms = time_of(case, chosen)
        best, best_ms = min(case["times"], key=lambda timed: timed[1])
        if chosen_ms is None:
            unknown += 1
            continue
        judged.append((chosen_ms / best_ms, chosen_ms, best_ms, differences(chosen, best), case))
    table = Table(title=f"time of the chosen launch over the best's, sum on {cases[0]['gpu']}")
    headings = ("graph", "width", "bytes each", "weights", "chosen us", "best us", "regret", "the best launch has")
    for heading in headings:
        table.add_column(heading, justify="right")
    for regret, chosen_ms, best_ms, unlike, case in sorted(judged, key=lambda found: -found[0])[:worst]:
        facts = case["facts"]
        heads = facts["width"] // facts["head_dim"] if facts["weighted"] else 0
        cells = (case["graph"], facts["width"], facts["itemsize"], heads, f"{chosen_ms * 1e3:.1f}",
                 f"{best_ms * 1e3:.1f}", f"{regret:.2f}", unlike)  # fmt: skip
        table.add_row(*map(str, cells))
    console = Console(width=160)
    console.print(table)
    large = [regret for regret, _, best_ms, *_ in judged if best_ms > ABOVE_MS]
    above = f", above 10 us {geometric_mean(large):.3f}, worst {max(large):.2f}" if large else ""
    left_out = f"; {unknown} cases left out whose choice was not timed" if unknown else ""
    everywhere = geometric_mean(regret for regret, *_ in judged)
    console.print(f"geometric mean of {len(judged)} cases {everywhere:.3f}{above}{left_out}")


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
    sub.add_argument("--as-measured", action="store_true", help="judge the rules that were in force then")
    sub.add_argument("--worst", type=int, help="show so many cases; all of them go into the means")
    args = parser.parse_args()
    if args.command == "measure":
        measure(args)
    else:
        cases = [case for file in args.files for case in json.loads(Path(file).read_text())]
        show(cases, args.as_measured, args.worst)


if __name__ == "__main__":
    main()
