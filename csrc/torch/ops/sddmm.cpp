// Derivative of sddmm: one spmm for each operand.
#include <torch/library.h>

#include "ops/autograd.h"

namespace gnna {
namespace {

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
    const auto saved = saved_by(ctx);
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

at::Tensor sddmm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& src, const at::Tensor& dst,
                 int64_t head_dims, bool cache) {
  return Sddmm::apply(a, b, src, dst, head_dims, cache);
}

TORCH_LIBRARY_IMPL(gnna, Autograd, m) { m.impl("sddmm", &sddmm); }

}  // namespace
}  // namespace gnna
