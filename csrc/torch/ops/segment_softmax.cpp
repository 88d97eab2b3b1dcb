// Derivatives of segment_softmax. Its Jacobian diag(out) - out out^T is symmetric, so the backward op is its own
// derivative with respect to grad. The derivative with respect to out is composed of dispatched ops, which makes every
// higher order available.
#include <torch/library.h>

#include "ops/autograd.h"

namespace gnna {
namespace {

struct SegmentSoftmax : torch::autograd::Function<SegmentSoftmax> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& scores, const at::Tensor& index,
                            const c10::SymInt& num_rows, bool cache) {
    const at::AutoDispatchBelowADInplaceOrView below;
    at::Tensor out = ops::segment_softmax(scores, index, num_rows, cache);
    ctx->saved_data["num_rows"] = num_rows;
    ctx->saved_data["cache"] = cache;
    ctx->save_for_backward({index, out});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = saved_by(ctx);
    if (!grads[0].defined()) return variable_list(4);
    return {ops::segment_softmax_backward(grads[0], saved[1], saved[0], ctx->saved_data["num_rows"].toSymInt(),
                                          ctx->saved_data["cache"].toBool()),
            {},
            {},
            {}};
  }
};

struct SegmentSoftmaxBackward : torch::autograd::Function<SegmentSoftmaxBackward> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& grad, const at::Tensor& out,
                            const at::Tensor& index, const c10::SymInt& num_rows, bool cache) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["num_rows"] = num_rows;
    ctx->saved_data["cache"] = cache;
    ctx->save_for_backward({grad, out, index});
    return ops::segment_softmax_backward(grad, out, index, num_rows, cache);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = saved_by(ctx);
    const at::Tensor &grad = saved[0], &out = saved[1], &index = saved[2], &g = grads[0];
    if (!g.defined()) return variable_list(5);
    const c10::SymInt num_rows = ctx->saved_data["num_rows"].toSymInt();
    const bool cache = ctx->saved_data["cache"].toBool();
    const auto sum_over_row = [&](const at::Tensor& values) {
      return ops::gather_rows(ops::segment_reduce(values, index, num_rows, "sum", cache), index, cache);
    };
    const at::Tensor to_grad = ops::segment_softmax_backward(g, out, index, num_rows, cache);
    const at::Tensor to_out = g * (grad - sum_over_row(out * grad)) - grad * sum_over_row(g * out);
    return {to_grad, to_out, {}, {}, {}};
  }
};

at::Tensor segment_softmax(const at::Tensor& scores, const at::Tensor& index, c10::SymInt num_rows, bool cache) {
  if (c10::GradMode::is_enabled() && scores.requires_grad())
    return SegmentSoftmax::apply(scores, index, num_rows, cache);
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::segment_softmax(scores, index, std::move(num_rows), cache);
}

at::Tensor segment_softmax_backward(const at::Tensor& grad, const at::Tensor& out, const at::Tensor& index,
                                    c10::SymInt num_rows, bool cache) {
  if (c10::GradMode::is_enabled() && (grad.requires_grad() || out.requires_grad()))
    return SegmentSoftmaxBackward::apply(grad, out, index, num_rows, cache);
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::segment_softmax_backward(grad, out, index, std::move(num_rows), cache);
}

TORCH_LIBRARY_IMPL(gnna, Autograd, m) {
  m.impl("segment_softmax", &segment_softmax);
  m.impl("segment_softmax_backward", &segment_softmax_backward);
}

}  // namespace
}  // namespace gnna
