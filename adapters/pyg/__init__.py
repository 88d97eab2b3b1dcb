"""The PyTorch Geometric adapter: which of PyG's functions are replaced, and how that is undone.

MessagePassing._index_select returns a gather that has not happened yet (lazy.py, lazy_operations.py). The layer's call,
propagate or edge_updater, ends it (layer_call.py). Aggregation.reduce and torch's scatter functions turn it into one
spmm (consume.py). The product of two, summed over its features, is one sddmm (lazy_products.py). What layers compute
from the graph alone, gcn_norm and self-loops, is remembered (graph_memo.py), utils.softmax is one kernel (softmax.py),
and GINConv's own term becomes a self-loop (gin.py). Shortcuts ask own_code.py whether a step that they skip is still
PyG's. Code that sees past a tensor's Python class (TorchScript, autograd.Function, compiled code) finds real messages
(compiled_boundary.py). PyG has no registry for aggregation backends: these hooks are it.
"""

from __future__ import annotations

import warnings

import torch
import torch_geometric
from torch_geometric.nn import Aggregation, GINConv, MessagePassing

from gnna_plugin.adapters.pyg import (
    compiled_boundary,
    gin,
    graph_memo,
    hooks,
    layer_call,
    lazy_operations,  # noqa: F401
    lazy_products,  # noqa: F401
    softmax,
)
from gnna_plugin.patching import Patches, misfit, script_aliases

TESTED = ((2, 8), (2, 9))  # first and first-after-last tested release of torch_geometric
_TESTED_TEXT = f"{TESTED[0][0]}.{TESTED[0][1]} to before {TESTED[1][0]}.{TESTED[1][1]}"

# What the hooks rely on; where a release differs, the plug-in stays off rather than half-patched.
_SIGNATURES = (
    (MessagePassing, "_index_select", ["self", "src", "index"]),
    (MessagePassing, "_index_select_safe", ["self", "src", "index"]),
    (MessagePassing, "_set_jittable_templates", ["self", "raise_on_error"]),
    (Aggregation, "reduce", ["self", "x", "index", "ptr", "dim_size", "dim", "reduce"]),
    (GINConv, "forward", ["self", "x", "edge_index", "size"]),
    (torch_geometric.utils, "softmax", ["src", "index", "ptr", "num_nodes", "dim"]),
    (torch._functorch.utils, "unwrap_dead_wrappers", ["args"]),
)

_patches = Patches()


def install() -> bool:
    """Puts the hooks in place. False, with a warning that says why, where this PyG does not fit them."""
    problem = misfit(_SIGNATURES)
    if problem is not None:
        text = f"gnna_plugin stays off for PyG {torch_geometric.__version__}: {problem}; tested is {_TESTED_TEXT}"
        warnings.warn(text, stacklevel=4)
        return False
    version = tuple(int(part) for part in torch_geometric.__version__.split(".")[:2])
    if not TESTED[0] <= version < TESTED[1]:
        warnings.warn(
            f"gnna_plugin is tested with PyG {_TESTED_TEXT}; found {torch_geometric.__version__}, whose hooks fit",
            stacklevel=3,
        )
    _patches.replace(MessagePassing, "_index_select", hooks.index_select_hook(MessagePassing._index_select))
    _patches.replace(GINConv, "forward", gin.forward_hook(GINConv.forward))
    _patches.replace(Aggregation, "reduce", hooks.reduce_hook(Aggregation.reduce))
    for scripted in (torch.jit.ScriptFunction, torch._C.ScriptMethod):
        _patches.replace(scripted, "__call__", hooks.boundary(scripted.__call__, "torch.jit.script"))
    unwrap_arguments = torch._functorch.utils.unwrap_dead_wrappers
    _patches.replace(torch._functorch.utils, "unwrap_dead_wrappers", hooks.function_boundary(unwrap_arguments))
    templates = layer_call.templates_hook(MessagePassing._set_jittable_templates)
    _patches.replace(MessagePassing, "_set_jittable_templates", templates)
    layer_call.install()
    graph_memo.install()
    softmax.install()
    return True


def uninstall() -> None:
    """Restores PyG's own functions."""
    softmax.uninstall()
    graph_memo.uninstall()
    layer_call.uninstall()
    compiled_boundary.uninstall()
    script_aliases.release()
    _patches.undo()
