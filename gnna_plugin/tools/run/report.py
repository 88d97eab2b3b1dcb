"""The summary that a process prints when it ends (`gnna run --report`)."""

import atexit
import os
import sys

import gnna_plugin

_registered = False


def at_exit():
    """Print status() to stderr when this process ends."""
    global _registered
    if not _registered:
        _registered = True
        atexit.register(_print)


def _print():
    status = gnna_plugin.status()
    rank = os.environ.get("RANK")
    lines = [f"gnna_plugin, rank {rank}:"] if rank is not None else []
    lines.append(str(status))
    if not status.layers:
        lines.append("  no layer of the script reached the plug-in")
    print("\n".join(lines), file=sys.stderr)
