// Derivative of spmm.
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "ops/autograd.h"

namespace gnna {
namespace {

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
    // Save only what the gradients need, because a saved tensor must not be modified before the backward pass.
    ctx->save_for_backward({src, dst, wants_grad(x) || extremum ? weight.value_or(at::Tensor()) : at::Tensor(),
                            weight_grad || extremum ? x : at::Tensor(), extremum ? out : at::Tensor()});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = saved_by(ctx);
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

at::Tensor spmm(const at::Tensor& x, const MaybeTensor& weight, const at::Tensor& src, const at::Tensor& dst,
                c10::SymInt num_dst, c10::string_view reduce, bool cache) {
  if (c10::GradMode::is_enabled() && (wants_grad(x) || wants_grad(weight)))
    return Spmm::apply(x, weight, src, dst, num_dst, std::string(reduce.data(), reduce.size()), cache);
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::spmm(x, weight, src, dst, std::move(num_dst), reduce, cache);
}

TORCH_LIBRARY_IMPL(gnna, Autograd, m) {
  m.impl("spmm", &spmm);
  m.impl("spmm_arg", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace
}  // namespace gnna
