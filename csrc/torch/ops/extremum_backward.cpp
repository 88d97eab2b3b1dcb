// Derivative of extremum_backward, that is the second derivative of spmm with max or min.
#include <ATen/ops/ones_like.h>
#include <torch/library.h>

#include "ops/autograd.h"

namespace gnna {
namespace {

at::Tensor sum_by_index(const at::Tensor& messages, const at::Tensor& index, c10::SymInt rows) {
  std::vector<c10::SymInt> sizes(messages.sym_sizes().begin(), messages.sym_sizes().end());
  sizes[0] = std::move(rows);
  return messages.new_zeros_symint(sizes).index_add(0, index, messages);
}

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

  // For fixed winners, grad_x is bilinear in grad and weight, and grad_weight is bilinear in grad and x. Computed with
  // ATen on edge-sized messages.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = saved_by(ctx);
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

std::tuple<at::Tensor, at::Tensor> extremum_backward(const at::Tensor& grad, const at::Tensor& x,
                                                     const MaybeTensor& weight, const at::Tensor& out,
                                                     const at::Tensor& src, const at::Tensor& dst, bool with_weight,
                                                     bool cache) {
  const auto result = ExtremumBackward::apply(grad, x, weight, out, src, dst, with_weight, cache);
  return {result[0], result[1]};
}

TORCH_LIBRARY_IMPL(gnna, Autograd, m) { m.impl("extremum_backward", &extremum_backward); }

}  // namespace
}  // namespace gnna
