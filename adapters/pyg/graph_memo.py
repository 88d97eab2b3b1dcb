"""Caches what layers compute from the graph alone in every forward pass: gcn_norm, and the self-loops that attention
layers remove and add.

PyG recomputes these in every pass and returns a new edge index each time, for which a new plan would be built. A cached
result is the same edge index again, so its plans are cache hits. The entries live in C++ (csrc/torch/plan/memo.h). They
are found by the identity of edge_index and edge_weight and are dropped when these die. Every caller receives its own
copies, which share memory until one of them is written to.
"""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_self_loops, remove_self_loops

from gnna_plugin import settings, surroundings

from . import one_pass, small_graphs

_OPTIONS = (NoneType, bool, int, float, str, torch.dtype)  # types of arguments that an entry's name may contain
# Kinds of results: None, the given edge_index or edge_weight itself (no self-loops were added), or a tensor to cache.
_NONE, _EDGES, _WEIGHT, _NEW = "-ewn"


def memorable(edge_index: Any, edge_weight: Any) -> bool:
    """Return whether results for these tensors can be cached here. edge_weight: any tensor with the edges, or None."""
    if type(edge_index) is not Tensor or edge_index.layout is not torch.strided or edge_index.is_inference():
        return False
    if not (edge_index.is_cpu or edge_index.is_cuda):
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


def _kind(result: Tensor | None, edge_index: Tensor, edge_weight: Tensor | None) -> str:
    if result is None:
        return _NONE
    return _EDGES if result is edge_index else _WEIGHT if result is edge_weight else _NEW


def _put_together(tensors: list[Tensor], form: str, edge_index: Tensor, edge_weight: Tensor | None) -> tuple:
    new, own = iter(tensors), {_NONE: None, _EDGES: edge_index, _WEIGHT: edge_weight}
    return tuple(next(new) if kind == _NEW else own[kind] for kind in form)


def _name(function: str, options: tuple) -> str:
    """Return an entry's name: all that a result depends on besides its tensors."""
    return f"{function}{options}{torch.get_default_dtype()}"


def _remember(original: Callable, quick: Callable, shared: bool = False) -> Callable:
    """Return a version of `original` that caches its results.

    Args:
        original: a function of edge_index, edge_weight and options that returns a tuple of tensors.
        quick: a faster equivalent, which returns None for arguments that it does not support.
        shared: whether all callers receive the same tensors, because they never write to them.
    """
    function, recall, keep = original.__name__, torch.ops.gnna.recall.default, torch.ops.gnna.remember.default

    def compute(edge_index, edge_weight, options):
        results = quick(edge_index, edge_weight, *options)
        return original(edge_index, edge_weight, *options) if results is None else results

    def remember(edge_index, edge_weight, *options):
        if not settings.active() or not memorable(edge_index, edge_weight):
            return original(edge_index, edge_weight, *options)
        if any(type(option) not in _OPTIONS for option in options):
            return original(edge_index, edge_weight, *options)
        if small_graphs.comes_once(edge_index):
            return compute(edge_index, edge_weight, options)
        inputs = [edge_index] if edge_weight is None else [edge_index, edge_weight]
        name = _name(f"shared {function}" if shared else function, options)
        tensors, form = recall(name, inputs)
        if not tensors:
            results = compute(edge_index, edge_weight, options)
            form = "".join(_kind(result, edge_index, edge_weight) for result in results)
            new = [result for result, kind in zip(results, form, strict=True) if kind == _NEW]
            if not new or any(type(tensor) is not Tensor for tensor in new):
                return results
            tensors = keep(name, inputs, new, form, shared)
        return _put_together(tensors, form, edge_index, edge_weight)

    return remember


# PyG's functions with their results cached; all arguments by position. Those in `shared` are for code that never writes
# to the results.
cached_gcn_norm = _remember(gcn_norm, one_pass.gcn_norm)
cached_remove_self_loops = _remember(remove_self_loops, one_pass.remove_self_loops)
cached_add_self_loops = _remember(add_self_loops, one_pass.add_self_loops)
shared_gcn_norm = _remember(gcn_norm, one_pass.gcn_norm, shared=True)
shared_remove_self_loops = _remember(remove_self_loops, one_pass.remove_self_loops, shared=True)
shared_add_self_loops = _remember(add_self_loops, one_pass.add_self_loops, shared=True)


def with_self_loops(edge_index: Tensor, num_nodes: int) -> Tensor | None:
    """Return edge_index followed by a self-loop on every node, cached.

    Returns:
        None if the result cannot be cached or is not worth caching. Also None while a CUDA graph is captured, unless
        the result is cached already.
    """
    if not memorable(edge_index, None) or small_graphs.comes_once(edge_index):
        return None
    if surroundings.capturing(edge_index) and not torch.ops.gnna.recall(_loops_name(num_nodes), [edge_index])[0]:
        return None
    return cached_add_self_loops(edge_index, None, None, num_nodes)[0]


def _loops_name(num_nodes: int) -> str:
    return _name(add_self_loops.__name__, (None, num_nodes))
