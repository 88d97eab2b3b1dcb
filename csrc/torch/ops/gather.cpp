// Derivatives of gather_rows and scatter_rows: the derivative of each is the other.
#include <torch/library.h>

#include "ops/autograd.h"

namespace gnna {
namespace {

struct GatherRows : torch::autograd::Function<GatherRows> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& index, bool cache) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["rows"] = x.sym_size(0);
    ctx->saved_data["cache"] = cache;
    ctx->save_for_backward({index});
    return ops::gather_rows(x, index, cache);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = saved_by(ctx);
    if (!grads[0].defined()) return variable_list(3);
    return {
        ops::scatter_rows(grads[0], saved[0], ctx->saved_data["rows"].toSymInt(), ctx->saved_data["cache"].toBool()),
        {},
        {}};
  }
};

struct ScatterRows : torch::autograd::Function<ScatterRows> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& messages, const at::Tensor& index,
                            const c10::SymInt& num_rows, bool cache) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["cache"] = cache;
    ctx->save_for_backward({index});
    return ops::scatter_rows(messages, index, num_rows, cache);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = saved_by(ctx);
    if (!grads[0].defined()) return variable_list(4);
    return {ops::gather_rows(grads[0], saved[0], ctx->saved_data["cache"].toBool()), {}, {}, {}};
  }
};

at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index, bool cache) {
  if (c10::GradMode::is_enabled() && x.requires_grad()) return GatherRows::apply(x, index, cache);
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::gather_rows(x, index, cache);
}

at::Tensor scatter_rows(const at::Tensor& messages, const at::Tensor& index, c10::SymInt num_rows, bool cache) {
  if (c10::GradMode::is_enabled() && messages.requires_grad())
    return ScatterRows::apply(messages, index, num_rows, cache);
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::scatter_rows(messages, index, std::move(num_rows), cache);
}

TORCH_LIBRARY_IMPL(gnna, Autograd, m) {
  m.impl("gather_rows", &gather_rows);
  m.impl("scatter_rows", &scatter_rows);
}

}  // namespace
}  // namespace gnna
