"""Scripts layers one after another, with the plug-in on or off in each step, and prints what torch.jit compiled.

Usage: script_sequences.py 'off:AGNNConv off:GCNConv' 'on:AGNNConv off:GCNConv' ...

Prints one JSON list per sequence. Each sequence runs in a fork of a process that has scripted nothing, because
torch.jit caches everything that it compiles.
"""

from __future__ import annotations

import json
import os
import re
import sys

import torch
from torch_geometric import nn

import gnna_plugin
import gnna_plugin.adapters.pyg  # noqa: F401

LAYERS = {
    "AGNNConv": lambda: nn.AGNNConv(),
    "ChebConv": lambda: nn.ChebConv(4, 4, 3),
    "GCNConv": lambda: nn.GCNConv(4, 4),
    "SGConv": lambda: nn.SGConv(4, 4),
}


def tables():
    """Return torch.jit's process-wide tables, with functions by name. A stand-in left in them would appear twice."""
    caches = torch.jit._state._jit_function_overload_caching, torch.jit._state._jit_caching_layer
    by_name = [sorted((f"{f.__module__}.{f.__name__}", str(value)) for f, value in cache.items()) for cache in caches]
    return [*by_name, sorted(torch._jit_internal._overloaded_fns)]


def script(mode, name):
    gnna_plugin.enable("pyg", min_work=0) if mode == "on" else gnna_plugin.disable()
    try:
        code = torch.jit.script(LAYERS[name]()).code
    except Exception as error:
        code = re.sub(r"0x[0-9a-f]+", "", f"{type(error).__name__}: {error}")
    return code, tables()


def run_in_fork(sequence):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(write, "w") as file:
            json.dump([script(*step.split(":")) for step in sequence.split()], file)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    os.waitpid(child, 0)
    return text


if __name__ == "__main__":
    torch.set_num_threads(1)
    for argument in sys.argv[1:]:
        print(run_in_fork(argument), flush=True)
