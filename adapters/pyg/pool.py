"""Replaces utils.scatter in PyG's pooling functions, such as global_mean_pool, by a segment reduction.

The batch vector of a pooling layer is sorted, so its plan is the row pointers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import settings
from gnna_plugin.patching import Patches, stand_in

from . import consume, hooks, small_graphs

_patches = Patches()


def _scatter_hook(original: Callable) -> Callable:
    compiling = torch.compiler.is_compiling

    def reduced(src: Any, index: Any, dim: int, dim_size: int | None, reduce: str) -> Any:
        if not settings.active() or type(src) is not Tensor or not -src.dim() <= dim < src.dim():
            return NotImplemented
        if small_graphs.is_small(src, index, False) or not hooks.takes(src, index, dim_size):
            return NotImplemented
        rows = hooks.num_rows(index, dim_size)
        return consume.segment_reduce("pool", src, index, rows, dim % src.dim(), reduce)

    def scatter(src, index, dim=0, dim_size=None, reduce="sum"):
        out = NotImplemented if compiling() else reduced(src, index, dim, dim_size, reduce)
        return original(src, index, dim, dim_size, reduce) if out is NotImplemented else out

    return stand_in(scatter, original)


def install() -> None:
    """Replace PyG's scatter in every module of torch_geometric.nn.pool that imported it by name."""
    from torch_geometric.utils import scatter

    _patches.replace_everywhere("torch_geometric.nn.pool", scatter, _scatter_hook(scatter))


def uninstall() -> None:
    """Restore PyG's own function in every module that holds ours."""
    _patches.undo()
