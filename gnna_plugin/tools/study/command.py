"""The subcommand `study`: the arguments of each figure, and the loop that measures, shows, stores and draws rows."""

from __future__ import annotations

import argparse
import importlib.util

from gnna_plugin.frameworks import FRAMEWORKS
from gnna_plugin.tools.arguments import natural, output_file, positive
from gnna_plugin.tools.compare.spec import UsageError
from gnna_plugin.tools.inputs import add_device
from gnna_plugin.tools.study.graphs import TYPES, given_sources, paper_sources

HELP = "repeat the evaluation of the GNNAdvisor paper, figure by figure"

_EPILOG = """examples:
  gnna study fig9                                        training against DGL on the paper's 15 graphs
  gnna study fig10 --types II III --plot fig10.svg       training against PyG
  gnna study group-size --plot fig11a.svg                sweep the group size on the Type III graphs (GPU)
  gnna study renumbering --graph edges.csv               effect of renumbering on your own graph
  gnna study spmm --types III --json spmm.json           one aggregation against every installed library

A graph of the paper's is the file NAME.npz in the folder GNNA_DATA if there is one, else a stand-in: a generated graph
with the published numbers of nodes and edges. Tables say which. Features and labels are random, in the paper's numbers.

Outside the paper: the launch that the decider chooses by itself is shown beside the sweeps of figures 11a and 11b. The
paper compares a single SpMM with Gunrock, whose SpMM has no Python package. cuSPARSE (torch.sparse.mm on a GPU) stands
in for it in `gnna study spmm`, and benchmarks/research.py times the research kernels GE-SpMM and RoDe."""

# Study: (alias, help, the paper's graphs if none are given).
_STUDIES = {
    "fig9": ("training-dgl", "training steps of GCN (2x16) and GIN (5x64) against DGL (figure 9)", TYPES),
    "fig10": ("training-pyg", "training steps of GCN (2x16) and GIN (5x64) against PyG (figure 10)", TYPES),
    "fig11a": ("group-size", "kernel `group` with group sizes 2 to 512, on a GPU (figure 11a)", ("III",)),
    "fig11b": ("dimension-workers", "kernel `group` with 1 to 32 dimension workers, on a GPU (figure 11b)", ("III",)),
    "fig11c": ("renumbering", "training steps with and without renumbered nodes (figure 11c)", ("III",)),
    "fig12a": ("hidden-width", "training steps over the hidden width, 16 to 1024 (figure 12a)", ("III",)),
    "spmm": ("single-spmm", "one SpMM against every installed library, in place of Gunrock", ("III",)),
}
_MODELS = {"fig9": ["gcn", "gin"], "fig10": ["gcn", "gin"], "fig11c": ["gin"], "fig12a": ["gcn"]}
_HIDDEN = [16, 32, 64, 128, 256, 512, 1024]
_PARAMETERS = {"fig11a": "group_size", "fig11b": "lanes"}
_PLOT_SUFFIXES = (".svg", ".png")


