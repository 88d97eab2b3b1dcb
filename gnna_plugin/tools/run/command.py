"""The subcommand `run`: replaces this process by the script's, with the plug-in on."""

import argparse
import os
import sys

from gnna_plugin.tools.compare.spec import UsageError
from gnna_plugin.tools.script import program

HELP = "run a Python script with the plug-in on, without changing the script"

_EPILOG = """examples:
  gnna run train.py --epochs 100               as `python train.py --epochs 100`, accelerated
  gnna run --report train.py                   print what ran on the plug-in, and what did not, at the end
  gnna run --profile train.py                  print the time of each graph layer at the end, and how it ran
  gnna run --verify train.py                   compare every call of a layer with the framework's own path
  gnna run --skip GATConv,PNAConv train.py     leave these layers to the framework
  gnna run -m package.train --epochs 100       a module, as with `python -m`
  gnna run -m torch.distributed.run --nproc-per-node 2 train.py    processes that the script starts run on it too

The script's arguments, exit status, tracebacks and __main__ are those that it has without `gnna run`. The plug-in
turns on when PyTorch Geometric or DGL is imported. If it can't, a warning says why, and the script runs without it."""


def add_arguments(parser):
    """Add the arguments to an argparse parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.usage = "gnna run [options] (SCRIPT | -m MODULE | -c CODE) [arguments of the script]"
    parser.add_argument("--report", action="store_true", help="print status() to stderr when the script ends")
    parser.add_argument("--profile", action="store_true",
                        help="print the time, the configuration and the reasons of each graph layer to stderr when the "
                             "script ends")
    parser.add_argument("--verify", action="store_true",
                        help="repeat every call of a layer on the framework's own path, compare outputs and gradients, "
                             "and print the result to stderr when the script ends (slow)")
    parser.add_argument("--strict", action="store_true",
                        help="raise gnna_plugin.Fallback where a layer would fall back to the framework, and with "
                             "--verify gnna_plugin.Mismatch where its results differ")
    parser.add_argument("--only", metavar="LAYERS", help="accelerate these layer classes only: GCNConv,GINConv")
    parser.add_argument("--skip", metavar="LAYERS", help="leave these layer classes to the framework")
    program.add_arguments(parser)


def run(args):
    """Replace this process by Python running the script. It returns only if that fails.

    Raises:
        UsageError: no script was given, it can't be found, or two options exclude each other.
    """
    command = program.command(args)
    if args.profile and args.verify:
        raise UsageError("--verify repeats every call, which would be part of --profile's times; give one of them")
    sys.stdout.flush()
    sys.stderr.flush()
    summaries = [name for name in ("report", "profile", "verify") if getattr(args, name)]
    switches = {"GNNA_VERIFY": args.verify, "GNNA_STRICT": args.strict}
    given = {name: "1" for name, wanted in switches.items() if wanted}
    layers = {"GNNA_ONLY": args.only, "GNNA_SKIP": args.skip}
    given.update((name, names) for name, names in layers.items() if names is not None)
    os.execve(command[0], command, program.environment(",".join(summaries) or "1", **given))
