"""The subcommand `verify`: checks the ops on the user's graph and device, and shows a verdict per case."""

from __future__ import annotations

import argparse
import secrets
from dataclasses import asdict

from gnna_plugin.tools.arguments import natural, output_file, positive
from gnna_plugin.tools.inputs import add_config, add_device, load_graphs
from gnna_plugin.tools.renumbering import add_renumber

HELP = "check results and gradients on your graph against float64"

_EPILOG = """examples:
  gnna verify --graph edges.csv
  gnna verify --graph cora --widths 16 33 --reduce sum mean --dtype bfloat16
  gnna verify --graph edges.csv --device cuda --config group_size=32,lanes=16

SpMM and its gradients with respect to features and edge weights, and the softmax over the edges of every node and its
gradient, run on fresh random inputs. torch computes the expected results in float64 from the plain list of edges. An
error is relative to the sum of the absolute values of the terms of a sum. Its tolerance is (4 + 8 sqrt(n)) u for n
terms, so it is largest for the longest row; u is 6e-8 for float32. Independent rounding errors exceed it with a
probability below 1e-13 per element. The table shows the element that is closest to its tolerance. The exit status is 1
if any result is wrong."""

_DTYPES = ("float32", "float64", "float16", "bfloat16")


def add_arguments(parser):
    """Add the arguments to an argparse parser."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EPILOG
    add = parser.add_argument
    help_text = "graph files or names; `gnna compare --help` lists the forms"
    add("--graph", nargs="+", required=True, metavar="G", help=help_text)
    help_text = "features per node (default: 16 33)"
    add("--widths", nargs="+", type=positive, default=[16, 33], metavar="D", help=help_text)
    reduces = ("sum", "mean", "max", "min")
    add("--reduce", nargs="+", choices=reduces, default=list(reduces), help="reductions (default: all)")
    add("--dtype", default="float32", choices=_DTYPES, help="dtype of the inputs (default: %(default)s)")
    add_device(parser)
    add("--seed", type=natural, help="seed of the inputs, to repeat a run (default: a new one, which is shown)")
    add_config(parser)
    add_renumber(parser)
    add("--json", type=output_file, metavar="FILE", help="write verdicts, versions and the command to FILE, as JSON")


def run(args):
    """Check all cases and show the verdicts.

    Returns:
        The exit status: 0, or 1 if a result is wrong.

    Raises:
        UsageError: see gnna_plugin.tools.compare.spec.
    """
    import torch
    from rich.console import Console

    from gnna_plugin.decider import overrides_of
    from gnna_plugin.tools.bench import show
    from gnna_plugin.tools.inputs import command_line, prepare_device
    from gnna_plugin.tools.progress import bar_of

    console = Console()
    device = prepare_device(args, console)
    graphs = load_graphs(args.graph, 0, args.renumber)
    seed = secrets.randbelow(1 << 31) if args.seed is None else args.seed
    result = {"kind": "verify", "about": show.about(device, command_line()), "seed": seed, "rows": [], "left_out": {}}
    steps = len(graphs) * (1 + 2 * len(args.widths) * len(args.reduce))
    torch.ops.gnna.set_overrides(overrides_of(args.config))
    try:
        with bar_of(console, steps) as advance:
            for graph in graphs:
                result["rows"] += _verdicts(graph, args, device, seed, advance)
    finally:
        torch.ops.gnna.set_overrides(overrides_of(None))
    for graph in graphs:
        console.print(_table(graph, [row for row in result["rows"] if row["graph"] == graph.name]))
    show.store(result, args.json, None)
    wrong = sum(not row["right"] for row in result["rows"])
    console.print(_summary(len(result["rows"]), wrong, args, seed, device), highlight=False)
    return 1 if wrong else 0


def _verdicts(graph, args, device, seed, advance):
    """Return a row for every verdict on a graph."""
    import torch

    from gnna_plugin.tools.verify import cases
    from gnna_plugin.tools.verify.reference import Edges

    generator = torch.Generator(device).manual_seed(seed)
    edges = Edges(
        torch.from_numpy(graph.src).to(device), torch.from_numpy(graph.dst).to(device), graph.num_nodes
    )
    dtype = getattr(torch, args.dtype)
    found = []
    for width in args.widths:
        advance(f"{graph.name}, width {width}", 0)
        for verdicts in cases.spmm_cases(edges, width, args.reduce, dtype, generator):
            found += verdicts
            advance("", 1)
    advance(f"{graph.name}, softmax", 0)
    found += cases.softmax_cases(edges, dtype, generator)
    advance("", 1)
    facts = {"graph": graph.name, "nodes": graph.num_nodes, "edges": graph.num_edges, "dtype": args.dtype}
    return [{**facts, **asdict(verdict), "right": verdict.right} for verdict in found]


def _table(graph, rows):
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    title = f"{escape(graph.name)}, {graph.num_nodes:,} nodes, {graph.num_edges:,} edges, {rows[0]['dtype']}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("case", "weights", "width", "error", "tolerance", ""):
        left = heading in ("case", "weights", "")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        case = f"{row['operation']} {row['reduce']}".strip() + f", {row['part']}"
        weights = "" if row["operation"] == "softmax" else "per edge" if row["weighted"] else "none"
        width = f"{row['width']} heads" if row["operation"] == "softmax" else str(row["width"])
        verdict = "right" if row["right"] else "[bold red]WRONG[/bold red]"
        table.add_row(case, weights, width, f"{row['error']:.1e}", f"{row['tolerance']:.1e}", verdict)
    return table


def _summary(count, wrong, args, seed, device):
    repeat = f"--seed {seed} repeats these inputs"
    if wrong:
        return f"[bold red]{wrong} of {count} results are wrong[/bold red] on {device.type}; please report it; {repeat}"
    return f"all {count} results agree with float64 within the rounding of {args.dtype}; {repeat}"
