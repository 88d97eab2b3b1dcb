"""The PyTorch Geometric adapter: installs the hooks in PyG's functions and removes them.

PyG has no registry for aggregation backends, so the plug-in replaces functions. The mechanisms and their files:

- hooks.py: MessagePassing._index_select returns a lazy message, a gather that has not run yet. TorchScript functions
  and autograd.Function bypass a tensor's Python class, so they receive real messages.
- lazy.py, lazy_operations.py, lazy_products.py: lazy messages and the operations that keep them lazy. A product of two
  lazy messages, summed over its features, is one sddmm.
- lazy_functions.py, lazy_shapes.py, lazy_operands.py, lazy_pairs.py: functions of gathered features, computed per node
  or by one op of both ends (docs/message-algebra.md).
- consume.py: Aggregation.reduce and torch's scatter functions turn a lazy message into one spmm.
- layer_call.py: a lazy message ends with its layer's call, propagate or edge_updater.
- compiled_boundary.py: code compiled by torch.compile receives real messages.
- compiled/: layers inside code compiled by torch.compile.
- direct.py: layers that only gather, weigh and reduce run as one op.
- relations.py: the edges of each relation of an RGCNConv are cached.
- sparse.py: products of a sparse matrix and features use the same op.
- graph_memo.py, graph_hooks.py: results that depend on the graph alone, gcn_norm and self-loops, are cached.
- softmax.py: utils.softmax is one kernel.
- pool.py: pooling functions reduce sorted rows by one kernel.
- gin.py: GINConv's (1 + eps) * x becomes a self-loop.
- own_code.py: shortcuts check here whether the steps that they skip are still PyG's.
"""

from __future__ import annotations

import warnings

import torch
import torch_geometric
from torch_geometric.nn import Aggregation, GINConv, MessagePassing
from torch_geometric.nn.conv import rgcn_conv

from gnna_plugin.patching import Patches, misfit, script_aliases

from . import (
    compiled_boundary,
    direct,
    gin,
    graph_hooks,
    hooks,
    layer_call,
    lazy_functions,  # noqa: F401
    lazy_operations,  # noqa: F401
    lazy_products,  # noqa: F401
    lazy_shapes,  # noqa: F401
    pool,
    relations,
    softmax,
    sparse,
)
from .compiled import graph as compiled_graph

TESTED = ((2, 8), (2, 9))  # tested releases of torch_geometric: the first one, and the first one after the last
_TESTED_TEXT = f">= {TESTED[0][0]}.{TESTED[0][1]}, < {TESTED[1][0]}.{TESTED[1][1]}"

# The functions that the hooks rely on and their parameters. If a release differs, the plug-in stays off rather than
# half-patched.
_SIGNATURES = (
    (MessagePassing, "_index_select", ["self", "src", "index"]),
    (MessagePassing, "_index_select_safe", ["self", "src", "index"]),
    (MessagePassing, "_set_jittable_templates", ["self", "raise_on_error"]),
    (Aggregation, "reduce", ["self", "x", "index", "ptr", "dim_size", "dim", "reduce"]),
    (GINConv, "forward", ["self", "x", "edge_index", "size"]),
    (rgcn_conv, "masked_edge_index", ["edge_index", "edge_mask"]),
    (torch_geometric.edge_index, "_spmm", ["input", "other", "value", "reduce", "transpose"]),
    (torch_geometric.utils, "spmm", ["src", "other", "reduce"]),
    (torch_geometric.utils, "softmax", ["src", "index", "ptr", "num_nodes", "dim"]),
    (torch._functorch.utils, "unwrap_dead_wrappers", ["args"]),
)

_patches = Patches()


def install() -> bool:
    """Install the hooks.

    Returns:
        False if this PyG does not fit the hooks. A warning gives the reason.
    """
    problem = misfit(_SIGNATURES)
    if problem is not None:
        text = f"gnna_plugin stays off for PyG {torch_geometric.__version__}: {problem}; install PyG {_TESTED_TEXT}"
        warnings.warn(text, stacklevel=4)
        return False
    version = tuple(int(part) for part in torch_geometric.__version__.split(".")[:2])
    if not TESTED[0] <= version < TESTED[1]:
        warnings.warn(
            f"gnna_plugin is tested with PyG {_TESTED_TEXT}; found {torch_geometric.__version__}, whose functions have "
            "the expected parameters, so the plug-in is on",
            stacklevel=4,
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
    layer_call.install(direct.propagate, direct.propagate_small)
    graph_hooks.install()
    relations.install()
    sparse.install()
    softmax.install()
    pool.install()
    compiled_graph.forget_compiled()
    return True


def uninstall() -> None:
    """Restore PyG's own functions."""
    pool.uninstall()
    softmax.uninstall()
    sparse.uninstall()
    relations.uninstall()
    graph_hooks.uninstall()
    layer_call.uninstall()
    compiled_boundary.uninstall()
    compiled_graph.uninstall()
    compiled_graph.forget_compiled()
    script_aliases.release()
    _patches.undo()
