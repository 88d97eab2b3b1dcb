"""The subcommand `compare`: its arguments, the check of everything before the first minute is spent, and its output.

This file owns the command line of a comparison; measuring is the runner's and showing the report's.
"""

import argparse
import contextlib
import shlex
import sys
from pathlib import Path

from gnna_plugin.tools.compare.spec import CHOICES, LABELS, MODEL_DEFAULTS, Case, UsageError

HELP = "train a model with and without the plug-in, side by side"

_EPILOG = """examples:
  gnna compare --graph community
  gnna compare --model gin --graph edges.csv --epochs 20
  GNNA_DATA=/data/graphs gnna compare --model gcn --graph cora pubmed --json results.json
  gnna compare --framework both --model gin --graph com-dblp
  gnna compare --graph community:20000x400000 --dim 128 --hidden 64 --layers 3 --device cuda

Each of the plain framework, the accelerated one and (on the CPU) the plain one with the same setting of the C
allocator trains in a process of its own, from the same seeds and weights."""


def add_arguments(parser):
    """Add the arguments to an argparse parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--graph", nargs="+", required=True, metavar="G",
        help="a .npz graph, a .mtx matrix, a .txt/.tsv/.csv edge list, a name in the folder GNNA_DATA, a data set to "
             "download (planetoid:Cora, tu:DD, reddit, suitesparse:SNAP/amazon0601, ogb:ogbn-arxiv), 'standin:NAME' "
             "(generated, of the published size of NAME, such as amazon0601), 'community' (generated, 100,000 nodes "
             "and 1.5 million edges) or 'community:NODESxEDGES'")
    add("--framework", choices=sorted(CHOICES), default="pyg",
        help="default: %(default)s; both: PyG, DGL and the plug-in in each, in one table")
    add("--model", choices=("gcn", "gin"), default="gcn", help="default: %(default)s")
    add("--layers", type=_positive, help=f"default: {_default(0)}")
    add("--hidden", type=_positive, help=f"hidden width; default: {_default(1)}")
    add("--dim", type=_positive, default=96, help="random features per node where the graph has none (%(default)s)")
    add("--classes", type=_positive, default=22, help="random classes where the graph has no labels (%(default)s)")
    add("--synthetic", action="store_true", help="use --dim and --classes even where the graph has its own")
    add("--epochs", type=_positive, default=50, help="default: %(default)s, the first few to warm up")
    add("--seed", type=_natural, default=0, help="of weights, dropout, random features and generated graphs (0)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda where it can be used")
    add("--threads", type=_positive, help="CPU threads; default: torch's own choice")
    add_config(parser)
    add("--json", metavar="FILE", help="write the rows, decisions and versions as JSON")
    add("--csv", metavar="FILE", help="write the rows as CSV")


def run(args):
    """Run the comparison; returns the exit status 0. Raises UsageError and WorkerError."""
    from rich.console import Console

    from gnna_plugin.tools.compare import report, runner

    console = Console()
    frameworks = CHOICES[args.framework]
    for framework in frameworks:
        runner.check_framework(framework)
    device, remark = runner.choose_device(args.device)
    graphs = load_graphs(args.graph, args.seed)
    for path in filter(None, (args.json, args.csv)):
        if not Path(path).resolve().parent.is_dir():
            raise UsageError(f"{path}: the folder does not exist")
    if remark:
        console.print(remark, style="dim")

    results = []
    try:
        for graph in graphs:
            for framework in frameworks:
                with progress(console) as on_progress:
                    results += runner.measure_cases([(graph, _case(graph, args, framework))], device=device,
                                                    threads=args.threads, command=command_line(),
                                                    on_progress=on_progress)
            # Written after every graph: a failure or an interruption in the last one loses only that one.
            if args.json:
                report.write_json(results, args.json)
            if args.csv:
                report.write_csv(results, args.csv)
    finally:
        if results:
            names = " and ".join(LABELS[framework] for framework in frameworks)
            title = f"{names}, {report.model_summary(_case(graphs[0], args, frameworks[0]))}, {device}"
            table = report.comparison_table if len(frameworks) == 1 else report.frameworks_table
            console.print(table(results, title=title))
            for framework in frameworks:
                mine = [result for result in results if result.row["framework"] == framework]
                if mine and len(frameworks) > 1:
                    console.print(f"[bold]in {LABELS[framework]}[/bold]")
                for lines in (report.noise_lines, report.proof_lines, report.decision_lines) if mine else ():
                    console.print("\n".join(lines(mine)), highlight=False)
    return 0


def _case(graph, args, framework):
    return Case(graph=graph.name, model=args.model, framework=framework, layers=args.layers, hidden=args.hidden,
                dim=args.dim, classes=args.classes, epochs=args.epochs, seed=args.seed, synthetic=args.synthetic,
                config=args.config)


def load_graphs(sources, seed):
    """Load every graph before any is measured; what is wrong with one is raised as a UsageError of one sentence."""
    from gnna_plugin.data import load_graph

    try:
        return [load_graph(source, seed=seed) for source in sources]
    except (ValueError, OSError, ImportError, MemoryError) as error:
        raise UsageError(str(error) or f"not enough memory for {' '.join(sources)}") from error


def command_line():
    """The command that is running, to be stored beside its numbers."""
    return shlex.join(["python", "-m", "gnna_plugin", *sys.argv[1:]])


@contextlib.contextmanager
def progress(console):
    """A live progress line; yields the function that the runner tells of its progress."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def on_progress(arm, event):
            case = event["case"]
            what = f"{case['graph']} {case['model']}, {arm}: {event['phase']}"
            bar.update(task, description=what, completed=event["done"], total=event["total"] or None)

        yield on_progress


def add_config(parser):
    """Add --config, the decider's parameters fixed by hand."""
    parser.add_argument("--config", type=_config, metavar="NAME=N,...",
                        help="parameters of CUDA launches that the decider would choose: ngs, dw, warps_per_block (the "
                             "paper's), kernel (rows or groups), groups, vector_width, vectors, long_row, item_edges")


def _config(text):
    from gnna_plugin.decider import parse_config

    try:
        return parse_config(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _default(position):
    return ", ".join(f"{MODEL_DEFAULTS[name][position]} for {name}" for name in ("gcn", "gin"))


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _natural(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value
