// The body of sddmm (see spmm.h): out[e] = a[src[e]] * b[dst[e]], summed over all but the first head_dims feature
// dimensions. The device provides
//   static void sddmm(const SddmmArgs<T>&, const at::Tensor& src, const at::Tensor& dst);
#pragma once

#include "ops/spmm.h"

namespace gnna {

template <typename Device>
at::Tensor sddmm_on(const at::Tensor& a, const at::Tensor& b, const at::Tensor& src, const at::Tensor& dst,
                    int64_t head_dims, bool cache) {
  check_indices(a, src, dst);
  check_operands(a, b);
  const LayerShape shape = layer_shape(a, head_dims);
  at::DimVector sizes(a.sizes().begin(), a.sizes().begin() + 1 + head_dims);
  sizes[0] = src.numel();
  const typename Device::Guard guard(a.device());
  const auto plan = plan_for(dst, src, b.size(0), a.size(0), "dst", "src", cache);
  at::Tensor out = empty_contiguous(a, sizes);
  if (out.numel() == 0) return out;
  const at::Tensor a_rows = a.contiguous(), b_rows = b.contiguous();
  for_dtype(a.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    SddmmArgs<T> args;
    args.csr = plan->view();
    args.a = const_data<T>(a_rows);
    args.b = const_data<T>(b_rows);
    args.out = mutable_data<T>(out);
    args.heads = shape.heads;
    args.head_dim = shape.head_dim;
    Device::sddmm(args, src, dst);
  });
  return out;
}

}  // namespace gnna
