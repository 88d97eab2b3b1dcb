"""The subcommand `bench`: the arguments of its measurements, and the loop over cases that shows and stores rows.

Each measurement is a module of this package.
"""

from __future__ import annotations

import argparse

from gnna_plugin.tools.arguments import natural, output_file, positive
from gnna_plugin.tools.compare.spec import UsageError
from gnna_plugin.tools.inputs import add_config, add_device, command_line, load_graphs, prepare_device
from gnna_plugin.tools.progress import progress
from gnna_plugin.tools.renumbering import add_renumber

HELP = "time kernels, training steps and plans against every installed library"

_EPILOG = """examples:
  gnna bench spmm --graph community --widths 16 64
  gnna bench sddmm --graph edges.csv --backward --json sddmm.json
  gnna bench epoch --graph com-dblp --models gcn sage --shapes 2x16 3x256+norm
  gnna bench host
  gnna bench page spmm.json epoch.json --output docs/benchmarks.md

Results of kernels and models are compared with float64 before they are timed. Times are medians. The floors that some
tables show are the times that moving the data takes at the rate of this machine's memory, measured in the same run."""

_KERNELS = {
    "spmm": "time SpMM, which reduces the features of every node's neighbours",
    "segment": "time segment reductions, which reduce given messages by their destination",
    "sddmm": "time SDDMM, the dot products of the features at both ends of every edge",
}


