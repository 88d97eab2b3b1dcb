"""The subcommand `bench`: its measurements' arguments, and the loop over graphs and cases that shows and stores rows.

This file owns the command line only; each measurement is a module of this package.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from gnna_plugin.tools.compare.command import command_line, load_graphs
from gnna_plugin.tools.compare.spec import UsageError

HELP = "time the kernels, layers and plans beside every installed peer"

_EPILOG = """examples:
  gnna bench spmm --graph community --widths 16 64
  gnna bench sddmm --graph edges.csv --backward --json sddmm.json
  gnna bench epoch --graph com-dblp --models gcn sage --shapes 2x16 3x256+norm
  gnna bench host
  gnna bench page spmm.json epoch.json --output docs/benchmarks.md

Every timed result is compared with float64 first. Times are medians; the floors beside them are what the machine's
memory, measured in the same run, allows."""

_KERNELS = {
    "spmm": "reduce neighbours' features",
    "segment": "reduce messages that exist",
    "sddmm": "dot products of both ends of every edge",
}


def add_arguments(parser):
    """Add the arguments to an argparse parser."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EPILOG
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="MEASUREMENT")
    for kind, text in _KERNELS.items():
        sub = _measurement(kinds, kind, text, graphs=True)
        sub.add_argument("--widths", nargs="+", type=int, default=[16, 64, 128], metavar="D", help="features per node")
        sub.add_argument("--heads", type=int, default=1, help="divide the width into heads (%(default)s)")
        sub.add_argument("--backward", action="store_true", help="the gradient instead of the result")
        sub.add_argument("--dtype", default="float32", choices=("float32", "float64", "float16", "bfloat16"))
        if kind != "sddmm":
            sub.add_argument("--reduce", default="sum", choices=("sum", "mean", "max", "min"))
        if kind == "spmm":
            sub.add_argument("--weight", default="none", choices=("none", "static", "learned"), help="one per edge")
    epoch = _measurement(kinds, "epoch", "train models, a step at a time", graphs=True)
    epoch.add_argument("--models", nargs="+", default=["gcn", "gin"], choices=("gcn", "gin", "sage", "gat"))
    epoch.add_argument(
        "--shapes",
        nargs="+",
        default=["2x16", "5x64", "3x256+norm"],
        metavar="S",
        help="LAYERSxHIDDEN, +norm for BatchNorm and dropout 0.5 (2x16 5x64 3x256+norm)",
    )
    epoch.add_argument("--dim", type=int, default=96, help="random features per node (%(default)s)")
    epoch.add_argument("--classes", type=int, default=22, help="random classes (%(default)s)")
    epoch.add_argument(
        "--split", action="store_true", help="divide the gain over PyG into allocator, memo, fused gather and kernel"
    )
    _measurement(kinds, "plan", "build the forward and the transposed plan, and find them again", graphs=True)
    _measurement(kinds, "host", "host time of calls on a graph too small to matter", graphs=False)
    page = kinds.add_parser("page", help="write a Markdown page from stored JSON files")
    page.add_argument("files", nargs="+", metavar="JSON")
    page.add_argument("--output", required=True, metavar="FILE")


def _measurement(kinds, name, text, graphs):
    sub = kinds.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    add = sub.add_argument
    if graphs:
        add("--graph", nargs="+", required=True, metavar="G", help="as for `gnna compare`")
        add("--seed", type=int, default=0, help="of generated graphs (0)")
        if name != "plan":
            help_text = "one thread, by the CPU time it takes: for a machine that others use (with OMP_NUM_THREADS=1)"
            add("--cpu-time", action="store_true", help=help_text)
            add("--peers", nargs="+", metavar="P", help="only these peers, by the names that the table shows")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda where it can be used")
    add("--threads", type=int, help="CPU threads; default: torch's own choice")
    add("--rounds", type=int, default=7, help="samples per time (%(default)s)")
    add("--json", metavar="FILE", help="write rows, versions and the command as JSON")
    add("--csv", metavar="FILE", help="write the rows as CSV")
    return sub


