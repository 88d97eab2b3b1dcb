"""The Python process of a user's script: its arguments and its environment."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from gnna_plugin.tools.compare.spec import UsageError

STARTUP = Path(__file__).with_name("startup")


def add_arguments(parser):
    """Add the script, and -m and -c in its place, to an argparse parser."""
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE", help="run a module")
    parser.add_argument("-c", dest="code", nargs=argparse.REMAINDER, metavar="CODE", help="run code")
    parser.add_argument("script", nargs=argparse.REMAINDER, metavar="SCRIPT", help="the script and its arguments")


def is_given(args):
    """Return whether the command line names a script, a module or code."""
    return bool(args.script) or args.module is not None or args.code is not None


def command(args):
    """Return the command of the process that runs the script.

    Raises:
        UsageError: no script was given, or it can't be found.
    """
    flags = subprocess._args_from_interpreter_flags()  # -O, -W, -X, ... of this interpreter, as multiprocessing does
    return [sys.executable, *flags, *script_of(args)]


def script_of(args):
    """Return the script, or -m or -c, with its arguments. Raises UsageError as command() does."""
    for flag, given in (("-m", args.module), ("-c", args.code)):
        if given is not None:
            if not given:
                raise UsageError(f"{flag} needs the name of a module" if flag == "-m" else "-c needs code to run")
            return [flag, *given]
    if args.script[:1] == ["--"]:
        args.script = args.script[1:]
    if not args.script:
        raise UsageError("no script was given; give the path of a Python file, or -m MODULE, or -c CODE")
    if not Path(args.script[0]).exists():
        raise UsageError(f"no script {args.script[0]!r} here")
    return args.script


def environment(enable, **variables):
    """Return the environment of a process in which startup/ acts.

    Args:
        enable: the value of GNNA_ENABLE: "0" (the plug-in stays off), "1" or the summaries to print at the end.
        variables: further environment variables.
    """
    found = dict(os.environ, GNNA_ENABLE=enable, **variables)
    found["PYTHONPATH"] = os.pathsep.join([str(STARTUP), *filter(None, [found.get("PYTHONPATH")])])
    return found