def add_arguments(parser):
    """Add the arguments to an argparse parser."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EPILOG
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="MEASUREMENT")
    for kind, text in _KERNELS.items():
        sub = _measurement(kinds, kind, text, graphs=True)
        help_text = "features per node (default: 16 64 128)"
        sub.add_argument("--widths", nargs="+", type=positive, default=[16, 64, 128], metavar="D", help=help_text)
        sub.add_argument("--heads", type=positive, default=1, help="heads that share the width (default: %(default)s)")
        sub.add_argument("--backward", action="store_true", help="time the backward instead of the forward pass")
        help_text = "dtype of the features (default: %(default)s)"
        sub.add_argument(
            "--dtype", default="float32", choices=("float32", "float64", "float16", "bfloat16"), help=help_text
        )
        if kind != "sddmm":
            sub.add_argument("--reduce", default="sum", choices=("sum", "mean", "max", "min"), help="default: sum")
        if kind == "spmm":
            help_text = "edge weights: none, without gradient (static) or with gradient (learned); default: %(default)s"
            sub.add_argument("--weight", default="none", choices=("none", "static", "learned"), help=help_text)
            add_config(sub)
    epoch = _measurement(kinds, "epoch", "time training steps of whole models", graphs=True)
    help_text = "models to train (default: gcn gin)"
    epoch.add_argument(
        "--models", nargs="+", default=["gcn", "gin"], choices=("gcn", "gin", "sage", "gat"), help=help_text
    )
    epoch.add_argument(
        "--shapes",
        nargs="+",
        default=["2x16", "5x64", "3x256+norm"],
        metavar="S",
        help="LAYERSxHIDDEN, with +norm for BatchNorm and dropout 0.5 (default: 2x16 5x64 3x256+norm)",
    )
    epoch.add_argument("--dim", type=positive, default=96, help="random features per node (default: %(default)s)")
    epoch.add_argument("--classes", type=positive, default=22, help="random classes (default: %(default)s)")
    epoch.add_argument(
        "--split",
        action="store_true",
        help="also time the steps from PyG to the plug-in: allocator, cached gcn_norm, fused gather, kernel",
    )
    _measurement(kinds, "plan", "time building the plans of a graph, and finding one in the cache", graphs=True)
    _measurement(kinds, "host", "time calls on a graph so small that only the host's work counts", graphs=False)
    page = kinds.add_parser("page", help="write a Markdown page from stored JSON files")
    page.add_argument("files", nargs="+", metavar="JSON", help="files that `gnna bench ... --json` wrote")
    page.add_argument("--output", type=output_file, required=True, metavar="FILE", help="the Markdown file to write")


def _measurement(kinds, name, text, graphs):
    sub = kinds.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    add = sub.add_argument
    if graphs:
        help_text = "graph files or names; `gnna compare --help` lists the forms"
        add("--graph", nargs="+", required=True, metavar="G", help=help_text)
        add_renumber(sub)
        help_text = "seed of generated graphs, and of the models of `epoch` (default: 0)"
        add("--seed", type=natural, default=0, help=help_text)
        if name != "plan":
            help_text = "run one thread and take its CPU time, for a busy machine; needs a CPU and OMP_NUM_THREADS=1"
            add("--cpu-time", action="store_true", help=help_text)
            help_text = "libraries to time beside the plug-in, by their names in the table (default: all)"
            add("--peers", nargs="+", metavar="P", help=help_text)
    add_device(sub)
    help_text = "rounds of timing, of which the median counts (default: %(default)s)"
    add("--rounds", type=positive, default=7, help=help_text)
    add("--json", type=output_file, metavar="FILE", help="write rows, versions and the command to FILE, as JSON")
    add("--csv", type=output_file, metavar="FILE", help="write the rows to FILE, as CSV")
    return sub


def run(args):
    """Measure, show and store rows, and return the exit status 0.

    Raises:
        UsageError, WorkerError: see gnna_plugin.tools.compare.spec.
    """
    if args.kind == "page":
        from gnna_plugin.tools.bench import page

        return page.run(args)
    from rich.console import Console

    from gnna_plugin.tools.bench import show

    console = Console()
    device = prepare_device(args, console)
    graphs = load_graphs(args.graph, args.seed, args.renumber) if "graph" in args else [None]
    result = {"kind": args.kind, "about": show.about(device, command_line()), "rows": [], "left_out": {}}
    missing = dict.fromkeys(getattr(args, "peers", None) or ())
    total, done = _number_of_cases(args, graphs), 0
    with progress(console) as on_progress:
        on_progress("measuring", done, total)
        for rows, left_out in _cases(args, graphs, device):
            here = {row.get("peer") for row in rows} | set(left_out)
            for peer in set(missing) & here:
                del missing[peer]
            result["rows"] += rows
            result["left_out"].update({f"{show.title(rows[0])}: {peer}": why for peer, why in left_out.items()})
            console.print(show.case_table(rows))
            for peer, why in left_out.items():
                console.print(f"  {peer}: {why}", style="dim", highlight=False)
            if (taken := rows[0].get("missing_cores") or 0) > 0.1:
                console.print(f"  other processes took {taken:.1f} cores: do not rely on these times", style="yellow")
            for peer in missing:
                console.print(f"  {peer}: no library of this name in this case", style="yellow", highlight=False)
            console.print()
            show.store(result, args.json, args.csv)  # after every case, so that an interruption loses only one
            done += 1
            on_progress("measuring", done, total)
    if missing:
        raise UsageError(f"no library {next(iter(missing))!r} for any of the cases; without --peers, all are timed")
    return 0


def _number_of_cases(args, graphs):
    """Return the number of cases, or 0 if it is not known."""
    if args.kind in _KERNELS:
        return len(graphs) * len(args.widths)
    if args.kind == "epoch":
        return len(graphs) * len(args.models) * len(args.shapes)
    return len(graphs) if args.kind == "plan" else 0


def _cases(args, graphs, device):
    """Yield (rows, {peer: reason}) of one case after another."""
    import torch

    from gnna_plugin.decider import overrides_of
    from gnna_plugin.tools.bench.timing import Rounds

    rounds = Rounds(args.rounds, spare=args.rounds, cpu_time=getattr(args, "cpu_time", False))
    if args.kind in _KERNELS:
        torch.ops.gnna.set_overrides(overrides_of(getattr(args, "config", None)))
        try:
            yield from _kernel_cases(args, graphs, device, rounds)
        finally:
            torch.ops.gnna.set_overrides(overrides_of(None))
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

    allocator.keep_freed_memory()  # for all peers, so that page faults are in no one's time
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
