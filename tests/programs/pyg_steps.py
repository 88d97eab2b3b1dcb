"""Statements of a PyG user's program, by kind. {call} stands for one of CALLS, a layer on `h`, and {call:X} for a call
with the edges or weights X. The other braces, such as {k} and {t}, are filled with random choices (strategies.py).
"""

from __future__ import annotations

# Calls of layers on features h, edges {e} and weights {w}. `conv` is a layer with a random message().
CALLS = (
    "conv(h, {e}, {w})",
    "gcn(h, {e})",
    "gin(h, {e})",
    "sage(h, {e})",
    "graph(h, {e}, {w})",
    "gat(h, {e})",
    "gcn(h, {e}, {w})",
    "gcn_cached(h, {e})",
    "gcn_raw(h, {e}, {w})",
    "sage_max(h, {e})",
    "simple_sum(h, {e})",
    "simple_max(h, {e})",
    "simple_min(h, {e})",
    "simple_mean(h, {e})",
    "gin_learned(h, {e})",
    "graph_mean(h, {e}, {w})",
    "gcn_cached(h, {e}, {w})",
)

# Drawn more often, because most of the plug-in's shortcuts apply to these.
COMMON_CALLS = ("gcn(h, {e})", "gin(h, {e})", "graph(h, {e}, {w})")
LAYERS = (
    "conv",
    "gcn",
    "gin",
    "sage",
    "graph",
    "gat",
    "gcn_cached",
    "gcn_raw",
    "sage_max",
    "simple_sum",
    "simple_max",
    "simple_min",
    "simple_mean",
    "gin_learned",
    "graph_mean",
    "saliency",
    "saliency2",
)

COMMON: dict[str, tuple[str, ...]] = {
    "call": ("h = {call}", "h = {call}.tanh()", "h = h + {call}"),
    "backward": ("h.pow(2).mean().backward(); h = x * 1", "h.tanh().sum().backward(); h = x * 1"),
    "restart": ("h = x * 1", "h = x.detach().clone()", "h = x"),
}

