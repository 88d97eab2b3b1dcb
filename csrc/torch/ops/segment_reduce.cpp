// Derivative of segment_reduce.
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "ops/winners.h"

namespace gnna {
namespace {

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
    const auto saved = saved_by(ctx);
    const at::Tensor &index = saved[0], &messages = saved[1], &out = saved[2];
    if (!grads[0].defined()) return variable_list(5);
    const bool cache = ctx->saved_data["cache"].toBool();
    const c10::SymInt num_rows = ctx->saved_data["num_rows"].toSymInt();
    at::Tensor grad = grads[0];
    if (ctx->saved_data["reduce"].toStringRef() == "mean") {
      const at::Tensor count = ops::mean_divisor(grad, std::nullopt, index, index.sym_numel(), num_rows, cache);
      grad = divide_by_count(grad, count);
    } else if (messages.defined()) {
      if (!c10::GradMode::is_enabled()) {
        return {ops::segment_extremum_backward(grad, messages, out, index, cache), {}, {}, {}, {}};
      }
      return {winners_share(grad, out, messages, index, num_rows, cache), {}, {}, {}, {}};
    }
    return {ops::gather_rows(grad, index, cache), {}, {}, {}, {}};
  }
};

at::Tensor segment_reduce(const at::Tensor& messages, const at::Tensor& index, c10::SymInt num_rows,
                          c10::string_view reduce, bool cache) {
  if (c10::GradMode::is_enabled() && wants_grad(messages))
    return SegmentReduce::apply(messages, index, num_rows, std::string(reduce.data(), reduce.size()), cache);
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::segment_reduce(messages, index, std::move(num_rows), reduce, cache);
}

TORCH_LIBRARY_IMPL(gnna, Autograd, m) {
  m.impl("segment_reduce", &segment_reduce);
  m.impl("segment_extremum_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace
}  // namespace gnna
