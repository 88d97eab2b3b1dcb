// The bodies of segment_reduce, which reduces messages with equal index by spmm's kernels on the segment plan of the
// index, and of the gradient of its max and min, which runs the kernels of the pair ops (pair.h) on that plan.
#pragma once

#include <ATen/TensorOperators.h>

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

// Equal winners share the gradient. As in torch.scatter_reduce, a result of 0 counts as one more winner. Winners are
// counted in the messages' type: up to 256 exactly, and rounded as their shares are beyond that.
template <typename Device>
at::Tensor segment_extremum_backward_on(const at::Tensor& grad, const at::Tensor& messages, const at::Tensor& best,
                                        const at::Tensor& index, bool cache) {
  const int64_t num_rows = best.size(0);
  check_messages(messages, index, num_rows);
  check_operands(grad, best);
  check_operands(messages, best);
  const typename Device::Guard guard(messages.device());
  const at::Tensor given = messages.contiguous(), results = best.contiguous();
  at::Tensor out = empty_contiguous(messages, messages.sizes());
  if (out.numel() == 0) return out;
  const auto plan = segment_plan_for(index, num_rows, cache);
  at::Tensor winners = empty_contiguous(best, best.sizes());
  for_dtype(messages.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    PairArgs<T> args;
    args.csr = plan->view();
    args.head_dim = layer_shape(messages, 0).width();
    args.best = const_data<T>(results);
    args.cols = const_data<T>(given);
    args.out = mutable_data<T>(winners);
    Device::pair_reduce(*plan, args);

    const at::Tensor share = (grad / winners.add_(results.eq(0))).contiguous();
    args.cols = nullptr;
    args.edges = const_data<T>(given);
    args.left = const_data<T>(share);
    args.left_stride = args.head_dim;
    args.out = mutable_data<T>(out);
    Device::pair_map(args, index, index);
  });
  return out;
}

}  // namespace gnna
