"""The subcommand `artifact`: takes the flags of the authors' GNNA_main.py and runs the command that does the same here.

This file owns the map from those flags, with the meaning that the artifact's README gives them, to `gnna compare`,
`gnna bench spmm` and `gnna verify`. docs/glossary.md lists the names side by side.
"""

from __future__ import annotations

import argparse
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from gnna_plugin.data.load import READERS
from gnna_plugin.data.standin import STANDINS
from gnna_plugin.tools.arguments import positive
from gnna_plugin.tools.bench import command as bench
from gnna_plugin.tools.compare import command as compare
from gnna_plugin.tools.compare.spec import MODEL_DEFAULTS, UsageError
from gnna_plugin.tools.verify import command as verify

HELP = "run with the flags of the authors' artifact, GNNA_main.py"

_EPILOG = """examples:
  gnna artifact --dataset amazon0601 --dim 96 --hidden 16 --classes 22 --model gcn --manual_mode False
  gnna artifact --dataset artist --model gin --hidden 64 --partSize 32 --dimWorker 16 --warpPerBlock 4
  gnna artifact --dataset amazon0505 --dim 16 --single_spmm True
  gnna artifact --dataset cora --dataDir ../osdi-ae-graphs --verify_spmm True

The equivalent command is printed first, then a line for every flag that has no effect here. A dataset is NAME.npz in
--dataDir, else NAME.npz in the folder GNNA_DATA, else the stand-in of that name: a generated graph with the published
numbers of nodes and edges."""

_COMMANDS = {"compare": compare, "bench": bench, "verify": verify}
_BOOLS = ("True", "False")


@dataclass
class Request:
    """The command that a request becomes.

    Attributes:
        words: the command's words after `gnna`.
        notes: sentences about flags that have no effect, or another one than in the artifact.
    """

    words: list[str]
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return shlex.join(["gnna", *self.words])


