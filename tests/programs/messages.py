"""Statements of a user's message(), by kind. `m` is the message, `v` a view of it, `a` a weight per edge (a column),
`w` the layer's weights; see pyg_names.layer."""

from __future__ import annotations

MESSAGES: dict[str, tuple[str, ...]] = {
    "product": ("m = w.view(-1, 1) * m", "m = a * m", "m = m * w.unsqueeze(-1)", "m = m * 0.5", "m = a * x_j"),
    "elementwise": (
        "m = m.tanh()", "m = m.relu()", "m = -m", "m = m + 1", "m = F.layer_norm(m, (4,))",
        "m = m.sum(-1, keepdim=True).expand(-1, 4)", "m = (m * x_j).sum(-1, keepdim=True) * m", "m = m.double().to(m.dtype)",
        "m = m.sigmoid() * x_j",
    ),
    "view": (
        "v = m.view(-1, 2, 2)", "v = m.reshape(-1, 2, 2)", "v = m.unsqueeze(1)", "v = m.flatten(1)", "v = m[:, :2]",
        "v = m[:, None]", "v = m.narrow(1, 0, 2)", "v = m.view_as(m)", "v = m.chunk(2, 1)[1]", "v = m.unbind(1)[0]",
        "v = m.unsqueeze(0).squeeze(0)", "v = m.contiguous()", "v = m.t()", "v = m.expand_as(m)", "v = m[:10]",
        "v = v.unsqueeze(-1)", "m = m.view(-1, 2, 2).flatten(1)",
    ),
    "message_written": (
        "v.mul_(2)", "m.mul_(2)", "v.zero_()", "x_j.mul_(2)", "v.add_(1)", "m[:, :2] = 0", "v += 1", "v.clamp_(min=0)",
        "F.relu(v, inplace=True)", "torch.nn.ReLU(inplace=True)(m)", "v[...] = 1", "v.copy_(v * 3)", "m *= m",
        "torch._foreach_mul_([v], 2.0)",
    ),
    "message_written_raw": (
        "x_j.data.mul_(2)", "x_j.data[:, :2] = 0", "x_j.data.clamp_(min=0)", "x_j.detach().numpy()[:, :2] = 0",
        "x_j.detach().mul_(2)", "torch.from_dlpack(x_j.detach()).mul_(2)", "numpy.asarray(x_j.detach())[:] *= 2",
        "x_j.view(-1, 2, 2).data.mul_(2)", "x_j.unsqueeze(1).detach().numpy()[:, :, :2] = 0",
    ),
    "weight_written_in_message": ("a.mul_(2)", "a.div_(a.sum())", "a.zero_()", "a.add_(1)"),
    "weight_made": ("a = w.exp().view(-1, 1)", "a = w.detach().exp().view(-1, 1)", "a = w.view(-1, 1) * 2", "a = w.detach().view(-1, 1).clone()"),
    "features_written_in_message": ("self.gathered_from.mul_(2)", "self.gathered_from.zero_()", "self.gathered_from[0] += 1"),
    "kept": ("self.kept = x_j", "self.kept = m", "self.kept = v", "self.kept = m.detach()", "self.kept = a"),
    "observed": (
        "m.requires_grad and m.register_hook(twice)", "x_j.requires_grad and x_j.register_hook(twice)",
        "v.requires_grad and v.register_hook(twice)", "m.retain_grad(); self.kept = m", "x_j.retain_grad(); self.kept = x_j",
    ),
    "converted": (
        "m = torch.tensor(m)", "m = torch.as_tensor(m, dtype=torch.float64).to(m.dtype)", "m = torch.asarray(m, copy=True)",
        "m = torch.from_dlpack(m.detach())", "m = torch.nn.Parameter(m, requires_grad=False)", "m = torch.nn.Parameter(m)",
        "m = m.as_subclass(torch.Tensor)", "m = torch.nested.nested_tensor([m])[0]", "m = m.new_tensor(m)",
        "m = torch.sparse_coo_tensor(torch.arange(len(m))[None], m, m.shape).to_dense()",
        "m = torch.tensor(m.tolist(), dtype=m.dtype)", "m = copy.copy(m)", "m = copy.deepcopy(m.detach())",
        "m = torch.from_numpy(m.detach().numpy())", "m = torch.stack(list(m))", "m = m.clone()",
        "m = torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(m.detach()))",
    ),
    "named_tuple": (
        "m = torch.cat(Pair(m, x_j), -1)[:, 2:6]", "m = torch.stack(Pair(m, x_j)).sum(0)", "m = sum(Pair(m, x_j))",
    ),
    "ends": ("m = torch.cat((x_i, m), -1)[:, 2:6]", "m = x_i - m", "m = (x_i * x_j).sum(-1, keepdim=True) * m", "m = (x_i + x_j).relu()"),
    "transformed": (
        "m = torch.vmap(lambda row: row * row.sum())(m)", "m = torch.func.grad(lambda t: (t**3).sum())(m)",
        "m = torch.vmap(torch.func.grad(lambda row: (row**2).sum()))(m)",
        "m = torch.func.vjp(torch.sin, m)[1](torch.ones_like(m))[0]",
        "m = torch.func.jvp(torch.sin, (m,), (torch.ones_like(m),))[1]",
    ),
    "function": ("m = Square.apply(m)", "m = scripted(m)", "m = checkpoint(torch.tanh, m, use_reentrant=False)"),
    "island": (
        "with torch.no_grad(): v = m * 2", "with torch.no_grad(): m = a * m", "with torch.enable_grad(): m = a * m",
        "with torch.inference_mode(): v = m + 1; self.kept = v.sum().item()", "with torch.enable_grad(): m = m * 2",
        "with torch.no_grad(): m = m.view(-1, 2, 2).flatten(1)", "with torch.no_grad(): m.mul_(2)",
    ),
    "printed": (
        "show(m)", "show(v)", "show(m.shape)", "show(m.requires_grad)", "show(m.grad_fn is None)", "show(m.stride())",
        "show(m.is_contiguous())", "show(m.mean())", "show(m.dtype)", "show(float(m.detach().max()))",
    ),
    "type_read": ("show(type(m) is torch.Tensor)", "show(type(x_j) is torch.Tensor)"),
}  # fmt: skip

# A raw write to what autograd has saved changes PyG's own gradients, which no program should rely on. So these writes
# stand before all other statements.
RAW_WRITES_COME_FIRST = "message_written_raw"
AGGREGATIONS = ("add", "mean", "max", "min")
