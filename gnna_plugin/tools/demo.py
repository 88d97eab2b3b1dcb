"""The subcommand `demo`: shows on this machine what the plug-in does, in a minute or two.

This file owns what is shown and in which order. gnna_plugin.tools.compare does the measurements.
"""

from importlib.util import find_spec
from pathlib import Path

from gnna_plugin.tools.arguments import positive
from gnna_plugin.tools.compare.spec import Case, WorkerError

HELP = "show what the plug-in does, on this machine, in a minute or two"

PACKAGE = Path(__file__).resolve().parent.parent
# A wheel holds examples/ inside the package. In a checkout, the folder stands beside it.
EXAMPLE = next((path for folder in (PACKAGE, PACKAGE.parent)
                if (path := folder / "examples" / "gcn_planetoid.py").is_file()), None)
ADDED_LINE = "import gnna_plugin; gnna_plugin.enable()"

# Chosen so that the whole demo takes about a minute on two cores, most of it for the plain framework.
GENERATED = "community"
SMALL = ("cora", "pubmed")
SECONDS = 1.5


def add_arguments(parser):
    """Add the arguments to an argparse parser."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                        help="where to run (default: cuda if it can be used, else cpu)")
    parser.add_argument("--threads", type=positive, help="number of CPU threads (default: torch's choice)")


def cases(available):
    """Return the Cases of the demo.

    ``available`` are the names of the graphs that can be loaded.
    """
    chosen = [Case(graph=name, model="gcn", epochs=30, budget_s=1.5) for name in SMALL if name in available]
    for model in ("gcn", "gin", "weighted"):  # gcn also trains with reordered edges, to show what rounding does
        chosen.append(Case(graph=GENERATED, model=model, epochs=30, budget_s=SECONDS, reorder=model == "gcn"))
    return chosen


def dgl_cases():
    """Return the Cases of the demo for DGL's models, on the generated graph."""
    return [Case(graph=GENERATED, model="gcn", framework="dgl", epochs=10, budget_s=1.0, reorder=False)]


def run(args):
    """Run the demo and return the exit status 0.

    Raises:
        UsageError, WorkerError: see gnna_plugin.tools.compare.spec.
    """
    from rich.console import Console

    from gnna_plugin.data import available_graphs
    from gnna_plugin.tools.compare import report, runner
    from gnna_plugin.tools.compare.command import command_line, load_graphs, progress

    console = Console()
    runner.check_framework("pyg")
    device, remark = runner.choose_device(args.device)
    _show_script(console)
    chosen = cases(available_graphs())
    names = list(dict.fromkeys(case.graph for case in chosen))
    graphs = dict(zip(names, load_graphs(names, seed=0), strict=True))
    console.print(f"\n[bold]The same training, with and without that line[/bold] ({remark or 'running on the CPU'})")
    with progress(console) as on_progress:
        results = runner.measure_cases([(graphs[case.graph], case) for case in chosen], device=device,
                                       threads=args.threads, command=command_line(), on_progress=on_progress)
    console.print(report.comparison_table(results, accuracy=False))
    for line in report.noise_lines(results):
        console.print(line, highlight=False)
    console.print("'weighted' is a user-written layer, known to no library: its message is w * x_j, with learned w.\n")
    if find_spec("dgl") is not None:
        results += _show_dgl(console, graphs, device, args.threads)
    console.print("[bold]Correctness[/bold]")
    for line in report.proof_lines(results):
        console.print(f"  {line}", highlight=False)
    _show_next(console, available_graphs())
    return 0


def _show_dgl(console, graphs, device, threads):
    """Show the same line in DGL. Returns the Results, or [] if DGL cannot run here."""
    from gnna_plugin.tools.compare import report, runner
    from gnna_plugin.tools.compare.command import command_line, progress

    console.print("[bold]The same line in a DGL script[/bold]")
    try:
        with progress(console) as on_progress:
            results = runner.measure_cases([(graphs[case.graph], case) for case in dgl_cases()], device=device,
                                           threads=threads, command=command_line(), on_progress=on_progress)
    except WorkerError as error:
        console.print(f"  DGL is installed, but does not run here: {str(error).splitlines()[-1]}\n", markup=False)
        return []
    console.print(report.comparison_table(results, accuracy=False))
    return results


def _show_script(console):
    from rich.syntax import Syntax

    if EXAMPLE is None:
        return
    text = EXAMPLE.read_text(encoding="utf-8").replace(f"# {ADDED_LINE}", ADDED_LINE)
    lines = text.splitlines()
    added = next(number for number, line in enumerate(lines, 1) if ADDED_LINE in line)
    first = next(number for number, line in enumerate(lines, 1) if line.startswith("import torch"))
    last = next(number for number, line in enumerate(lines, 1) if line.startswith("def main"))
    console.print(f"[bold]An ordinary PyG script, and the one line to add[/bold] ({EXAMPLE}, line {added})")
    console.print(Syntax(text, "python", line_numbers=True, line_range=(first, last - 3), highlight_lines={added}))


def _show_next(console, available):
    graph = available[0] if available else "YOUR_EDGES.csv"
    console.print("\n[bold]What to type next[/bold]")
    script = [(f"python -m gnna_plugin run {EXAMPLE}", "the script above, accelerated without an edit")]
    for command, what in (
        *(script if EXAMPLE else []),
        ("python -m gnna_plugin compare --model gin --graph community", "another model on the generated graph"),
        (f"python -m gnna_plugin compare --model gcn --graph {graph} --json results.json", "your own graph"),
        (ADDED_LINE, "the line to add to your own script"),
    ):
        console.print(f"  {command}", highlight=False, style="cyan", soft_wrap=True)
        console.print(f"      {what}", style="dim")
