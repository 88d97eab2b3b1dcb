// Derivatives of the ops. spmm and sddmm are each other's: d spmm / dx is spmm on the transposed edge list, d spmm /
// dweight is sddmm, and the derivatives of sddmm are two spmm. So every order of differentiation runs on the same
// kernels; only the second order of max / min falls back to ATen on edge-sized tensors. C++ throughout: on small graphs
// the host's time decides.
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "dtypes.h"
#include "ops.h"

namespace gnna {
namespace {

using ops::MaybeTensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool wants_grad(const at::Tensor& t) { return t.defined() && t.requires_grad(); }
bool wants_grad(const MaybeTensor& t) { return t.has_value() && wants_grad(*t); }
MaybeTensor maybe(const at::Tensor& t) { return t.defined() ? MaybeTensor(t) : std::nullopt; }

// t [E, *W] against messages [E, *S], W a prefix of S: trailing ones, so that the two broadcast.
at::Tensor broadcast_to_messages(const at::Tensor& t, int64_t message_dims) {
  std::vector<c10::SymInt> sizes(t.sym_sizes().begin(), t.sym_sizes().end());
  sizes.resize(message_dims, 1);
  return t.reshape_symint(sizes);
}

// messages [E, *S] summed over what one weight [E, *W] multiplies.
at::Tensor sum_to_weight(const at::Tensor& messages, int64_t weight_dims) {
  std::vector<int64_t> dims;
  for (int64_t d = weight_dims; d < messages.dim(); ++d) dims.push_back(d);
  return dims.empty() ? messages : messages.sum(dims);
}

at::Tensor sum_by_index(const at::Tensor& messages, const at::Tensor& index, c10::SymInt rows) {
  std::vector<c10::SymInt> sizes(messages.sym_sizes().begin(), messages.sym_sizes().end());
  sizes[0] = std::move(rows);
  return messages.new_zeros_symint(sizes).index_add(0, index, messages);
}

// Counts are in the dtype of computation: in 16 bits a degree would be inexact from 257 or 2049 on.
at::Tensor divide_by_count(const at::Tensor& grad, const at::Tensor& count) {
  return (grad / broadcast_to_messages(count, grad.dim())).to(grad.scalar_type());
}

struct Spmm : torch::autograd::Function<Spmm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const MaybeTensor& weight, const at::Tensor& src,
                            const at::Tensor& dst, const c10::SymInt& num_dst, const std::string& reduce, bool cache) {
    const at::AutoDispatchBelowADInplaceOrView below;
    at::Tensor out = ops::spmm(x, weight, src, dst, num_dst, reduce, cache);
    const bool extremum = reduce == "max" || reduce == "min";
    const bool weight_grad = wants_grad(weight);
    ctx->saved_data["reduce"] = reduce;
    ctx->saved_data["cache"] = cache;
    ctx->saved_data["x_grad"] = wants_grad(x);
    ctx->saved_data["weight_grad"] = weight_grad;
    ctx->saved_data["num_src"] = x.sym_size(0);
    ctx->saved_data["num_dst"] = num_dst;
    ctx->saved_data["weight_dims"] = weight.has_value() ? weight->dim() : 0;
    // Only what the gradients need: whatever is saved may not be written to before the backward pass.
    ctx->save_for_backward({src, dst, wants_grad(x) || extremum ? weight.value_or(at::Tensor()) : at::Tensor(),
                            weight_grad || extremum ? x : at::Tensor(), extremum ? out : at::Tensor()});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &src = saved[0], &dst = saved[1], &x = saved[3], &out = saved[4];
    const MaybeTensor weight = maybe(saved[2]);
    const bool cache = ctx->saved_data["cache"].toBool();
    const bool x_grad = ctx->saved_data["x_grad"].toBool(), weight_grad = ctx->saved_data["weight_grad"].toBool();
    const c10::SymInt num_src = ctx->saved_data["num_src"].toSymInt(), num_dst = ctx->saved_data["num_dst"].toSymInt();
    const std::string& reduce = ctx->saved_data["reduce"].toStringRef();
    at::Tensor grad = grads[0], grad_x, grad_weight;
    if (!grad.defined()) return variable_list(7);
    if (reduce == "max" || reduce == "min") {
      std::tie(grad_x, grad_weight) = ops::extremum_backward(grad, x, weight, out, src, dst, weight_grad, cache);
    } else {
      if (reduce == "mean") {
        grad = divide_by_count(grad, ops::mean_divisor(grad, src, dst, num_src, num_dst, cache));
      }
      if (x_grad) grad_x = ops::spmm(grad, weight, dst, src, num_src, "sum", cache);
      if (weight_grad) grad_weight = ops::sddmm(x, grad, src, dst, ctx->saved_data["weight_dims"].toInt() - 1, cache);
    }
    return {x_grad ? grad_x : at::Tensor(), weight_grad ? grad_weight : at::Tensor(), {}, {}, {}, {}, {}};
  }
};

