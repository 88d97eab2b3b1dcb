"""The DGL adapter: installs the hooks in DGL's functions and removes them.

DGL has no registry for aggregation backends, so the plug-in replaces functions:

- dgl.backend.pytorch.sparse._gspmm: update_all, dgl.nn, dgl.ops and both directions of autograd call it in every DGL
  from 1.1 on. It is replaced for all reducers (hooks.py).
- dgl.ops.gspmm: replaced for sum and mean. It sees a mean before DGL splits it into a sum and a division, and the
  gradient then runs in C++ (hooks.py).
- dgl.ops.u_add_v_sum and others: added. update_all finds these operators by name and calls them (both_ends.py).
- _gsddmm and EdgeSoftmax in the module of _gspmm: products of the features of both ends of an edge, and attention's
  softmax (edge_hooks.py).
- the functions that derive graph indices: a graph returns the same objects for its relations and its reverse each time
  (graphs.py).
"""

from __future__ import annotations

import os
import warnings

os.environ.setdefault("DGLBACKEND", "pytorch")  # or DGL's first import writes a configuration file and prints a notice

from .importing import explained  # noqa: E402

with explained():
    import dgl
import dgl.backend.pytorch.sparse as sparse  # noqa: E402
import dgl.heterograph_index as heterograph_index  # noqa: E402
import dgl.ops.spmm as ops_spmm  # noqa: E402
from dgl.heterograph_index import HeteroGraphIndex  # noqa: E402

from gnna_plugin.patching import Patches, misfit  # noqa: E402

from . import both_ends, edge_hooks, graphs, hooks  # noqa: E402

_SIGNATURES = (
    (sparse, "_gspmm", ["gidx", "op", "reduce_op", "u", "e"]),
    (sparse, "_gsddmm", ["gidx", "op", "lhs", "rhs", "lhs_target", "rhs_target"]),
    (sparse, "edge_softmax", ["gidx", "logits", "eids", "norm_by"]),
    (HeteroGraphIndex, "get_relation_graph", ["self", "etype"]),
    (HeteroGraphIndex, "reverse", ["self"]),
    (heterograph_index, "create_heterograph_from_relations", ["metagraph", "rel_graphs", "num_nodes_per_type"]),
    (ops_spmm, "gspmm", ["g", "op", "reduce_op", "lhs_data", "rhs_data"]),
)
_TESTED = "1.1"

_patches = Patches()


def install() -> bool:
    """Install the hooks.

    Returns:
        False if this DGL does not fit the hooks. A warning gives the reason.
    """
    problem = misfit(_SIGNATURES)
    if problem is not None:
        text = f"gnna_plugin stays off for DGL {dgl.__version__}: {problem}; install DGL {_TESTED}"
        warnings.warn(text, stacklevel=4)
        return False
    if not dgl.__version__.startswith(_TESTED):
        warnings.warn(
            f"gnna_plugin is tested with DGL {_TESTED}; found {dgl.__version__}, whose functions have the expected "
            "parameters, so the plug-in is on",
            stacklevel=4,
        )
    _patches.replace(sparse, "_gspmm", hooks.gspmm_hook(sparse._gspmm))
    _patches.replace(sparse, "_gsddmm", edge_hooks.gsddmm_hook(sparse._gsddmm))
    _patches.replace(sparse, "EdgeSoftmax", edge_hooks.edge_softmax_hook(sparse.EdgeSoftmax))
    for name in ("get_relation_graph", "reverse"):
        _patches.replace(HeteroGraphIndex, name, graphs.derived_hook(getattr(HeteroGraphIndex, name)))
    create = "create_heterograph_from_relations"
    _patches.replace(heterograph_index, create, graphs.combined_hook(getattr(heterograph_index, create)))
    ours = hooks.ops_gspmm_hook(ops_spmm.gspmm)
    _patches.replace(ops_spmm, "gspmm", ours)
    _patches.replace(dgl.ops, "gspmm", ours)
    for name, operator in both_ends.operators(dgl.ops).items():
        _patches.replace(dgl.ops, name, operator)
    return True


def uninstall() -> None:
    """Restore DGL's own functions and release what is cached of all graphs."""
    graphs.clear()
    _patches.undo()