# Writes that bypass the version counter follow `h = x * 1`, so that no backward pass is pending. Otherwise PyG itself
# would compute gradients from the overwritten values.
STEPS: dict[str, tuple[str, ...]] = {
    "backward_twice": (
        "h.pow(2).mean().backward(retain_graph=True)",
        "loss = h.pow(2).mean(); loss.backward(retain_graph=True); loss.backward()",
    ),
    "double_backward": (
        "h = h + torch.autograd.grad(h.pow(3).sum(), x, create_graph=True, allow_unused=True)[0]",
        "torch.autograd.grad(h.pow(3).sum(), x, create_graph=True)[0].pow(2).sum().backward()",
    ),
    "checkpoint": (
        "h = checkpoint(lambda h: {call}, h, use_reentrant=False)",
        "h = checkpoint(lambda h: {call}, h, use_reentrant=True)",
    ),
    "inference": (
        "with torch.inference_mode(): show({call})",
        "with torch.inference_mode(): show((lambda h: {call})(h.clone()))",
        "with torch.inference_mode(): show((lambda h, e: {call})(h.clone(), e.clone()))",
    ),
    "mode": (
        "with torch.no_grad(): h = {call}",
        "with torch.no_grad(): show({call})",
        "with torch.enable_grad(): h = {call}",
        "x.requires_grad_(not x.requires_grad); h = x * 1",
    ),
    "optimiser": (
        "optimiser.step(); h = x * 1",
        "optimiser.zero_grad()",
        "optimiser.step()",
        "optimiser.zero_grad(set_to_none=False)",
        "loss = h.pow(2).mean(); h.tanh().mean().backward(retain_graph=True); optimiser.step(); loss.backward()",
    ),
    "features_written_after": (
        "h += {call}",
        "h = {call}.relu_()",
        "h.mul_(2)",
        "y = {call}; h.relu_(); h = h + y",
        "y = {call}; h[0] = 0; h = h + y",
    ),
    "kept_read": (
        "show(conv.kept)",
        "h = x * 1; conv.kept is not None and conv.kept.sum().backward()",
        "x.data.mul_(0.5); show(conv.kept); h = x * 1",
    ),
    "raw_messages": (
        "r = raw(h, e, w)",
        "r = raw(h, e, w); show(r)",
        "r = raw(h, e, w); h = h * 2",
        "r = raw(h, e, w); r.mul_(2)",
        "r = raw(h, e, w); r.sum().backward()",
        "with torch.no_grad(): r = raw(h, e, w); h.mul_(2)",
    ),
    "records_always": ("with torch.no_grad(): h = always(h, e, w)", "h = always(h, e, w)"),
    "edges_read_through_data": (
        "h = {call:e.data}",
        "h = {call:e.detach()}",
        "h = x * 1; e[1] = e[1].flip(0); h = {call:e.data}",
        "h = {call:e.data.data}",
    ),
    "weights_read_through_data": (
        "h = {call:w.data}",
        "h = x * 1; torch.no_grad()(w.mul_)(0.9); h = {call:w.data}",
        "h = {call:w.detach()}",
        "h = {call:c.data}",
        "h = {call:w.data.data}",
    ),
    "edges_written": (
        "h = x * 1; e[1] = e[1].flip(0)",
        "h = x * 1; e.copy_(edges({k}))",
        "h = x * 1; e[0].copy_(e[0].roll(3))",
        "h = x * 1; torch.add(edges({k}), 0, out=e)",
        "h = x * 1; torch.inference_mode()(lambda e: e[1].copy_(e[1].roll(1)))(e)",
    ),
    "edges_written_pending": (
        "e[1] = e[1].flip(0)",
        "e.copy_(edges({k}))",
    ),
    "edges_written_raw": (
        "h = x * 1; e.data[1] = e.data[1].flip(0)",
        "h = x * 1; e.numpy()[1] = e.numpy()[1][::-1].copy()",
        "h = x * 1; e.data.copy_(edges({k}))",
        "h = x * 1; e.detach().numpy()[0, :9] = 0",
    ),
    "edges_of_array": (
        "h = {call:of_array}",
        "h = {call:torch.from_numpy(array)}",
        "h = x * 1; array[1] = array[1][::-1].copy(); h = {call:of_array}",
        "h = x * 1; array[:] = edges({k}).numpy(); h = {call:torch.from_numpy(array)}",
    ),
    "edges_assigned": (
        "e = edges({k})",
        "e = None; e = edges({k})",
        "e = e.clone()",
        "e = torch.stack((e[1], e[0]))",
        "e = e.flip(0)",
        "e.set_(edges({k}))",
    ),
    "edges_data_assigned": (
        "e.data = edges({k})",
        "e.data = edges({k}); e.data = edges(7)",
        "e.data = edges(8); h = {call}; e.data = edges(9)",
    ),
    "edges_sliced": (
        "h = {slice:buffer[:, :{t}]}",
        "h = {slice:buffer[:, {t}:]}",
        "buffer[:, :20] = edges({k})[:, :20]; h = {slice:buffer[:, :20]}",
        "h = {slice:buffer[:, {t}:{t} + 9]}",
        "h = {slice:buffer.data[:, :{t}]}",
        "h = {slice:buffer[:, ::2]}",
    ),
    "weights_written": (
        "with torch.no_grad(): w.mul_(0.9)",
        "c.mul_(1.1)",
        "c.mul_(0.9).add_(w.detach(), alpha=0.1)",
        "c.view(-1, 1).add_(1)",
    ),
    "weights_written_raw": (
        "h = x * 1; c.data.lerp_(w.data, 0.5)",
        "h = x * 1; w.data.mul_(0.9)",
        "h = x * 1; c.numpy()[:5] = 0",
        "h = x * 1; w.data.copy_(c)",
    ),
    "weights_data_assigned": ("w.data = w.data * 0.5", "w.data = c.clone(); w.data = c * 2", "c.data = c * 2"),
    "swapped": (
        "torch.utils.swap_tensors(c, copy.copy(c).clone())",
        "torch.utils.swap_tensors(e, edges({k}))",
        "c2 = c.clone() * 2; torch.utils.swap_tensors(c, c2)",
    ),
    "norm": (
        "h = graph(h, *n1)",
        "n1 = gcn_norm(e, None, 9, dtype=x.dtype)",
        "n2 = gcn_norm(e, None, 9, dtype=x.dtype); h = graph(h, *n2)",
        "n1 = gcn_norm(e, c, 9, dtype=x.dtype); h = gcn_raw(h, *n1)",
        "n1 = gcn_norm(e, w, 9, dtype=x.dtype); h = gcn_raw(h, *n1)",
        "show(n2)",
        "d1 = T.GCNNorm()(Data(x=x, edge_index=e)); h = graph(h, d1.edge_index, d1.edge_weight)",
        "show(d2.edge_weight)",
    ),
    "norm_written": (  # n1 and n2, or d1 and d2, are both created before one is written to
        "n1, n2; n1[1].mul_(2); show(n2)",
        "d1, d2; d1.edge_weight.mul_(2); show(d2.edge_weight)",
        "n1, n2; n1[1].requires_grad_(); h = graph(h, *n2)",
        "n1, n2; n1[1].requires_grad_().sum().backward(); show(n2)",
        "n1, n2; h = x * 1; n1[0][0].zero_(); h = graph(h, *n2)",
        "h = x * 1; n1[1].data.mul_(2); h = graph(h, *n1)",
        "d1.edge_weight *= 2",
        "n1[1].mul_(2)",
    ),
    "norm_kept": ("h = saliency2(saliency(h, e), e)", "show(saliency.kept)"),
    "loops": (
        "l = utils.add_self_loops(e, num_nodes=9)[0]; h = {slice:l}",
        "l = utils.remove_self_loops(e)[0]; h = {slice:l}",
        "l = utils.add_remaining_self_loops(e, num_nodes=9)[0]; l[0].zero_(); h = {slice:l}",
    ),
    "layer_changed": (
        "{layer}.register_aggregate_forward_hook(half)",
        "{layer}.aggr_module.register_forward_hook(half)",
        "{layer}.aggregate = halved({layer}.aggregate)",
        "{layer}.update = halved({layer}.update)",
        "{layer}.aggr_module = nn.MaxAggregation()",
        "{layer}.register_message_forward_hook(half)",
        "{layer}.register_propagate_forward_hook(half)",
        "{layer}.message = halved({layer}.message)",
    ),
    "softmax_index": (
        "show(utils.softmax(messages, e[1], num_nodes=3))",
        "show(utils.softmax(messages, e[1] - 3, num_nodes=9))",
        "show(utils.softmax(messages, e[1] - 20))",
    ),
    "aggregation_index": (
        "show(nn.SumAggregation()(messages, e[1] - 3, dim_size=9))",
        "show(nn.MaxAggregation()(messages, e[1], dim_size=4))",
        "show(nn.MeanAggregation()(messages, e[1] - 20))",
        "show(utils.scatter(messages, e[1], dim_size=3))",
        "show(utils.scatter(messages, e[1] - 3, dim_size=9, reduce='max'))",
    ),
    "layer_index": ("h = {call:e + 3}", "h = {call:-e - 1}", "h = {call:e - 3}"),
    "aggregated": (
        "show(utils.softmax(messages * h[0, 0], e[1], num_nodes=9))",
        "h = h + utils.scatter(messages, e[1], dim_size=9, reduce='mean')",
        "h = h * nn.MaxAggregation()(messages, e[1], dim_size=9)",
        "show(utils.scatter(h[e[0]], e[1], dim_size=9, reduce='min'))",
        "h = h + nn.SumAggregation()(h[e[0]], e[1], dim_size=9)",
    ),
    "switch": (
        "gnna_plugin.clear_cache()",
        "gnna_plugin.disable()",
        "gnna_plugin.enable()",
        "with gnna_plugin.disabled(): h = {call}",
        "with gnna_plugin.enabled(): h = {call}",
        "gnna_plugin.disable(); h = {call}; gnna_plugin.enable()",
    ),
}

# Drawn only on request. PyG saves the edge list for its backward pass, so it raises after such a write. If the plug-in
# folds a GINConv, autograd does not save the user's edge list, and the gradient is that of the forward pass that ran.
NOT_BY_DEFAULT = {"edges_written_pending"}

# Kinds that the family "messages" draws from. If it drew from all kinds, few programs would exercise message().
BESIDE_MESSAGES = (
    "backward_twice",
    "checkpoint",
    "double_backward",
    "edges_written",
    "features_written_after",
    "inference",
    "kept_read",
    "layer_changed",
    "mode",
    "optimiser",
    "raw_messages",
    "records_always",
    "switch",
    "weights_read_through_data",
    "weights_written",
)

# Definitions of the layers that these kinds call by name.
NEEDED = {
    "raw_messages": "raw = layer('add', 'm = a * m', kind='returns messages')",
    "records_always": "always = layer('add', 'm = a * m', kind='records always')",
}
