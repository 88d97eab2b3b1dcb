"""The replacements for PyG's functions of the edges alone: gcn_norm, remove_self_loops and add_self_loops."""

from __future__ import annotations

from collections.abc import Callable

import torch

from gnna_plugin.patching import Patches, stand_in

from . import graph_memo
from .compiled import trace

_patches = Patches()


def _gcn_norm(original: Callable) -> Callable:
    compiling, cached, traced = torch.compiler.is_compiling, graph_memo.cached_gcn_norm, trace.gcn_norm

    def gcn_norm(edge_index, edge_weight=None, num_nodes=None, improved=False, add_self_loops=True,
                 flow="source_to_target", dtype=None):  # fmt: skip
        if not compiling():
            return cached(edge_index, edge_weight, num_nodes, improved, add_self_loops, flow, dtype)
        out = traced(edge_index, edge_weight, num_nodes, improved, add_self_loops, flow, dtype)
        if out is not None:
            return out
        return original(edge_index, edge_weight, num_nodes, improved, add_self_loops, flow, dtype)

    return stand_in(gcn_norm, original)


def _remove_self_loops(original: Callable) -> Callable:
    compiling, cached, traced = (
        torch.compiler.is_compiling,
        graph_memo.cached_remove_self_loops,
        trace.remove_self_loops,
    )

    def remove_self_loops(edge_index, edge_attr=None):
        if not compiling():
            return cached(edge_index, edge_attr)
        out = traced(edge_index, edge_attr)
        return original(edge_index, edge_attr) if out is None else out

    return stand_in(remove_self_loops, original)


def _add_self_loops(original: Callable) -> Callable:
    compiling, cached, traced = torch.compiler.is_compiling, graph_memo.cached_add_self_loops, trace.add_self_loops

    def looped(edge_index, edge_attr=None, fill_value=None, num_nodes=None):
        if not compiling():
            return cached(edge_index, edge_attr, fill_value, num_nodes)
        out = traced(edge_index, edge_attr, fill_value, num_nodes)
        return original(edge_index, edge_attr, fill_value, num_nodes) if out is None else out

    return stand_in(looped, original)


def install() -> None:
    """Replace PyG's functions by the caching ones.

    gcn_norm is replaced in every module of PyG that imported it by name, the self-loop functions in the layers only.
    """
    from torch_geometric.nn.conv.gcn_conv import gcn_norm
    from torch_geometric.utils import add_self_loops, remove_self_loops

    _patches.replace_everywhere("torch_geometric", gcn_norm, _gcn_norm(gcn_norm))
    layers = "torch_geometric.nn.conv"
    _patches.replace_everywhere(layers, remove_self_loops, _remove_self_loops(remove_self_loops))
    _patches.replace_everywhere(layers, add_self_loops, _add_self_loops(add_self_loops))


def uninstall() -> None:
    """Restore PyG's own functions in every module that holds ours."""
    _patches.undo()
