// The bodies of gather_rows and scatter_rows, the same for every device (see spmm.h). The device provides
//   static constexpr bool kGathersUnchecked;  // whether it has the gather kernel below, which does not check its ids
//   static void gather_rows(const at::Tensor& x, const at::Tensor& index, at::Tensor& out);
//   static void spmm(const Plan&, const SpmmArgs<T>&, at::Tensor& out);
// Both ops use the segment plan of the index. Its existence proves that the ids are in range, and scatter_rows sums by
// its lists. If it is not cached, the second call with the same index builds it: of gather_rows if kGathersUnchecked
// (scatter_rows then never builds one), otherwise of scatter_rows. Without a plan the ops fall back to torch, because
// an index that is used once, such as that of a sampled batch, does not repay one.
#pragma once

#include <ATen/ops/index_add.h>

#include "ops/segment_reduce.h"

namespace gnna {

template <typename Device>
at::Tensor gather_rows_on(const at::Tensor& x, const at::Tensor& index, bool cache) {
  check_indices(x, index, index);
  const typename Device::Guard guard(x.device());
  if constexpr (Device::kGathersUnchecked) {
    if (cache && index.numel() > 0 && segments_if_repeated(index, x.size(0))) {
      at::Tensor out = empty_contiguous(x, with_rows(x, index.numel()));
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
    plan = Device::kGathersUnchecked ? cached_segments(index, num_rows) : segments_if_repeated(index, num_rows);
  }
  if (plan == nullptr) {
    return at::zeros(with_rows(messages, num_rows), messages.options()).index_add_(0, index, messages);
  }
  return reduce_segments<Device>(*plan, messages, num_rows, Reduce::Sum, cache);
}

}  // namespace gnna
