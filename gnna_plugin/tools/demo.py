"""The subcommand `demo`: shows on this machine what the plug-in does, in a minute or two.

This file owns what is shown and in which order. gnna_plugin.tools.pairs measures the times, which must hold on a busy
machine, and gnna_plugin.tools.compare the memory and the correctness.
"""

from pathlib import Path

from gnna_plugin.tools.arguments import positive
from gnna_plugin.tools.compare.spec import Case

HELP = "show what the plug-in does, on this machine, in a minute or two"

PACKAGE = Path(__file__).resolve().parent.parent
# A wheel holds examples/ inside the package. In a checkout, the folder stands beside it.
EXAMPLE = next((path for folder in (PACKAGE, PACKAGE.parent)
                if (path := folder / "examples" / "gcn_planetoid.py").is_file()), None)
ADDED_LINE = "import gnna_plugin; gnna_plugin.enable()"

# Chosen so that the whole demo takes about a minute on two cores, most of it for the plain framework.
GENERATED = "community:40000x600000"
SMALL = ("pubmed",)
EPOCHS = 3  # for memory and correctness
SECONDS = 5.0  # for the times of a case


def add_arguments(parser):
    """Add the arguments to an argparse parser."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                        help="where to run (default: cuda if it can be used, else cpu)")
    parser.add_argument("--threads", type=positive,
                        help="number of CPU threads (default: 1 for times, else torch's choice)")


def cases(available):
    """Return the Cases of the demo.

    ``available`` are the names of the graphs that can be loaded.
    """
    chosen = [Case(graph=name, model="gcn", epochs=EPOCHS) for name in SMALL if name in available]
    for model in ("gcn", "gin", "weighted"):  # gcn also trains with reordered edges, to show what rounding does
        chosen.append(Case(graph=GENERATED, model=model, epochs=EPOCHS, reorder=model == "gcn"))
    return chosen


def run(args):
    """Run the demo and return the exit status 0.

    Raises:
        UsageError, WorkerError: see gnna_plugin.tools.compare.spec.
    """
    from rich.console import Console

    from gnna_plugin.data import available_graphs
    from gnna_plugin.tools.compare import report, runner
    from gnna_plugin.tools.inputs import command_line, load_graphs
    from gnna_plugin.tools.pairs import time_in_pairs
    from gnna_plugin.tools.progress import progress

    console = Console()
    runner.check_framework("pyg")
    device, remark = runner.choose_device(args.device)
    _show_script(console)
    chosen = cases(available_graphs())
    names = list(dict.fromkeys(case.graph for case in chosen))
    graphs = dict(zip(names, load_graphs(names, seed=0), strict=True))
    pairs = [(graphs[case.graph], case) for case in chosen]
    console.print(f"\n[bold]The same training, with and without that line[/bold] ({remark or 'running on the CPU'})")
    with progress(console) as on_progress:
        results = runner.measure_cases(pairs, device=device, threads=args.threads, command=command_line(),
                                       on_progress=on_progress)
        times = []
        for graph, case in pairs:
            on_progress(f"{graph.name} {case.model}, plain and accelerated: timing", 0, 0)
            times.append(time_in_pairs(graph, case, device=device, threads=args.threads or 1, seconds=SECONDS))
    console.print(_table(results, times, "wall" if device == "cuda" or (args.threads or 1) > 1 else "processor"))
    console.print("'weighted' is a user-written layer, known to no library: its message is w * x_j, with learned w.\n")
    console.print("[bold]Correctness[/bold]")
    for line in report.proof_lines(results):
        console.print(f"  {line}", highlight=False)
    _show_next(console, available_graphs())
    return 0


def _table(results, times, kind):
    """Return the rich table of times and peak memory."""
    from rich.markup import escape
    from rich.table import Table

    caption = (f"Medians of the {kind} time of a training step. Plain and accelerated steps alternate in one process, "
               "so that other processes slow both. Peak: memory above the loaded data, plain and accelerated.")
    table = Table(caption=caption, caption_justify="left")
    table.add_column("graph")
    table.add_column("model")
    for heading in ("plain\nms", "accelerated\nms", "\nspeed-up", "peak\nMiB"):
        table.add_column(heading, justify="right")
    for result, (plain, accelerated, ratio, _) in zip(results, times, strict=True):
        row = result.row
        table.add_row(escape(row["graph"]).replace(":", ":\n"), row["model"], f"{plain:,.1f}", f"{accelerated:,.1f}",
                      f"[bold]{ratio:.1f}x[/bold]",
                      f"{row['baseline_peak_mib']:,.0f}, {row['accelerated_peak_mib']:,.0f}")
    return table


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
    shown = {"line_range": (first, last - 3), "highlight_lines": {added}}
    console.print(Syntax(text, "python", line_numbers=True, word_wrap=True, **shown))


def _show_next(console, available):
    graph = available[0] if available else "YOUR_EDGES.csv"
    console.print("\n[bold]What to type next[/bold]")
    script = [(f"python -m gnna_plugin run {EXAMPLE}", "the script above, accelerated without an edit")]
    for command, what in (
        *(script if EXAMPLE else []),
        ("python -m gnna_plugin compare --framework both --graph community", "PyG and DGL, side by side"),
        (f"python -m gnna_plugin compare --model gcn --graph {graph} --json results.json", "your own graph"),
        (ADDED_LINE, "the line to add to your own script"),
    ):
        console.print(f"  {command}", highlight=False, style="cyan", soft_wrap=True)
        console.print(f"      {what}", style="dim")
