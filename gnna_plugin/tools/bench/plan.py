"""`gnna bench plan`: times building the forward plan and the transposed plan, and finding one in the cache.

Also times the corresponding steps of others: torch's COO to CSR conversion, and what the adapters offer.
"""

from __future__ import annotations

import warnings

import torch

from gnna_plugin import allocator
from gnna_plugin.frameworks import FRAMEWORKS
from gnna_plugin.tools.bench import peers
from gnna_plugin.tools.bench.timing import Rounds, time_calls


def measure(graph, device: torch.device, rounds: Rounds) -> tuple[list[dict], dict]:
    """Time every step with the edges in the graph's own order and shuffled.

    Returns:
        A row for every step, and {framework: reason} for imports that failed.
    """
    allocator.keep_freed_memory()
    nodes = graph.num_nodes
    src, dst = torch.from_numpy(graph.src).to(device), torch.from_numpy(graph.dst).to(device)
    order = torch.randperm(src.numel(), generator=torch.Generator().manual_seed(0)).to(device)
    shuffled = src[order].contiguous(), dst[order].contiguous()
    ops, left_out = torch.ops.gnna, {}

    def build(row, col):  # max_degree needs the plan and runs no aggregation
        def call(_):
            ops.clear_cache()
            return ops.max_degree(col, row, nodes, nodes)

        return call

    def find(_):
        return ops.max_degree(src, dst, nodes, nodes)

    calls = {
        "gnna, forward plan": build(dst, src),
        "gnna, transposed plan": build(src, dst),
        "gnna, forward plan, shuffled edges": build(shuffled[1], shuffled[0]),
        "gnna, transposed plan, shuffled edges": build(shuffled[0], shuffled[1]),
        "torch COO to CSR": lambda _: _to_csr(dst, src, nodes),
        "torch COO to CSR, shuffled edges": lambda _: _to_csr(shuffled[1], shuffled[0], nodes),
    }
    for framework in FRAMEWORKS:
        module = peers.adapter(framework)
        if isinstance(module, str):
            left_out[framework] = module
        else:
            calls.update({name: (lambda _, f=f: f(src, dst, nodes)) for name, f in module.PLANS.items()})
    timings, missing_cores = time_calls(calls, device, rounds)
    find(0)
    timings.update(time_calls({"gnna, found in the cache": find}, device, rounds)[0])
    return [
        {
            "graph": graph.name,
            "nodes": nodes,
            "edges": graph.num_edges,
            "operation": "plan",
            "peer": name,
            "ms": timing.ms,
            "spread_ms": timing.spread_ms,
            "how": timing.how,
            "missing_cores": missing_cores,
        }
        for name, timing in timings.items()
    ], left_out


def _to_csr(row, col, nodes):
    values = torch.ones(row.numel(), device=row.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns that its sparse tensors are in beta
        matrix = torch.sparse_coo_tensor(torch.stack([row, col]), values, (nodes, nodes), check_invariants=False)
        return matrix.to_sparse_csr()
