"""What the measuring commands have in common: their graphs, their device, launch parameters, and the command itself."""

import argparse
import os
import shlex
import sys

from gnna_plugin.tools.arguments import positive
from gnna_plugin.tools.compare.spec import UsageError
from gnna_plugin.tools.renumbering import as_asked


def load_graphs(sources, seed, renumber="no"):
    """Load all graphs, so that none is measured if one cannot be loaded.

    ``renumber`` is a choice of the argument --renumber (gnna_plugin.tools.renumbering).

    Raises:
        UsageError: a graph cannot be loaded. The text is one sentence.
    """
    from gnna_plugin.data import load_graph

    try:
        return [as_asked(load_graph(source, seed=seed), renumber) for source in sources]
    except (ValueError, OSError, ImportError, MemoryError) as error:
        raise UsageError(str(error) or f"not enough memory for {' '.join(sources)}") from error


def command_line():
    """Return the command that is running, to be stored with its results."""
    return shlex.join(["python", "-m", "gnna_plugin", *sys.argv[1:]])


def add_device(parser):
    """Add the arguments --device and --threads, which prepare_device() reads."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                        help="where to run (default: cuda if it can be used, else cpu)")
    parser.add_argument("--threads", type=positive, help="number of CPU threads (default: torch's choice)")


def add_config(parser):
    """Add the argument --config, which fixes launch parameters by hand."""
    parser.add_argument("--config", type=_config, metavar="NAME=N,...",
                        help="CUDA launch parameters to fix instead of having them chosen, such as lanes=16,block=128: "
                             "kernel (row or group), lanes, groups, group_size, vector_width, vectors, block, "
                             "split_above, chunk_edges")


def _config(text):
    from gnna_plugin.decider import parse_config

    try:
        return parse_config(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def prepare_device(args, console):
    """Return the torch.device that the arguments device, cpu_time and threads ask for, and set the threads.

    Raises:
        UsageError: the device cannot be used, or CPU time cannot be measured as asked.
    """
    import torch

    from gnna_plugin.tools.compare import runner

    name, remark = runner.choose_device(args.device)
    if remark:
        console.print(remark, style="dim")
    if getattr(args, "cpu_time", False):
        if name != "cpu" or args.threads not in (None, 1) or os.environ.get("OMP_NUM_THREADS") != "1":
            raise UsageError("--cpu-time measures one thread of a CPU: set OMP_NUM_THREADS=1, and use --device cpu")
        args.threads = 1
    if args.threads:
        torch.set_num_threads(args.threads)
    return torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)
