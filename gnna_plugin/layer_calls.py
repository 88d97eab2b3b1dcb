"""Finds the calls of graph layers in a running model, through torch's hooks on all modules.

A graph layer is a MessagePassing layer of PyG, or a module whose arguments include a DGLGraph. Verify mode and
profile() observe models through this file, so that neither depends on how an adapter hooks into its framework.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.modules import module as modules

Before = Callable[[torch.nn.Module, tuple], Any]
After = Callable[[torch.nn.Module, tuple, dict, Any, Any], None]
# Whether this torch gives hooks the keyword arguments of a call, which watch() needs.
SUPPORTED = "with_kwargs" in inspect.signature(modules.register_module_forward_hook).parameters


class _Thread(threading.local):
    def __init__(self) -> None:
        self.running: list[tuple[torch.nn.Module, Any]] = []
        self.paused = False


def watch(before: Before, after: After) -> Callable[[], None]:
    """Call two functions around every call of a graph layer, but not in code that torch compiles or traces.

    Args:
        before: called with the layer and its positional arguments. Its result is the state of this call.
        after: called with the layer, its arguments, its keyword arguments, its output, and the state. Not called if
            the layer raised an exception. Layers that it calls itself are not watched.

    Returns:
        A function that stops watching.

    Raises:
        RuntimeError: this release of torch does not give hooks the keyword arguments of a call.
    """
    if not SUPPORTED:
        raise RuntimeError(
            f"torch {torch.__version__} does not pass keyword arguments to the hooks that verify mode and profile() "
            "need; a newer torch does"
        )
    thread = _Thread()

    def enter(module: torch.nn.Module, args: tuple) -> None:
        if torch.compiler.is_compiling() or thread.paused or not is_graph_layer(module, args):
            return
        thread.running.append((module, before(module, args)))

    def leave(module: torch.nn.Module, args: tuple, *rest: Any) -> None:
        if torch.compiler.is_compiling() or thread.paused or not thread.running or thread.running[-1][0] is not module:
            return
        _, state = thread.running.pop()
        if len(rest) < 2:  # the layer raised an exception: torch leaves out the keyword arguments
            return
        kwargs, output = rest
        thread.paused = True
        try:
            after(module, args, kwargs, output, state)
        finally:
            thread.paused = False

    entering = modules.register_module_forward_pre_hook(enter)
    leaving = modules.register_module_forward_hook(leave, with_kwargs=True, always_call=True)

    def stop() -> None:
        entering.remove()
        leaving.remove()

    return stop


def is_graph_layer(module: torch.nn.Module, args: tuple) -> bool:
    """Return whether a module is a layer of PyG, or is called with a graph of DGL."""
    layers = getattr(sys.modules.get("torch_geometric.nn.conv"), "MessagePassing", ())
    if layers and isinstance(module, layers):
        return True
    graphs = getattr(sys.modules.get("dgl"), "DGLGraph", ())
    return bool(graphs) and any(isinstance(arg, graphs) for arg in args)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in tensors_in(part)]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in tensors_in(part)]
    return []
