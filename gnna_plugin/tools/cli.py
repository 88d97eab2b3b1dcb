"""The command line: `python -m gnna_plugin` and the console script `gnna`.

This file owns the list of subcommands and what an exit status means: 0 done, 1 a measuring process failed, 2 the
request cannot be met as given. Each subcommand's arguments live with it.
"""

import argparse
import sys

import gnna_plugin
from gnna_plugin.tools import demo, explain
from gnna_plugin.tools.bench import command as bench
from gnna_plugin.tools.compare import command as compare
from gnna_plugin.tools.compare.spec import UsageError, WorkerError
from gnna_plugin.tools.tune import command as tune

# A subcommand is a module with HELP, add_arguments(parser) and run(args) -> exit status.
COMMANDS = {"bench": bench, "compare": compare, "demo": demo, "explain": explain, "tune": tune}

_EPILOG = """examples:
  gnna demo                                      what the plug-in does, in a minute or two
  gnna compare --model gin --graph edges.csv     your own graph, with and without it
  gnna explain --model gcn --graph edges.csv     how its layers run there, and why
  gnna bench spmm --graph edges.csv              the kernels alone, beside every installed peer
  gnna tune --graph edges.csv                    measure launches on this machine, for later runs
  gnna compare --help                            all that can be compared

environment:
  GNNA_DATA      a folder of .npz graphs, which --graph then takes by name
  GNNA_STRICT    0 or 1: what enable() takes for strict if its caller leaves that open; GNNA_MIN_WORK the same
  GNNA_TUNED     the file of what `gnna tune` measured; default: ~/.cache/gnna_plugin/tuned.json; 0: none
  GNNA_DATASETS  where data sets such as planetoid:Cora are kept; default: ~/.cache/gnna_plugin"""


def build_parser():
    """The argparse parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="gnna", description="Faster neighbour aggregation for PyTorch Geometric and DGL, by one added line.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gnna_plugin {gnna_plugin.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        description = module.HELP[0].upper() + module.HELP[1:] + "."
        module.add_arguments(commands.add_parser(name, help=module.HELP, description=description))
    return parser


def main(argv=None):
    """Run the command line ``argv`` (default: sys.argv[1:]) and return the exit status; --help and misuse exit."""
    args = build_parser().parse_args(argv)
    try:
        return COMMANDS[args.command].run(args)
    except UsageError as error:
        print(f"gnna: {error}", file=sys.stderr)
        return 2
    except WorkerError as error:
        print(f"gnna: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