def run(args):
    """Measure, show and store; returns the exit status 0. Raises UsageError and WorkerError."""
    if args.kind == "page":
        from gnna_plugin.tools.bench import page

        return page.run(args)
    import torch
    from rich.console import Console

    from gnna_plugin.tools.bench import show
    from gnna_plugin.tools.compare import runner

    console = Console()
    for path in filter(None, (args.json, args.csv)):
        if not Path(path).resolve().parent.is_dir():
            raise UsageError(f"{path}: the folder does not exist")
    name, remark = runner.choose_device(args.device)
    if remark:
        console.print(remark, style="dim")
    if getattr(args, "cpu_time", False):
        if name != "cpu" or args.threads not in (None, 1) or os.environ.get("OMP_NUM_THREADS") != "1":
            raise UsageError("--cpu-time needs one thread of a CPU: set OMP_NUM_THREADS=1, and --device cpu")
        args.threads = 1
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)
    graphs = load_graphs(args.graph, args.seed) if "graph" in args else [None]
    result = {"kind": args.kind, "about": show.about(device, command_line()), "rows": [], "left_out": {}}
    for rows, left_out in _cases(args, graphs, device):
        result["rows"] += rows
        result["left_out"].update({f"{show.title(rows[0])}: {peer}": why for peer, why in left_out.items()})
        console.print(show.case_table(rows))
        for peer, why in left_out.items():
            console.print(f"  {peer}: {why}", style="dim", highlight=False)
        if (taken := rows[0].get("missing_cores") or 0) > 0.1:
            console.print(f"  other processes took {taken:.1f} cores: do not rely on these times", style="yellow")
        console.print()
        show.store(result, args.json, args.csv)  # after every case: an interruption loses only the one under way
    return 0


def _cases(args, graphs, device):
    """(rows, {peer: reason}) of one case after another."""
    from gnna_plugin.tools.bench.timing import Rounds

    rounds = Rounds(args.rounds, spare=args.rounds, cpu_time=getattr(args, "cpu_time", False))
    if args.kind in _KERNELS:
        yield from _kernel_cases(args, graphs, device, rounds)
    elif args.kind == "epoch":
        from gnna_plugin.tools.bench import epoch

        yield from epoch.cases(args, graphs, device)
    elif args.kind == "plan":
        from gnna_plugin.tools.bench import plan

        for graph in graphs:
            yield plan.measure(graph, device, rounds)
    else:
        from gnna_plugin.tools.bench import host

        yield from host.cases(device, rounds)


def _kernel_cases(args, graphs, device, rounds):
    import torch

    from gnna_plugin import allocator
    from gnna_plugin.data.problem import Problem
    from gnna_plugin.tools.bench import kernels

    allocator.keep_freed_memory()  # for every peer alike, so that no one is charged for page faults
    direction = "backward" if args.backward else "forward"
    for graph in graphs:
        src, dst = torch.from_numpy(graph.src).to(device), torch.from_numpy(graph.dst).to(device)
        for width in args.widths:
            if width < 1 or args.heads < 1 or width % args.heads:
                raise UsageError(f"a width of {width} cannot be divided into {args.heads} heads")
            problem = Problem(
                args.kind,
                src,
                dst,
                graph.num_nodes,
                width,
                getattr(args, "reduce", "sum"),
                getattr(args, "weight", "none"),
                args.heads,
                getattr(torch, args.dtype),
            )
            rows, left_out = kernels.measure(problem, direction, args.peers, rounds)
            facts = {
                "graph": graph.name,
                "nodes": graph.num_nodes,
                "edges": graph.num_edges,
                "operation": args.kind,
                "direction": direction,
                "width": width,
                "reduce": problem.reduce,
                "weight": problem.weight,
                "heads": args.heads,
                "dtype": args.dtype,
            }
            yield [{**facts, **row} for row in rows], left_out
