"""Finds the calls of graph layers in a running model, by wrapping the call of all modules of torch.

A graph layer is a MessagePassing layer of PyG, or a module whose arguments include a DGLGraph. Verify mode and
profile() observe models through this file, so that neither depends on how an adapter hooks into its framework.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

Before = Callable[[torch.nn.Module, tuple, dict], Any]
After = Callable[[torch.nn.Module, tuple, dict, Any, Any], None]


class _Thread(threading.local):
    paused = False


_thread = _Thread()
_watchers: list[tuple[Before, After]] = []
_original: Callable = torch.nn.Module._call_impl  # while something is watched: the function that was there before


def watch(before: Before, after: After) -> Callable[[], None]:
    """Call two functions around every call of a graph layer, but not in code that torch compiles or traces.

    Args:
        before: called with the layer, its arguments and its keyword arguments. Its result is the state of this call.
        after: called with the layer, its arguments, its keyword arguments, its output, and the state. Not called if
            the layer raised an exception.

    Layers that `before` or `after` call are not watched.

    Returns:
        A function that stops watching. After the last one, torch has its own function back.
    """
    global _original
    watcher = before, after
    if not _watchers:
        _original, torch.nn.Module._call_impl = torch.nn.Module._call_impl, _call_impl  # type: ignore[method-assign]
    _watchers.append(watcher)

    def stop() -> None:
        _watchers.remove(watcher)
        if not _watchers:
            torch.nn.Module._call_impl = _original  # type: ignore[method-assign]

    return stop


@functools.wraps(torch.nn.Module._call_impl)
def _call_impl(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    if torch.compiler.is_compiling() or _thread.paused or not is_graph_layer(self, args, kwargs):
        return _original(self, *args, **kwargs)
    states = [(after, _paused(before, self, args, kwargs)) for before, after in _watchers]
    output = _original(self, *args, **kwargs)
    for after, state in reversed(states):
        _paused(after, self, args, kwargs, output, state)
    return output


def _paused(function: Callable, *args: Any) -> Any:
    _thread.paused = True
    try:
        return function(*args)
    finally:
        _thread.paused = False


def is_graph_layer(module: torch.nn.Module, args: tuple, kwargs: dict) -> bool:
    """Return whether a module is a layer of PyG, or is called with a graph of DGL."""
    layers = getattr(sys.modules.get("torch_geometric.nn.conv"), "MessagePassing", ())
    if layers and isinstance(module, layers):
        return True
    graphs = getattr(sys.modules.get("dgl"), "DGLGraph", ())
    return bool(graphs) and any(isinstance(arg, graphs) for arg in (*args, *kwargs.values()))


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors in nested tuples, lists, dictionaries and PyG's data objects, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in tensors_in(part)]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in tensors_in(part)]
    if type(value).__module__.startswith("torch_geometric.data") and hasattr(value, "to_dict"):
        return tensors_in(value.to_dict())
    return []
