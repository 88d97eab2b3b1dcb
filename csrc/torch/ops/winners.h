// The gradient of a max or min with respect to its messages, in differentiable operations.
#pragma once

#include <ATen/TensorOperators.h>

#include "ops/autograd.h"

namespace gnna {

// Equal winners share the gradient. As in torch.scatter_reduce, a result of 0 counts as one more winner. grad and best
// are [num_rows, *S], messages and the result [E, *S].
inline at::Tensor winners_share(const at::Tensor& grad, const at::Tensor& best, const at::Tensor& messages,
                                const at::Tensor& index, const c10::SymInt& num_rows, bool cache) {
  const auto dtype = compute_dtype(grad.scalar_type());
  const at::Tensor wins = messages.eq(ops::gather_rows(best, index, cache)).to(dtype).detach();
  const at::Tensor sharers = ops::segment_reduce(wins, index, num_rows, "sum", cache) + best.eq(0);
  const at::Tensor share = ops::gather_rows(grad / sharers.detach(), index, cache);
  return (wins * share).to(grad.scalar_type());
}

}  // namespace gnna
