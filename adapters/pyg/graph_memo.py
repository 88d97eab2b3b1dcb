"""A memory for what layers compute from the graph alone, anew in every forward pass: GCN-like ones normalise it
(gcn_norm), attention takes its self-loops out and puts one on every node. That costs as much as a fused step and makes
a fresh edge index each time. Remembered, the same tensors come back, and so do the plans that belong to them.

An entry belongs to one edge_index (and edge_weight) object and dies with it. It holds only where neither they nor the
results were changed since, and never for trained weights, inference tensors or while something traces.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import add_self_loops

from gnna_plugin import settings, surroundings
from gnna_plugin.patching import Spread, stand_in

_LIMIT = 64  # entries; each lives no longer than its edge_index anyway
_memo: dict[tuple, _Entry] = {}
_captured: list[tuple] = []  # what CUDA graphs read
_lock = threading.Lock()
_spreads: list[Spread] = []
_OPTIONS = (NoneType, bool, int, float, str, torch.dtype)  # types of arguments that may stand in a key


class _Entry:
    """The inputs by weak reference, the results, and a stamp of both. A result that is an input itself (no self-loops
    were added) is kept as that input's position, or the entry would keep its own key alive."""

    __slots__ = ("inputs", "kept", "stamp")

    def __init__(self, key: tuple, inputs: tuple, results: tuple):
        def forget(_):
            _memo.pop(key, None)

        self.inputs = tuple(None if t is None else weakref.ref(t, forget) for t in inputs)
        self.kept = tuple(next((i for i, t in enumerate(inputs) if t is r), r) for r in results)
        self.stamp = _stamp(*inputs, *results)

    def results(self, inputs: tuple) -> tuple | None:
        """The results, if these are the inputs they came from and nothing was changed since."""
        if any((r() if r is not None else None) is not t for r, t in zip(self.inputs, inputs, strict=True)):
            return None
        results = tuple(inputs[k] if type(k) is int else k for k in self.kept)
        return results if self.stamp == _stamp(*inputs, *results) else None


def _stamp(*tensors: Tensor | None) -> tuple:
    return tuple(None if t is None else (t._version, t.data_ptr(), t.shape) for t in tensors)


def _memorable(edge_index: Any, edge_weight: Any) -> bool:
    if type(edge_index) is not Tensor or edge_index.layout is not torch.strided or edge_index.is_inference():
        return False
    if edge_weight is not None:
        if type(edge_weight) not in (Tensor, torch.nn.Parameter) or edge_weight.requires_grad:
            return False
        if edge_weight.is_inference():
            return False
    return not (
        torch.is_inference_mode_enabled()
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack()
    )


def _key(original: Callable, inputs: tuple, of_layer: bool, *options: Any) -> tuple:
    """What an entry is found by. With the stream: another could read what this one is still computing."""
    edge_index = inputs[0]
    stream = torch.cuda.current_stream(edge_index.device) if edge_index.is_cuda else None
    return stream, original, of_layer, *(None if t is None else id(t) for t in inputs), *options


def _before_capture(inputs: tuple, key: tuple) -> tuple | None:
    """What was remembered, on whatever stream, before the CUDA graph's capture began, which waits for all of them. The
    graph reads it for as long as it may be replayed, so it is kept for good."""
    for known, entry in list(_memo.items()):
        if known[1:] == key[1:] and (results := entry.results(inputs)) is not None:
            _captured.append(results)
            return results
    return None


def _remember(original: Callable, of_layer: bool = False) -> Callable:
    """of_layer: what is computed stays inside a layer, where nobody writes to it."""

    def remember(edge_index, edge_weight, *options):
        if not settings.active() or not _memorable(edge_index, edge_weight):
            return original(edge_index, edge_weight, *options)
        if any(type(option) not in _OPTIONS for option in options):
            return original(edge_index, edge_weight, *options)
        inputs = (edge_index, edge_weight)
        key = _key(original, inputs, of_layer, *options)
        if surroundings.capturing(edge_index):
            return _before_capture(inputs, key) or original(edge_index, edge_weight, *options)
        entry = _memo.get(key)
        if entry is not None and (results := entry.results(inputs)) is not None:
            return results
        results = original(edge_index, edge_weight, *options)
        if of_layer and edge_weight is None and results[1] is not None:
            torch.ops.gnna.mark_constant(results[1])
        with _lock:
            while len(_memo) >= _LIMIT:
                _memo.pop(next(iter(_memo)), None)
            _memo[key] = _Entry(key, inputs, results)
        return results

    return remember


_looped = _remember(add_self_loops)


def _gcn_norm(original: Callable) -> Callable:
    compiling, frame_of = torch.compiler.is_compiling, sys._getframe  # a stand-in has the original's globals
    remember, remember_for_layer = _remember(original), _remember(original, of_layer=True)

    def gcn_norm(edge_index, edge_weight=None, num_nodes=None, improved=False, add_self_loops=True,
                 flow="source_to_target", dtype=None):  # fmt: skip
        if compiling():
            return original(edge_index, edge_weight, num_nodes, improved, add_self_loops, flow, dtype)
        # A transform or a script of the user's may write to what it gets.
        by_layer = frame_of(1).f_globals.get("__name__", "").startswith("torch_geometric.nn.")
        known = remember_for_layer if by_layer else remember
        return known(edge_index, edge_weight, num_nodes, improved, add_self_loops, flow, dtype)

    return stand_in(gcn_norm, original)


def _remove_self_loops(original: Callable) -> Callable:
    compiling, remember = torch.compiler.is_compiling, _remember(original)

    def remove_self_loops(edge_index, edge_attr=None):
        return (original if compiling() else remember)(edge_index, edge_attr)

    return stand_in(remove_self_loops, original)


def _add_self_loops(original: Callable) -> Callable:
    compiling, remember = torch.compiler.is_compiling, _remember(original)

    def looped(edge_index, edge_attr=None, fill_value=None, num_nodes=None):
        return (original if compiling() else remember)(edge_index, edge_attr, fill_value, num_nodes)

    return stand_in(looped, original)


def with_self_loops(edge_index: Tensor, num_nodes: int) -> Tensor | None:
    """edge_index and, after its edges, a loop on every node, remembered; None where it would be made for one call."""
    if not _memorable(edge_index, None):
        return None
    if surroundings.capturing(edge_index):
        inputs = (edge_index, None)
        found = _before_capture(inputs, _key(add_self_loops, inputs, False, None, num_nodes))
        return found and found[0]
    return _looped(edge_index, None, None, num_nodes)[0]


def install() -> None:
    """Puts the remembering functions in place of PyG's: gcn_norm wherever it was imported by name, those of self-loops
    in the layers only, which keep the results to themselves."""
    from torch_geometric.nn.conv.gcn_conv import gcn_norm
    from torch_geometric.utils import remove_self_loops

    _spreads.append(Spread("torch_geometric", gcn_norm, _gcn_norm(gcn_norm)))
    layers = "torch_geometric.nn.conv"
    _spreads.append(Spread(layers, remove_self_loops, _remove_self_loops(remove_self_loops)))
    _spreads.append(Spread(layers, add_self_loops, _add_self_loops(add_self_loops)))


def uninstall() -> None:
    """Gives PyG's own functions back to every module that holds ours."""
    _memo.clear()
    while _spreads:
        _spreads.pop().undo()
