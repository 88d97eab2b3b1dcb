// The body of extremum_backward, the gradient of spmm's max and min (see spmm.h). The device provides
//   static void extremum(const Plan& forward, const Plan& transposed, const ExtremumArgs<T>&, const at::Tensor& src,
//                        const at::Tensor& dst);
#pragma once

#include "ops/spmm.h"

namespace gnna {

template <typename Device>
std::tuple<at::Tensor, at::Tensor> extremum_backward_on(const at::Tensor& grad, const at::Tensor& x,
                                                        const std::optional<at::Tensor>& weight, const at::Tensor& out,
                                                        const at::Tensor& src, const at::Tensor& dst, bool with_weight,
                                                        bool cache) {
  check_indices(x, src, dst);
  const LayerShape shape = layer_shape(x, weight, src.numel());
  check_operands(x, out);
  check_operands(grad, out);
  TORCH_CHECK_VALUE(grad.size(0) == out.size(0), "grad has ", grad.size(0), " rows and out ", out.size(0));
  const int64_t num_dst = out.size(0), num_src = x.size(0);
  const typename Device::Guard guard(x.device());
  const ExtremumTensors t(grad, x, weight, out, with_weight);
  if (src.numel() == 0 || shape.width() == 0) return {t.grad_x.zero_(), t.grad_weight.zero_()};
  const auto forward = plan_for(dst, src, num_dst, num_src, "dst", "src", cache);
  const auto transposed = plan_for(src, dst, num_src, num_dst, "src", "dst", cache);
  for_dtype(x.scalar_type(), [&](auto zero) {
    Device::extremum(*forward, *transposed, t.template args<decltype(zero)>(shape), src, dst);
  });
  return {t.grad_x, t.grad_weight};
}

}  // namespace gnna
