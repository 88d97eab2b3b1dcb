"""Caches the edge list of each relation of an RGCNConv.

PyG selects the edges of every relation in every forward pass, and each selection waits for the device and would need a
new plan. The selections are found by the identity of edge_index and edge_type, as the results in graph_memo.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.conv import rgcn_conv

from gnna_plugin import settings
from gnna_plugin.patching import Patches, Spread, stand_in

from . import graph_memo, small_graphs

_patches = Patches()
_spread: Spread | None = None


class _Pass:
    """A forward pass, in which PyG selects the edges of one relation after the other."""

    def __init__(self, edge_type: Tensor) -> None:
        self.edge_type, self.relation = edge_type, 0


class _Thread(threading.local):
    running: _Pass | None = None


def _forward_hook(original: Callable) -> Callable:
    compiling, thread, pass_of = torch.compiler.is_compiling, _thread, _pass_of

    def forward(self, x, edge_index, edge_type=None):
        if compiling():
            return original(self, x, edge_index, edge_type)
        outer = thread.running
        thread.running = pass_of(edge_index, edge_type)
        try:
            return original(self, x, edge_index, edge_type)
        finally:
            thread.running = outer

    return stand_in(forward, original)


def _pass_of(edge_index: Any, edge_type: Any) -> _Pass | None:
    if not settings.active() or type(edge_type) is not Tensor or not graph_memo.memorable(edge_index, edge_type):
        return None
    return None if small_graphs.comes_once(edge_index) else _Pass(edge_type)


def _selection_hook(original: Callable) -> Callable:
    compiling, thread, select = torch.compiler.is_compiling, _thread, _select

    def masked_edge_index(edge_index, edge_mask):
        running = None if compiling() else thread.running
        if running is None:
            return original(edge_index, edge_mask)
        return select(original, running, edge_index, edge_mask)

    return stand_in(masked_edge_index, original)


def _select(original: Callable, running: _Pass, edge_index: Tensor, edge_mask: Tensor) -> Tensor:
    name, inputs = f"relation {running.relation}", [edge_index, running.edge_type]
    running.relation += 1
    known, _ = torch.ops.gnna.recall(name, inputs)
    if not known:
        known = torch.ops.gnna.remember(name, inputs, [original(edge_index, edge_mask)], "")
    return known[0]


_thread = _Thread()


def install() -> None:
    """Replace RGCNConv.forward and the function that selects edges."""
    global _spread
    _patches.replace(rgcn_conv.RGCNConv, "forward", _forward_hook(rgcn_conv.RGCNConv.forward))
    select = rgcn_conv.masked_edge_index
    _spread = Spread("torch_geometric.nn.conv", select, _selection_hook(select))


def uninstall() -> None:
    """Restore PyG's own functions."""
    global _spread
    if _spread is not None:
        _spread.undo()
        _spread = None
    _patches.undo()