struct Sddmm : torch::autograd::Function<Sddmm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& a, const at::Tensor& b, const at::Tensor& src,
                            const at::Tensor& dst, int64_t head_dims, bool cache) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["cache"] = cache;
    ctx->saved_data["a_rows"] = a.sym_size(0);
    ctx->saved_data["b_rows"] = b.sym_size(0);
    ctx->saved_data["a_grad"] = wants_grad(a);
    ctx->saved_data["b_grad"] = wants_grad(b);
    ctx->save_for_backward({src, dst, wants_grad(b) ? a : at::Tensor(), wants_grad(a) ? b : at::Tensor()});
    return ops::sddmm(a, b, src, dst, head_dims, cache);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &src = saved[0], &dst = saved[1], &a = saved[2], &b = saved[3], &grad = grads[0];
    if (!grad.defined()) return variable_list(6);
    const bool cache = ctx->saved_data["cache"].toBool();
    at::Tensor grad_a, grad_b;
    if (ctx->saved_data["a_grad"].toBool())
      grad_a = ops::spmm(b, grad, dst, src, ctx->saved_data["a_rows"].toSymInt(), "sum", cache);
    if (ctx->saved_data["b_grad"].toBool())
      grad_b = ops::spmm(a, grad, src, dst, ctx->saved_data["b_rows"].toSymInt(), "sum", cache);
    return {grad_a, grad_b, {}, {}, {}, {}};
  }
};

struct SegmentReduce : torch::autograd::Function<SegmentReduce> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& messages, const at::Tensor& index,
                            const c10::SymInt& num_rows, const std::string& reduce, bool cache) {
    const at::AutoDispatchBelowADInplaceOrView below;
    at::Tensor out = ops::segment_reduce(messages, index, num_rows, reduce, cache);
    const bool extremum = reduce == "max" || reduce == "min";
    ctx->saved_data["reduce"] = reduce;
    ctx->saved_data["cache"] = cache;
    ctx->saved_data["num_rows"] = num_rows;
    ctx->save_for_backward({index, extremum ? messages : at::Tensor(), extremum ? out : at::Tensor()});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &index = saved[0], &messages = saved[1], &out = saved[2];
    if (!grads[0].defined()) return variable_list(5);
    const bool cache = ctx->saved_data["cache"].toBool();
    const c10::SymInt num_rows = ctx->saved_data["num_rows"].toSymInt();
    at::Tensor grad = grads[0];
    if (ctx->saved_data["reduce"].toStringRef() == "mean") {
      const at::Tensor count = ops::mean_divisor(grad, std::nullopt, index, index.sym_numel(), num_rows, cache);
      grad = divide_by_count(grad, count);
    } else if (messages.defined()) {  // max or min: equal winners share, with torch.scatter_reduce's phantom zero
      const auto dtype = compute_dtype(grad.scalar_type());
      const at::Tensor wins = messages.eq(ops::gather_rows(out, index, cache)).to(dtype).detach();
      const at::Tensor sharers = ops::segment_reduce(wins, index, num_rows, "sum", cache) + out.eq(0);
      const at::Tensor share = ops::gather_rows(grad / sharers.detach(), index, cache);
      return {(wins * share).to(grad.scalar_type()), {}, {}, {}, {}};
    }
    return {ops::gather_rows(grad, index, cache), {}, {}, {}, {}};
  }
};

struct ExtremumBackward : torch::autograd::Function<ExtremumBackward> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& grad, const at::Tensor& x,
                               const MaybeTensor& weight, const at::Tensor& out, const at::Tensor& src,
                               const at::Tensor& dst, bool with_weight, bool cache) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["with_weight"] = with_weight;
    ctx->save_for_backward({grad, x, weight.value_or(at::Tensor()), out, src, dst});
    auto [grad_x, grad_weight] = ops::extremum_backward(grad, x, weight, out, src, dst, with_weight, cache);
    return {grad_x, grad_weight};
  }

  // The op is linear in grad and, for fixed winners, bilinear in the weight or x: written out on messages.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &grad = saved[0], &x = saved[1], &weight = saved[2], &out = saved[3];
    const at::Tensor &src = saved[4], &dst = saved[5];
    const int64_t dims = x.dim();
    const at::Tensor x_src = x.index_select(0, src);
    const at::Tensor w = weight.defined() ? broadcast_to_messages(weight, dims) : at::ones_like(x_src);
    const at::Tensor wins = (w * x_src).eq(out.index_select(0, dst)).to(x.scalar_type()).detach();
    const at::Tensor sharers = sum_by_index(wins, dst, out.sym_size(0)) + out.eq(0).to(x.scalar_type()).detach();
    const at::Tensor share = wins * (grad / sharers).index_select(0, dst);
    at::Tensor to_grad, to_x, to_weight;
    if (grads[0].defined()) {  // grad_x = scatter(share * w)
      const at::Tensor g = grads[0].index_select(0, src);
      to_grad = sum_by_index(wins * w * g, dst, out.sym_size(0)) / sharers;
      if (weight.defined()) to_weight = sum_to_weight(share * g, weight.dim());
    }
    if (ctx->saved_data["with_weight"].toBool() && grads[1].defined()) {  // grad_weight = sum(share * x_src)
      const at::Tensor g = broadcast_to_messages(grads[1], dims);
      const at::Tensor part = sum_by_index(wins * x_src * g, dst, out.sym_size(0)) / sharers;
      to_grad = to_grad.defined() ? to_grad + part : part;
      to_x = sum_by_index(share * g, src, x.sym_size(0));
    }
    return {to_grad, to_x, to_weight, {}, {}, {}, {}, {}};
  }
};

