"""The DGL adapter: which of DGL's functions are replaced, and how that is undone.

dgl.backend.pytorch.sparse._gspmm lies under update_all, dgl.nn, dgl.ops and both directions of autograd in every DGL
from 1.1 on; it is replaced for all reducers. _gsddmm, beside it, has the products of both ends of an edge, and
EdgeSoftmax, which edge_softmax looks up by name, attention's normalisation. dgl.ops.gspmm sees a mean whole and is
replaced for sum and mean, whose gradient then runs in C++; and a graph's relations and its reverse are handed out as
the same objects each time. DGL has no registry for aggregation backends: these are it.
"""

from __future__ import annotations

import os
import warnings

os.environ.setdefault("DGLBACKEND", "pytorch")  # else DGL's first import writes a configuration file and prints

from gnna_plugin.adapters.dgl.importing import explained  # noqa: E402

with explained():
    import dgl
import dgl.backend.pytorch.sparse as sparse  # noqa: E402
import dgl.heterograph_index as heterograph_index  # noqa: E402
import dgl.ops.spmm as ops_spmm  # noqa: E402
from dgl.heterograph_index import HeteroGraphIndex  # noqa: E402

from gnna_plugin.adapters.dgl import edge_hooks, graphs, hooks  # noqa: E402
from gnna_plugin.patching import Patches, misfit  # noqa: E402

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
    """Puts the hooks in place. False, with a warning that says why, where this DGL does not fit them."""
    problem = misfit(_SIGNATURES)
    if problem is not None:
        text = f"gnna_plugin stays off for DGL {dgl.__version__}: {problem}"
        warnings.warn(text, stacklevel=4)
        return False
    if not dgl.__version__.startswith(_TESTED):
        warnings.warn(
            f"gnna_plugin is tested with DGL {_TESTED}; found {dgl.__version__}, whose hooks fit", stacklevel=3
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
    return True


def uninstall() -> None:
    """Restores DGL's own functions and lets go of all graphs."""
    graphs.clear()
    _patches.undo()
