"""The subcommand `tune`: measure on this machine, show what was found beside the decider's choice, and keep it."""

from __future__ import annotations

import argparse
import datetime
from dataclasses import asdict

from gnna_plugin.frameworks import FRAMEWORKS
from gnna_plugin.tools.arguments import natural, positive
from gnna_plugin.tools.compare.spec import MODEL_DEFAULTS, Case, UsageError
from gnna_plugin.tools.progress import progress

HELP = "measure launch parameters (GPU) or min_work here, for later runs"

_EPILOG = """examples:
  gnna tune --graph edges.csv --model gin --device cuda
  gnna tune --device cpu

With --graph, which needs a GPU, every aggregation of the model's forward and backward pass on the graph is tuned.
Launches beside the decider's choice are timed, and one that is at least 2 % faster is kept. Without --graph, min_work
is measured: the smallest edges x width that the plug-in accelerates. CPU kernels have no launch parameters, so min_work
is all that can be tuned on a CPU.

Results are stored by device and torch version in ~/.cache/gnna_plugin/tuned.json (or XDG_CACHE_HOME, or the file that
GNNA_TUNED names), and enable() reads them. They apply to aggregations with exactly the same facts (nodes, edges,
longest row, width, weights, dtype). All others are decided by the rules."""


def add_arguments(parser):
    """Add the arguments to an argparse parser."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EPILOG
    add = parser.add_argument
    add("--graph", nargs="+", metavar="G", help="graphs to tune launches for, named as for `gnna compare`")
    add("--framework", choices=sorted(FRAMEWORKS), default="pyg", help="default: %(default)s")
    add("--model", choices=("gcn", "gin"), default="gcn", help="default: %(default)s")
    add("--layers", type=positive, help="default: the model's own, as for compare")
    add("--hidden", type=positive, help="default: the model's own, as for compare")
    add("--dim", type=positive, default=96, help="features per node where the graph has none (%(default)s)")
    add("--classes", type=positive, default=22, help="classes where the graph has no labels (%(default)s)")
    add("--seed", type=natural, default=0)
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda where it can be used")
    add("--rounds", type=positive, default=3, help="samples per candidate (%(default)s)")
    add("--dry-run", action="store_true", help="show what was found and keep nothing")


def run(args):
    """Measure, show and keep; returns the exit status 0. Raises UsageError."""
    from rich.console import Console

    from gnna_plugin import tuned
    from gnna_plugin.tools.compare import runner

    runner.check_framework(args.framework)
    device, remark = runner.choose_device(args.device)
    if not args.dry_run and tuned.path() is None:
        raise UsageError("GNNA_TUNED is 0, so nothing could be kept: unset it, or use --dry-run")
    console = Console()
    if remark:
        console.print(remark, style="dim")
    if args.graph and device == "cpu":
        raise UsageError("on a CPU there are no launches to tune; without --graph min_work is measured")
    entry = _tune_launches(args, console) if args.graph else _measure_min_work(args, device, console)
    if not args.dry_run:
        console.print(f"kept in {tuned.write(tuned.device_name(device), entry)}", highlight=False)
    return 0


def _tune_launches(args, console):
    import torch

    import gnna_plugin
    from gnna_plugin.tools.bench.show import number
    from gnna_plugin.tools.bench.timing import Rounds
    from gnna_plugin.tools.compare.data import build_model, training_data
    from gnna_plugin.tools.inputs import load_graphs
    from gnna_plugin.tools.tune import launches

    models = FRAMEWORKS[args.framework].load("tools.models")
    kept = []
    for graph in load_graphs(args.graph, args.seed):
        layers, hidden = MODEL_DEFAULTS[args.model]
        case = Case(graph.name, args.model, args.framework, args.layers or layers, args.hidden or hidden, args.dim,
                    args.classes, seed=args.seed).resolved()  # fmt: skip
        data = training_data(graph, case)
        structure = models.make_graph(data.src, data.dst, data.num_nodes, "cuda")
        model = build_model(models, case, data, structure, "cuda")
        x = torch.from_numpy(data.x).to("cuda")
        with gnna_plugin.enabled(args.framework, min_work=0):
            found = launches.launches_of(lambda: model(x, structure))  # noqa: B023 called before the next graph
        for number_of, launch in enumerate(found):
            with progress(console) as on_progress:
                on_progress(f"{graph.name}: trying launches", number_of, len(found))
                best = launches.tune(launch, Rounds(args.rounds, 0.01, args.rounds))
            facts = launch.facts
            console.print(
                f"{graph.name}: {facts.edges:,} edges x {facts.width}, {facts.reduce}: "
                f"{number(best.decider_ms * 1e3)} us by the decider, {number(best.ms * 1e3)} us with "
                f"{best.config} ({len(best.tried)} tried)",
                highlight=False,
            )
            kept.append({"facts": asdict(facts), "config": best.config, "us": best.ms * 1e3,
                         "decider_us": best.decider_ms * 1e3, "graph": graph.name, "date": _today()})  # fmt: skip
    return {"launches": kept}


def _measure_min_work(args, device, console):
    import torch
    from rich import box
    from rich.table import Table

    from gnna_plugin.settings import DEFAULT_MIN_WORK
    from gnna_plugin.tools.bench import peers
    from gnna_plugin.tools.bench.timing import Rounds
    from gnna_plugin.tools.tune import crossover

    steps = peers.adapter(args.framework)
    if isinstance(steps, str) or not hasattr(steps, "training_steps"):
        raise UsageError(f"min_work is measured with PyG's layers, not with {args.framework}'s")
    rounds = Rounds(args.rounds, 0.02)
    rows = []
    with progress(console) as on_progress:
        on_progress("timing layers on small graphs", 0, 0)
        for row in crossover.measure(steps.training_steps, args.framework, torch.device(device), rounds):
            rows.append(row)
            on_progress(f"timing layers on small graphs: {row['layer']}, {row['edges']:,} edges", len(rows), 0)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("layer", "edges", "width", "work", "plain us", "gnna us", "left us", "plain / gnna"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for row in rows:
        times = (row["plain_us"], row["accelerated_us"], row["left_us"])
        table.add_row(row["layer"], *(f"{row[key]:,}" for key in ("edges", "width", "work")),
                      *(f"{us:.0f}" for us in times), f"{times[0] / times[1]:.2f}")  # fmt: skip
    console.print(table)
    least = crossover.least_work(rows)
    console.print(f"min_work {least:,} (built in: {DEFAULT_MIN_WORK[device]:,})", highlight=False)
    return {"min_work": least, "date": _today()}


def _today():
    return datetime.date.today().isoformat()
