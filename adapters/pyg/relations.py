"""Caches the edge list of each relation of an RGCNConv.

PyG selects the edges of every relation in every forward pass, and each selection waits for the device and would need a
new plan. The selections are found by the number of the relation and the identity of edge_index and edge_type.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import torch
from torch import Tensor
from torch_geometric.nn.conv import rgcn_conv

from gnna_plugin import settings
from gnna_plugin.patching import Patches, stand_in

from . import graph_memo, small_graphs

_patches = Patches()


def _selection_hook(original: Callable) -> Callable:
    compiling, active, select, frame = torch.compiler.is_compiling, settings.active, _select, sys._getframe

    def masked_edge_index(edge_index, edge_mask):
        if compiling() or not active():
            return original(edge_index, edge_mask)
        return select(original, frame(1), edge_index, edge_mask)

    return stand_in(masked_edge_index, original)


def _select(original: Callable, caller: FrameType, edge_index: Tensor, edge_mask: Tensor) -> Tensor:
    # PyG's loop is `for i in range(num_relations): ... masked_edge_index(edge_index, edge_type == i)`. A mask does not
    # say where it comes from, so the loop's variables are read.
    if caller.f_code is not rgcn_conv.RGCNConv.forward.__code__:
        return original(edge_index, edge_mask)
    relation, edge_type = caller.f_locals.get("i"), caller.f_locals.get("edge_type")
    if type(relation) is not int or type(edge_type) is not Tensor or not graph_memo.memorable(edge_index, edge_type):
        return original(edge_index, edge_mask)
    if small_graphs.comes_once(edge_index):
        return original(edge_index, edge_mask)
    name, inputs = f"relation {relation}", [edge_index, edge_type]
    known, _ = torch.ops.gnna.recall(name, inputs)
    if not known:
        known = torch.ops.gnna.remember(name, inputs, [original(edge_index, edge_mask)], "")
    return known[0]


def install() -> None:
    """Replace the function that selects edges."""
    select = rgcn_conv.masked_edge_index
    _patches.replace_everywhere("torch_geometric.nn.conv", select, _selection_hook(select))


def uninstall() -> None:
    """Restore PyG's own function."""
    _patches.undo()
