// The bodies of gather_rows and scatter_rows, the same for every device (see spmm.h). The device's part is
//   static constexpr bool kGathersByPlan;  // whether it has a gather of its own, whose ids must be in range:
//   static void gather_rows(const at::Tensor& x, const at::Tensor& index, at::Tensor& out);
//   static void spmm(const Plan&, const SpmmArgs<T>&, at::Tensor& out);
// The segment plan of the index says that its ids are in range, and where the sums of scatter_rows come from. It is
// built when the same index comes for the second time, to the first of the two ops that needs one on this device. An
// index that comes once, of a batch say, would not earn a plan; it is left to torch.
#pragma once

#include <ATen/ops/index_add.h>

#include "ops/segment_reduce.h"

namespace gnna {

template <typename Device>
at::Tensor gather_rows_on(const at::Tensor& x, const at::Tensor& index, bool cache) {
  check_indices(x, index, index);
  const typename Device::Guard guard(x.device());
  if constexpr (Device::kGathersByPlan) {
    if (cache && index.numel() > 0 && segments_if_repeated(index, x.size(0))) {
      at::Tensor out = empty_like_rows(x, with_rows(x, index.numel()));
      if (out.numel() > 0) Device::gather_rows(x.contiguous(), index, out);
      return out;
    }
  }
  return x.index_select(0, index);
}

template <typename Device>
at::Tensor scatter_rows_on(const at::Tensor& messages, const at::Tensor& index, int64_t num_rows, bool cache) {
  check_messages(messages, index, num_rows);
  const typename Device::Guard guard(messages.device());
  std::shared_ptr<const Plan> plan;
  if (cache && index.numel() > 0) {
    plan = Device::kGathersByPlan ? segments_if_there(index, num_rows) : segments_if_repeated(index, num_rows);
  }
  if (plan == nullptr) {
    return at::zeros(with_rows(messages, num_rows), messages.options()).index_add_(0, index, messages);
  }
  return reduce_segments<Device>(*plan, messages, num_rows, Reduce::Sum, cache);
}

}  // namespace gnna
