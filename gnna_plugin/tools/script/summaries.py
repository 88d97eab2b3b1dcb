"""The summaries that a process prints when it ends (`gnna run --report`, `--profile`, `--verify`)."""

import atexit
import os
import sys

import gnna_plugin
from gnna_plugin import profiling

_registered = False


def at_exit(summaries):
    """Print summaries to stderr when this process ends.

    Args:
        summaries: any of "report" (status()), "profile" (the time of each graph layer, from now on) and "verify" (what
            verify mode found).
    """
    global _registered
    if not _registered:
        _registered = True
        profile, stop = profiling.start() if "profile" in summaries else (None, None)
        atexit.register(_print, os.getpid(), summaries, profile, stop)


def _print(process, summaries, profile, stop):
    if os.getpid() != process:  # a fork of the process
        return
    status = gnna_plugin.status()
    lines = []
    if profile is not None:
        stop()
        lines.append(str(profile))
    if "report" in summaries:
        lines.append(str(status))
        if not status.layers:
            lines.append("  no layer of the script reached the plug-in")
    if "verify" in summaries:
        lines.append(_verdict(status.comparisons))
        if "report" not in summaries:
            lines += [f"  {name}: {comparison}" for name, comparison in sorted(status.comparisons.items())]
    if (rank := os.environ.get("RANK")) is not None:
        lines.insert(0, f"gnna_plugin, rank {rank}:")
    print("\n".join(lines), file=sys.stderr)


def _verdict(comparisons):
    differing = sorted(name for name, comparison in comparisons.items() if comparison.differing)
    if differing:
        return f"gnna_plugin verify: {', '.join(differing)} DIFFER from the framework's own path"
    if not any(comparison.calls for comparison in comparisons.values()):
        return "gnna_plugin verify: no call of a layer was compared"
    if not any(comparison.accelerated for comparison in comparisons.values()):
        return "gnna_plugin verify: no layer ran on the plug-in, so there was nothing to find"
    return "gnna_plugin verify: all layers agree with the framework's own path"