struct Lift : torch::autograd::Function<Lift> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const MaybeTensor& weight,
                            const at::Tensor& src) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["x_grad"] = wants_grad(x);
    ctx->saved_data["weight_grad"] = wants_grad(weight);
    ctx->saved_data["rows"] = x.sym_size(0);
    ctx->save_for_backward({src, weight.value_or(at::Tensor()), wants_grad(weight) ? x : at::Tensor()});
    return ops::lift(x, weight, src);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &src = saved[0], &weight = saved[1], &x = saved[2], &grad = grads[0];
    if (!grad.defined()) return variable_list(3);
    at::Tensor grad_x, grad_weight;
    if (ctx->saved_data["x_grad"].toBool()) {
      const at::Tensor messages = weight.defined() ? grad * broadcast_to_messages(weight, grad.dim()) : grad;
      grad_x = ops::scatter_rows(messages, src, ctx->saved_data["rows"].toSymInt(), /*cache=*/true);
    }
    if (ctx->saved_data["weight_grad"].toBool())
      grad_weight = sum_to_weight(grad * x.index_select(0, src), weight.dim());
    return {grad_x, grad_weight, {}};
  }
};

at::Tensor spmm(const at::Tensor& x, const MaybeTensor& weight, const at::Tensor& src, const at::Tensor& dst,
                c10::SymInt num_dst, c10::string_view reduce, bool cache) {
  if (c10::GradMode::is_enabled() && (wants_grad(x) || wants_grad(weight)))
    return Spmm::apply(x, weight, src, dst, num_dst, std::string(reduce.data(), reduce.size()), cache);
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::spmm(x, weight, src, dst, std::move(num_dst), reduce, cache);
}

at::Tensor segment_reduce(const at::Tensor& messages, const at::Tensor& index, c10::SymInt num_rows,
                          c10::string_view reduce, bool cache) {
  if (c10::GradMode::is_enabled() && wants_grad(messages))
    return SegmentReduce::apply(messages, index, num_rows, std::string(reduce.data(), reduce.size()), cache);
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::segment_reduce(messages, index, std::move(num_rows), reduce, cache);
}

at::Tensor sddmm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& src, const at::Tensor& dst,
                 int64_t head_dims, bool cache) {
  return Sddmm::apply(a, b, src, dst, head_dims, cache);
}

std::tuple<at::Tensor, at::Tensor> extremum_backward(const at::Tensor& grad, const at::Tensor& x,
                                                     const MaybeTensor& weight, const at::Tensor& out,
                                                     const at::Tensor& src, const at::Tensor& dst, bool with_weight,
                                                     bool cache) {
  const auto result = ExtremumBackward::apply(grad, x, weight, out, src, dst, with_weight, cache);
  return {result[0], result[1]};
}

at::Tensor lift(const at::Tensor& x, const MaybeTensor& weight, const at::Tensor& src) {
  if (c10::GradMode::is_enabled() && (wants_grad(x) || wants_grad(weight))) return Lift::apply(x, weight, src);
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::lift(x, weight, src);
}

TORCH_LIBRARY_IMPL(gnna, Autograd, m) {
  m.impl("spmm", &spmm);
  m.impl("segment_reduce", &segment_reduce);
  m.impl("sddmm", &sddmm);
  m.impl("extremum_backward", &extremum_backward);
  m.impl("lift", &lift);
  m.impl("spmm_arg", torch::autograd::autogradNotImplementedFallback());
  m.impl("mean_divisor", torch::CppFunction::makeFallthrough());  // counts edges: nothing to differentiate
}

}  // namespace
}  // namespace gnna
