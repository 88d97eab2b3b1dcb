// The body of segment_reduce: reduces messages with equal index. Runs spmm's kernels on the segment plan of the index.
#pragma once

#include "ops/spmm.h"

namespace gnna {

inline void check_messages(const at::Tensor& messages, const at::Tensor& index, int64_t num_rows) {
  check_indices(messages, index, index);
  TORCH_CHECK_VALUE(messages.size(0) == index.numel(), "there are ", messages.size(0), " messages and ", index.numel(),
                    " indices; there must be one index per message");
  TORCH_CHECK_VALUE(num_rows >= 0, "num_rows is ", num_rows, "; it counts the output rows and must be 0 or more");
}

template <typename Device>
at::Tensor reduce_segments(const Plan& plan, const at::Tensor& messages, int64_t num_rows, Reduce reduce, bool cache) {
  at::Tensor out = empty_contiguous(messages, with_rows(messages, num_rows));
  if (out.numel() == 0) return out;
  with_spmm_args(plan, messages, std::nullopt, cache, layer_shape(messages, 0), reduce, out,
                 [&](const auto& args) { Device::spmm(plan, args, out); });
  return out;
}

template <typename Device>
at::Tensor segment_reduce_on(const at::Tensor& messages, const at::Tensor& index, int64_t num_rows,
                             c10::string_view reduce_name, bool cache) {
  const Reduce reduce = parse_reduce({reduce_name.data(), reduce_name.size()});
  check_messages(messages, index, num_rows);
  const typename Device::Guard guard(messages.device());
  if (index.numel() == 0) return at::zeros(with_rows(messages, num_rows), messages.options());
  return reduce_segments<Device>(*scheduled_segment_plan_for(index, num_rows, cache), messages, num_rows, reduce,
                                 cache);
}

}  // namespace gnna
