"""The subcommand `compare`: its arguments, the checks before anything is measured, and the order of its output.

runner.py measures, and report.py formats the results.
"""

import argparse
import shlex

from gnna_plugin.tools.arguments import natural, output_file, positive
from gnna_plugin.tools.compare import against
from gnna_plugin.tools.compare.spec import CHOICES, LABELS, MODEL_DEFAULTS, Case, UsageError
from gnna_plugin.tools.inputs import add_config, add_device, command_line, load_graphs
from gnna_plugin.tools.progress import progress
from gnna_plugin.tools.renumbering import add_renumber
from gnna_plugin.tools.script import program

HELP = "run your script, or a built-in model on a graph, with and without the plug-in, side by side"

_EPILOG = """examples:
  gnna compare train.py --epochs 20                    your own script, unchanged
  gnna compare --html report.html train.py --epochs 20      and a page with plots
  gnna compare --rounds 3 -m package.train                  a module, three runs of each
  gnna compare --graph community
  gnna compare --model gin --graph edges.csv --epochs 20
  GNNA_DATA=/data/graphs gnna compare --model gcn --graph cora pubmed --json results.json
  gnna compare --framework both --model gin --graph com-dblp
  gnna compare --graph community:20000x400000 --dim 128 --hidden 64 --layers 3 --device cuda

A script runs in turn without and with the plug-in, each time in its own process. Its steps are those of its optimizers.
Options of `gnna compare` come before the script's name, and what follows it are the script's own arguments.

A built-in model (--graph) is trained in separate processes from the same seeds and weights: by the plain framework,
with the plug-in, and on a CPU also by the plain framework with the plug-in's setting of the C allocator."""


def add_arguments(parser):
    """Add the arguments to an argparse parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    parser.usage = ("gnna compare [options] (SCRIPT | -m MODULE | -c CODE) [arguments of the script]\n"
                    "       gnna compare [options] --graph G [G ...]")
    add("--rounds", type=positive, default=1, help="of a script: runs of each kind (default: %(default)s)")
    add("--allocator", action="store_true",
        help="of a script: run it without the plug-in, but with its setting of the C allocator, too")
    add("--seconds", type=positive, metavar="N",
        help="of a script: end each run after a step, N seconds after its first step")
    add("--html", type=output_file, metavar="FILE", help="of a script: write a page with plots to FILE")
    add("--graph", nargs="+", metavar="G",
        help="train a built-in model on one or more graphs, each a .npz graph, a .mtx matrix, a .txt/.tsv/.csv edge "
             "list, a name in the folder GNNA_DATA, a data set to download (planetoid:Cora, tu:DD, reddit, "
             "suitesparse:SNAP/amazon0601, ogb:ogbn-arxiv), 'standin:NAME' (generated, with the published size of "
             "NAME, such as amazon0601), 'community' (generated, 100,000 nodes and 1.5 million edges) or "
             "'community:NODESxEDGES'")
    add("--framework", choices=sorted(CHOICES), default="pyg",
        help="framework to train in; both: PyG and DGL, each with and without the plug-in (default: %(default)s)")
    add("--against", type=against.paths, metavar="PATH,...",
        help="with --graph: train on the frameworks' own best paths too, and split the gain over PyG into its parts: "
             f"any of {', '.join(against.PATHS)} (PyG's defaults, cached normalisation, torch.sparse, EdgeIndex, "
             "torch.compile, DGL)")
    add("--model", choices=("gcn", "gin"), default="gcn", help="model to train (default: %(default)s)")
    add("--layers", type=positive, help=f"number of layers (default: {_default(0)})")
    add("--hidden", type=positive, help=f"hidden width (default: {_default(1)})")
    add("--dim", type=positive, default=96,
        help="random features per node if the graph has none (default: %(default)s)")
    add("--classes", type=positive, default=22,
        help="random classes if the graph has no labels (default: %(default)s)")
    add("--synthetic", action="store_true", help="use random features and labels even if the graph has its own")
    add("--epochs", type=positive, default=50,
        help="training epochs, of which the first few are not part of the median time (default: %(default)s)")
    add("--seed", type=natural, default=0,
        help="seed of weights, dropout, random features and generated graphs (default: %(default)s)")
    add_device(parser)
    add_config(parser)
    add_renumber(parser)
    add("--json", type=output_file, metavar="FILE", help="write rows, decisions and versions to FILE, as JSON")
    add("--csv", type=output_file, metavar="FILE", help="write the rows to FILE, as CSV")
    program.add_arguments(parser)


def run(args):
    """Run the comparison and return the exit status 0.

    Raises:
        UsageError, WorkerError: see gnna_plugin.tools.compare.spec.
    """
    from rich.console import Console

    console = Console()
    if program.is_given(args) == bool(args.graph):
        raise UsageError("give a script or --graph: `gnna compare train.py` or `gnna compare --graph community`")
    needless = _given(args) & (_OF_SCRIPTS if args.graph else _OF_MODELS)
    if needless:
        kind = "a script, not for --graph" if args.graph else "--graph, not for a script"
        raise UsageError(f"{', '.join(f'--{name}' for name in sorted(needless))}: for {kind}")
    if not args.graph:
        return _compare_script(args, console)
    return against.run(args, console) if args.against else _compare_models(args, console)


# Options that have an effect on scripts only, and on built-in models only.
_OF_SCRIPTS = {"html", "allocator", "rounds", "seconds"}
_OF_MODELS = {"against", "classes", "config", "device", "dim", "epochs", "framework", "hidden", "layers", "model",
              "renumber", "synthetic", "threads"}  # fmt: skip


def _given(args):
    """Return the names of the options whose values are not the defaults."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return {name for name, value in vars(parser.parse_args([])).items() if getattr(args, name) != value}


def _compare_script(args, console):
    from gnna_plugin.tools.script import arms, page, show

    if args.html:
        page.check()
    with progress(console) as on_progress:
        found = arms.measure(args, args.rounds, args.allocator, args.seed, args.seconds, on_progress)
    result = show.result(found, command_line())
    console.print(show.table(found))
    for text in show.sentences(found):
        console.print(text)
    if args.json:
        show.write_json(result, args.json)
    if args.csv:
        show.write_csv(result, args.csv)
    if args.html:
        script = shlex.join(program.script_of(args))
        *remarks, status_text = (text.plain for text in show.sentences(found))
        page.write(result, script, remarks, status_text, args.html)
        console.print(f"written: {args.html}", highlight=False, style="dim")
    return 0


def _compare_models(args, console):
    from gnna_plugin.tools.compare import report, runner
    from gnna_plugin.tools.compare.data import nonfinite_features

    frameworks = CHOICES[args.framework]
    for framework in frameworks:
        runner.check_framework(framework)
    device, remark = runner.choose_device(args.device)
    graphs = load_graphs(args.graph, args.seed, args.renumber)
    for sentence in filter(None, map(nonfinite_features, () if args.synthetic else graphs)):
        console.print(sentence, style="yellow", highlight=False, soft_wrap=True)
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
            # Written after every graph, so that a failure or an interruption loses only the graph under way.
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


def _default(position):
    return ", ".join(f"{MODEL_DEFAULTS[name][position]} for {name}" for name in ("gcn", "gin"))