def add_arguments(parser):
    """Add the arguments to an argparse parser."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EPILOG
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    for name, (alias, text, types) in _STUDIES.items():
        description = text[0].upper() + text[1:] + "."
        sub = studies.add_parser(name, aliases=[alias], help=f"{text}; also: {alias}", description=description)
        sub.set_defaults(study=name)
        _add_common(sub, types)
        if name in _MODELS:
            help_text = f"models to train (default: {' '.join(_MODELS[name])})"
            sub.add_argument("--models", nargs="+", choices=("gcn", "gin"), default=_MODELS[name], help=help_text)
        if name in ("fig11c", "fig12a"):
            sub.add_argument("--framework", choices=sorted(FRAMEWORKS), default="pyg", help="default: %(default)s")
        if name == "fig12a":
            help_text = "hidden widths (default: 16 32 64 128 256 512 1024)"
            sub.add_argument("--hidden", nargs="+", type=positive, default=_HIDDEN, metavar="D", help=help_text)
        if name in _PARAMETERS or name == "spmm":
            help_text = "features per node (default: 16, the hidden width of the paper's GCN)"
            sub.add_argument("--widths", nargs="+", type=positive, default=[16], metavar="D", help=help_text)
        if name == "spmm":
            help_text = "libraries to time beside the plug-in, by their names in the table (default: all)"
            sub.add_argument("--peers", nargs="+", metavar="P", help=help_text)


def _add_common(parser, types):
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group()
    help_text = f"types of the paper's graphs (default: {' '.join(types)})"
    which.add_argument("--types", nargs="+", choices=TYPES, default=list(types), help=help_text)
    help_text = "graphs instead of types: names of the paper's, or forms that `gnna compare --help` lists"
    which.add_argument("--graph", nargs="+", metavar="G", help=help_text)
    add("--seed", type=natural, default=0, help="seed of generated graphs, features and weights (default: 0)")
    help_text = "run one thread and take its CPU time, for a busy machine; needs a CPU and OMP_NUM_THREADS=1"
    add("--cpu-time", action="store_true", help=help_text)
    add_device(parser)
    help_text = "rounds of timing, of which the median counts (default: %(default)s)"
    add("--rounds", type=positive, default=5, help=help_text)
    add("--json", type=output_file, metavar="FILE", help="write rows, versions and the command to FILE, as JSON")
    add("--csv", type=output_file, metavar="FILE", help="write the rows to FILE, as CSV")
    add("--plot", type=plot_file, metavar="FILE", help="draw the figure into FILE (.svg or .png; needs matplotlib)")


def plot_file(text):
    """Return the path of a plot that can be written, for argparse."""
    if not text.lower().endswith(_PLOT_SUFFIXES):
        raise argparse.ArgumentTypeError(f"{text}: plots end in {' or '.join(_PLOT_SUFFIXES)}")
    return output_file(text)


def run(args):
    """Measure, show, store and draw a study, and return the exit status: 1 if no case could be measured, else 0.

    Raises:
        UsageError, WorkerError: see gnna_plugin.tools.compare.spec.
    """
    from rich.console import Console

    from gnna_plugin.tools.bench import show
    from gnna_plugin.tools.inputs import command_line, prepare_device
    from gnna_plugin.tools.progress import bar_of

    if args.plot and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed here: pip install matplotlib")
    if args.study in _PARAMETERS:
        _check_gpu(args)
    console = Console()
    device = prepare_device(args, console)
    framework = {"fig9": "dgl", "fig10": "pyg"}.get(args.study, getattr(args, "framework", None))
    if framework:
        _check_framework(args.study, framework, device)
    sources = given_sources(args.graph, args.seed) if args.graph else paper_sources(args.types)
    result = {"kind": args.study, "about": show.about(device, command_line()), "rows": [], "left_out": {}}
    try:
        with bar_of(console, _count(args, sources)) as advance:
            for rows, left_out in _measure(args, sources, framework, device, advance):
                result["rows"] += rows
                result["left_out"].update(left_out)
                show.store(result, args.json, args.csv)  # after every case, so that an interruption loses only one
    finally:
        _show(args, result, framework, console)
    timed = args.study in _PARAMETERS or args.study == "spmm" or any("speedup" in row for row in result["rows"])
    return 0 if timed else 1


def _check_gpu(args):
    from gnna_plugin.tools.compare import runner

    name, remark = runner.choose_device(args.device)
    if name != "cuda":
        why = remark or "--device is cpu"
        raise UsageError(f"{args.study} sweeps a launch parameter that only CUDA kernels have, and needs a GPU ({why})")


def _check_framework(study, framework, device):
    import numpy as np

    from gnna_plugin.data.graph import first_line
    from gnna_plugin.tools.bench import peers

    label = FRAMEWORKS[framework].label
    module = peers.adapter(framework)
    if isinstance(module, str):
        raise UsageError(f"{study} compares with {label}, which cannot be imported here: {first_line(module)}")
    try:
        one = np.zeros(1, np.int64)
        next(iter(module.STRUCTURES.values()))(one, one, 1, device, "gcn")
    except Exception as error:
        raise UsageError(
            f"{study} compares with {label}, which cannot use {device} here ({first_line(error)}); "
            "--device cpu measures on the CPU"
        ) from error


def _count(args, sources):
    """Return the number of cases of a study."""
    return len(sources) * len(getattr(args, "models", "1")) * len(getattr(args, "widths", getattr(args, "hidden", "1")))


def _measure(args, sources, framework, device, advance):
    """Yield (rows, {what: why it could not be measured}) of one case after another."""
    from gnna_plugin.tools.study import launches, spmm, training

    if args.study in _PARAMETERS:
        for rows in launches.sweeps(sources, _PARAMETERS[args.study], device, args, advance):
            yield rows, {}
        return
    if args.study == "spmm":
        for rows, left_out in spmm.tables(sources, device, args, advance):
            _check_peers(args.peers or (), {row["peer"] for row in rows}, left_out)
            where = f"{rows[0]['graph']}, width {rows[0]['width']}"
            yield rows, {f"{where}: {peer}": why for peer, why in left_out.items()}
        return
    if args.study == "fig11c":
        found = training.renumberings(sources, framework, device, args, advance)
    else:
        hiddens = getattr(args, "hidden", (None,))
        found = training.epochs(sources, framework, hiddens, device, args, advance)
    for row, reason in found:
        what = f"{row['graph']}, {row['model']} {row['layers']}x{row['hidden']}"
        yield [row], {} if reason is None else {what: reason}


def _check_peers(wanted, found, left_out):
    """Raise UsageError if a library of ``wanted`` neither gave a row (``found``) nor said why not (``left_out``)."""
    unknown = [name for name in wanted if name not in found and name not in left_out]
    if unknown:
        raise UsageError(f"no library {unknown[0]!r} for this operation here; `--peers` left out times all of them")


def _show(args, result, framework, console):
    from gnna_plugin.tools.study import plot, tables

    rows = result["rows"]
    if not rows:
        return
    title = _STUDIES[args.study][1]
    title = title[0].upper() + title[1:]
    if args.study in _PARAMETERS:
        table, caption = tables.sweep_table(rows)
    elif args.study == "spmm":
        table, caption = tables.spmm_table(rows)
    elif args.study == "fig11c":
        table, caption = tables.renumbering_table(rows)
    else:
        table, caption = tables.training_table(rows, framework)
    console.print(f"[bold]{title}[/bold]", highlight=False)
    console.print(table)
    console.print(caption, style="dim", highlight=False)
    for what, why in result["left_out"].items():
        console.print(f"  {what}: {why}", style="dim", highlight=False)
    if warning := tables.busy_line(rows):
        console.print(f"  {warning}", style="yellow")
    if args.plot:
        label = FRAMEWORKS[framework].label if framework else ""
        if args.study in _PARAMETERS:
            plot.sweep_lines(args.plot, rows, title)
        elif args.study == "fig12a":
            plot.hidden_lines(args.plot, rows, title, label)
        elif args.study == "spmm":
            plot.spmm_bars(args.plot, rows, title)
        else:
            plot.bars(args.plot, rows, title, "speed-up" + (f" over {label}" if args.study != "fig11c" else ""))