def add_arguments(parser):
    """Add the artifact's flags to an argparse parser, and --device, which it lacks."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EPILOG
    add = parser.add_argument
    add("--dataset", default="amazon0601", help="name of the graph (default: %(default)s)")
    help_text = "folder of the graphs (default: ../osdi-ae-graphs, as in the artifact)"
    add("--dataDir", default="../osdi-ae-graphs", metavar="FOLDER", help=help_text)
    _add_bool(add, "loadFromTxt", "read a text file of edges 's d' instead of an .npz file", "False")
    add("--dim", type=positive, default=96, help="features per node (default: %(default)s)")
    add("--hidden", type=positive, default=16, help="hidden width (default: %(default)s)")
    add("--classes", type=positive, default=22, help="classes (default: %(default)s)")
    add("--model", choices=("gcn", "gin"), default="gcn", help="gcn (2 layers) or gin (5 layers); default: gcn")
    add("--num_epoches", type=positive, default=200, metavar="N", help="training epochs (default: %(default)s)")
    help_text = "True: launches with partSize, dimWorker and warpPerBlock; False: the decider chooses"
    _add_bool(add, "manual_mode", help_text, "True")
    add("--partSize", type=positive, default=32, metavar="N", help="edges per neighbour group (default: %(default)s)")
    add("--dimWorker", type=positive, default=32, metavar="N", help="threads per neighbour (default: %(default)s)")
    add("--warpPerBlock", type=positive, default=8, metavar="N", help="warps per block (default: %(default)s)")
    add("--sharedMem", type=positive, metavar="KB", help="accepted; the kernels fit their shared memory themselves")
    help_text = "renumber the nodes: always in manual mode, else if the paper's rule says so"
    _add_bool(add, "enable_rabbit", help_text, "False")
    _add_bool(add, "verbose_mode", "accepted; every decision is printed anyway", None)
    _add_bool(add, "single_spmm", "time a single SpMM of width --dim", "False")
    _add_bool(add, "verify_spmm", "check a single SpMM of width --hidden", "False")
    help_text = "where to run (default: cuda if it can be used, else cpu); not a flag of the artifact"
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help=help_text)


def _add_bool(add, name, text, default):
    add(f"--{name}", choices=_BOOLS, default=default, help=text + ("" if default is None else f" (default: {default})"))


def run(args):
    """Print the equivalent command and the notes, and run the command. Returns its exit status."""
    request = equivalent(args)
    print(f"$ {request}", flush=True)
    for note in request.notes:
        print(f"  {note}", flush=True)
    command = _COMMANDS[request.words[0]]
    parser = argparse.ArgumentParser(prog=f"gnna {request.words[0]}")
    command.add_arguments(parser)
    return command.run(parser.parse_args(request.words[1:]))


def equivalent(args) -> Request:
    """Return the Request that does here what the artifact does with these arguments.

    Raises:
        UsageError: the graph is not found, a launch parameter has a value that is not accepted, or the device cannot be
            used.
    """
    from gnna_plugin.tools.compare.runner import choose_device

    graph, notes = _graph(args)
    manual = args.manual_mode == "True"
    common = ["--graph", graph, "--device", args.device]
    if args.enable_rabbit == "True":
        common += ["--renumber", "rabbit" if manual else "rule"]
        if not manual:
            notes.append("--enable_rabbit: by the paper's rule, which the artifact applies without rounding down")
    if manual:
        common += ["--config", _config(args)]
        if choose_device(args.device)[0] == "cpu":
            notes.append("--partSize, --dimWorker, --warpPerBlock: no effect on a CPU, which has no such parameters")
    if args.sharedMem is not None:
        notes.append("--sharedMem: no effect, because the kernels choose their shared memory, at most 48 KiB per block")
    if args.verify_spmm == "True":
        if args.single_spmm == "True":
            notes.append("--single_spmm: no effect with --verify_spmm True, as in the artifact")
        words = ["verify", *common, "--widths", str(args.hidden), "--reduce", "sum"]
    elif args.single_spmm == "True":
        notes.append(f"--num_epoches {args.num_epoches}: no effect on a single SpMM, which is called as often as fills "
                     "the rounds of `gnna bench`")  # fmt: skip
        words = ["bench", "spmm", *common, "--widths", str(args.dim)]
    else:
        layers, _ = MODEL_DEFAULTS[args.model]
        shape = {"model": args.model, "layers": layers, "hidden": args.hidden, "dim": args.dim, "classes": args.classes}
        words = ["compare", *common, "--synthetic", "--epochs", str(args.num_epoches)]
        words += [word for name, value in shape.items() for word in (f"--{name}", str(value))]
    if args.verbose_mode == "False" and words[0] == "compare":
        notes.append("--verbose_mode False: no effect, `gnna compare` always prints every decision")
    if args.verbose_mode == "True" and words[0] != "compare":
        notes.append(f"--verbose_mode True: no effect here; `gnna explain --graph {graph}` prints the decisions")
    return Request(words, notes)


def _config(args) -> str:
    """Return the launch parameters of manual mode as --config takes them."""
    from gnna_plugin.decider import PARAMETERS
    from gnna_plugin.extractor import THREADS_PER_WARP

    given = {"group_size": ("partSize", 1), "lanes": ("dimWorker", 1), "block": ("warpPerBlock", THREADS_PER_WARP)}
    words = []
    for name, (flag, unit) in given.items():
        value = getattr(args, flag)
        if value * unit not in PARAMETERS[name]:
            accepted = PARAMETERS[name]
            listed = ", ".join(str(v // unit) for v in accepted) if isinstance(accepted, tuple) else "1 to 1,048,575"
            raise UsageError(f"--{flag} {value} is not accepted; accepted are {listed}")
        words.append(f"{name}={value * unit}")
    return ",".join(words)


def _graph(args) -> tuple[str, list[str]]:
    """Return what --graph takes for the dataset, and notes on what stands in for it."""
    name, folder = args.dataset, Path(args.dataDir)
    if args.loadFromTxt == "True":
        files = [folder / name, *(folder / f"{name}{suffix}" for suffix in (".txt", ".tsv", ".csv"))]
        found = next((path for path in files if path.is_file()), None)
        if found is None:
            raise UsageError(f"--loadFromTxt True: there is no text file {folder / name}, also not with .txt")
        if found.suffix not in READERS:
            raise UsageError(f"{found}: the name of a text file must end in .txt, .tsv or .csv; rename it")
        return str(found), []
    if (folder / f"{name}.npz").is_file():
        return str(folder / f"{name}.npz"), []
    shared = os.environ.get("GNNA_DATA")
    if shared and (Path(shared) / f"{name}.npz").is_file():
        return name, [f"{name}: from GNNA_DATA, because {folder / name}.npz does not exist"]
    if name in STANDINS:
        return f"standin:{name}", [f"{name}: a generated stand-in, because {folder / name}.npz does not exist"]
    return name, []
