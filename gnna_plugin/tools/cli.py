"""The command line: `python -m gnna_plugin` and the console script `gnna`.

This file owns the list of subcommands and the exit statuses: 0 for success, 1 if a measuring process failed, 2 if the
request cannot be met as given, 130 if it was interrupted. Each subcommand defines its own arguments. Modules that are
imported here do not import torch, so that --help and `doctor` work without it.
"""

import argparse
import codecs
import os
import sys

from gnna_plugin import _load
from gnna_plugin._version import __version__
from gnna_plugin.tools import artifact, demo, doctor, explain
from gnna_plugin.tools.bench import command as bench
from gnna_plugin.tools.compare import command as compare
from gnna_plugin.tools.compare.spec import UsageError, WorkerError
from gnna_plugin.tools.run import command as run
from gnna_plugin.tools.study import command as study
from gnna_plugin.tools.tune import command as tune
from gnna_plugin.tools.verify import command as verify

# A subcommand is a module with HELP, add_arguments(parser) and run(args) -> exit status.
COMMANDS = {
    "artifact": artifact, "bench": bench, "compare": compare, "demo": demo, "doctor": doctor, "explain": explain,
    "run": run, "study": study, "tune": tune, "verify": verify,
}

# Commands that do not need the library: doctor says what is wrong, and run leaves the script unaccelerated.
_WITHOUT_LIBRARY = ("doctor", "run")

_EPILOG = """examples:
  gnna run train.py                              run your own script, accelerated and otherwise unchanged
  gnna compare train.py                          run it without and with the plug-in, side by side
  gnna doctor                                    check the installation
  gnna demo                                      see what the plug-in does, in a minute or two
  gnna compare --model gin --graph edges.csv     train on your own graph, with and without the plug-in
  gnna explain --model gcn --graph edges.csv     see how each layer runs on that graph, and why
  gnna bench spmm --graph edges.csv              time one operation against every installed library
  gnna tune --graph edges.csv                    find the fastest GPU launches for that graph, for later runs
  gnna verify --graph edges.csv                  check results and gradients on that graph against float64
  gnna study fig10                               repeat a figure of the GNNAdvisor paper
  gnna artifact --dataset amazon0601             run with the flags of the paper's artifact
  gnna compare --help                            see all options of a command

environment variables:
  GNNA_DATA      folder of .npz graphs, which --graph accepts by name
  GNNA_ONLY      default of enable(only=...): layer classes to accelerate, separated by commas
  GNNA_SKIP      default of enable(skip=...): layer classes to leave to the framework
  GNNA_STRICT    default of enable(strict=...): 1 raises an error instead of falling back to the framework, 0 does not
  GNNA_VERIFY    default of enable(verify=...): 1 compares every call of a layer with the framework's own path (slow)
  GNNA_MIN_WORK  default of enable(min_work=...): smallest edges x feature width that the plug-in accelerates
  GNNA_TUNED     file that `gnna tune` writes and enable() reads (default: ~/.cache/gnna_plugin/tuned.json); 0: none
  GNNA_DATASETS  folder for downloaded data sets such as planetoid:Cora (default: ~/.cache/gnna_plugin)"""


def build_parser():
    """Return the argparse parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="gnna", description="Faster neighbour aggregation for PyTorch Geometric and DGL, with one added line.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gnna_plugin {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        description = module.HELP[0].upper() + module.HELP[1:] + "."
        module.add_arguments(commands.add_parser(name, help=module.HELP, description=description))
    return parser


# What stands for a character that the terminal's encoding lacks.
_PLAIN = {"\u00b1": "+-", "\u2026": "...", "\u00d7": "x", "\u00b5": "u"}


def _print_anything():
    """Print characters that the encoding of the output lacks as similar ones, instead of raising UnicodeEncodeError."""

    def replace(error):
        missing = error.object[error.start : error.end]
        return "".join(_PLAIN.get(character, "?") for character in missing), error.end

    codecs.register_error("gnna", replace)
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="gnna")


def main(argv=None):
    """Run a command line (default: sys.argv[1:]) and return the exit status.

    Raises:
        SystemExit: after --help, or if the arguments are wrong.
    """
    _print_anything()
    args = build_parser().parse_args(argv)
    if _load.failure is not None and args.command not in _WITHOUT_LIBRARY:
        print(f"gnna: {_load.failure_message()} (`gnna doctor` says more)", file=sys.stderr)
        return 1
    try:
        status = COMMANDS[args.command].run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of the output ended, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UsageError as error:
        print(f"gnna: {error}", file=sys.stderr)
        return 2
    except WorkerError as error:
        print(f"gnna: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # such as a full disk
        print(f"gnna: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
