"""Statements of a DGL user's program, by kind. {call} stands for one of CALLS, an aggregation of `h`. The braces {k},
{w} and {reduce} are filled with random choices (strategies.py).
"""

from __future__ import annotations

CALLS = (
    "aggregated(g, fn.copy_u('h', 'm'), fn.{reduce}('m', 'o'), h, {w})",
    "aggregated(g, fn.u_mul_e('h', 'w', 'm'), fn.{reduce}('m', 'o'), h, {w})",
    "graph_conv(g, h)",
    "gat(g, h).flatten(1)",
    "sage(g, h)",
    "sage_pool(g, h)",
    "gin(g, h)",
    "dgl.ops.copy_u_{reduce}(g, h)",
    "dgl.ops.u_mul_e_{reduce}(g, h, {w}.view(-1, 1))",
    "aggregated(hetero['r1'], fn.copy_u('h', 'm'), fn.{reduce}('m', 'o'), h, {w})",
    "aggregated(dgl.reverse(g), fn.copy_u('h', 'm'), fn.{reduce}('m', 'o'), h, {w})",
    "aggregated(g, fn.copy_u('h', 'm'), fn.{reduce}('m', 'o'), h, edge_softmax(g, {w}.view(-1, 1)))",
    "aggregated(g, fn.u_mul_e('h', 'w', 'm'), fn.sum('m', 'o'), h, edge_softmax(g, {w}.view(-1, 1)))",
)
LAYERS = ("graph_conv", "sage_pool")
REDUCERS = ("sum", "mean", "max", "min")

STEPS: dict[str, tuple[str, ...]] = {
    "arrays_reused": (
        "h = x * 1; u.copy_(edges({k})[0]); v.copy_(edges({k})[1]); g = dgl.graph((u, v), num_nodes=9)",
        "h = x * 1; v.copy_(v.flip(0)); g = dgl.graph((u, v), num_nodes=9)",
        "h = x * 1; array_u[:] = array_u[::-1].copy(); g = dgl.graph((array_u, array_v), num_nodes=9)",
        "h = x * 1; u.copy_(u.roll(1)); hetero = two_relations(u, v)",
    ),
    "graph_made": (
        "g = dgl.graph((u, v), num_nodes=9)",
        "g = dgl.graph((v, u), num_nodes=9)",
        "g = None; g = dgl.graph(tuple(edges({k})), num_nodes=9)",
        "g = dgl.add_self_loop(dgl.graph((u, v), num_nodes=9)); g.remove_edges(torch.arange(9))",
        "g = dgl.reverse(g)",
        "g = g.clone()",
        "g = g.int()",
        "g = g.long()",
    ),
    "edge_features": (
        "show(aggregated(g, fn.copy_e('w', 'm'), fn.{reduce}('m', 'o'), h, {w}))",
        "show(edge_softmax(g, {w}.view(-1, 1)))",
        "show(dgl.ops.u_dot_v(g, h, h))",
        "show(edge_softmax(g, {w}.view(-1, 1), norm_by='src'))",
        "h = h + aggregated(g, fn.copy_e('w', 'm'), fn.{reduce}('m', 'o'), h, {w})",
        "h = h * dgl.ops.u_dot_v(g, h, h).sum()",
    ),
    "hetero": (
        "h = over_relations(hetero, fn.copy_u('h', 'm'), fn.{reduce}('m', 'o'), h)",
        "h = dgl.ops.copy_u_{reduce}(hetero['r2'], h)",
    ),
    "node_data_written": (
        "g.ndata['h'] = h; g.ndata['h'].mul_(2)",
        "g.ndata['h'] = h; g.update_all(fn.copy_u('h', 'm'), fn.{reduce}('m', 'o')); h = g.ndata['o'].mul_(2)",
        "h = {call}; h.mul_(2)",
        "h.mul_(2); h = {call}",
    ),
    "residual": ("y = {call}; y += h; h = y", "h = h + {call}"),
    "weights_written": (
        "with torch.no_grad(): w.mul_(0.9)",
        "c.mul_(1.1)",
        "c.data.lerp_(w.data, 0.5)",
        "h = x * 1; w.data.mul_(0.9)",
    ),
    "weights_read_through_data": ("h = aggregated(g, fn.u_mul_e('h', 'w', 'm'), fn.{reduce}('m', 'o'), h, w.data)",),
    "optimiser": ("optimiser.step(); h = x * 1", "optimiser.zero_grad()"),
    "mode": ("with torch.no_grad(): h = {call}", "with torch.inference_mode(): show({call})"),
    "backward_twice": ("h.pow(2).mean().backward(retain_graph=True)",),
    "checkpoint": ("h = checkpoint(lambda h: {call}, h, use_reentrant=False)",),
    "switch": (
        "gnna_plugin.clear_cache()",
        "gnna_plugin.disable()",
        "gnna_plugin.enable()",
        "with gnna_plugin.disabled(): h = {call}",
    ),
}
