// The bodies of segment_softmax and its backward op (see spmm.h). The device provides
//   static void segment_softmax(const Plan&, const SegmentSoftmaxArgs<T>&, const at::Tensor& index);
//   static void segment_softmax_backward(const Plan&, const SegmentSoftmaxBackwardArgs<T>&, const at::Tensor& index);
#pragma once

#include "ops/spmm.h"

namespace gnna {

// Checks the arguments and returns the segment plan of index, or nullptr if there are no edges.
inline std::shared_ptr<const Plan> softmax_plan(const at::Tensor& scores, const at::Tensor& index, int64_t num_rows,
                                                bool cache) {
  check_indices(scores, index, index);
  TORCH_CHECK_VALUE(scores.size(0) == index.numel(), "there are ", scores.size(0), " scores and ", index.numel(),
                    " indices; there must be one index per score");
  TORCH_CHECK_VALUE(num_rows >= 0, "num_rows is ", num_rows, "; it counts the segments and must be 0 or more");
  return index.numel() == 0 ? nullptr : segment_plan_for(index, num_rows, cache);
}

template <typename Device>
at::Tensor segment_softmax_on(const at::Tensor& scores, const at::Tensor& index, int64_t num_rows, bool cache) {
  const typename Device::Guard guard(scores.device());
  const auto plan = softmax_plan(scores, index, num_rows, cache);
  const at::Tensor from = scores.contiguous();
  at::Tensor out = empty_contiguous(scores, scores.sizes());
  if (out.numel() == 0) return out;
  for_dtype(scores.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    SegmentSoftmaxArgs<T> args;
    args.csr = plan->view();
    args.scores = const_data<T>(from);
    args.out = mutable_data<T>(out);
    args.heads = layer_shape(scores, 0).width();
    Device::segment_softmax(*plan, args, index);
  });
  return out;
}

template <typename Device>
at::Tensor segment_softmax_backward_on(const at::Tensor& grad, const at::Tensor& out, const at::Tensor& index,
                                       int64_t num_rows, bool cache) {
  const typename Device::Guard guard(out.device());
  check_operands(grad, out);
  TORCH_CHECK_VALUE(grad.size(0) == out.size(0), "grad has ", grad.size(0), " rows and out ", out.size(0));
  const auto plan = softmax_plan(out, index, num_rows, cache);
  const at::Tensor from = out.contiguous(), with = grad.contiguous();
  at::Tensor grad_scores = empty_contiguous(out, out.sizes());
  if (out.numel() == 0) return grad_scores;
  for_dtype(out.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    SegmentSoftmaxBackwardArgs<T> args;
    args.csr = plan->view();
    args.out = const_data<T>(from);
    args.grad = const_data<T>(with);
    args.grad_scores = mutable_data<T>(grad_scores);
    args.heads = layer_shape(out, 0).width();
    Device::segment_softmax_backward(*plan, args, index);
  });
  return grad_scores;
}

}  // namespace gnna
