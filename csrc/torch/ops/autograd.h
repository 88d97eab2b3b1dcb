// Helpers that the derivatives of several ops share. d spmm / dx is spmm on the reversed edges, d spmm / dweight is
// sddmm, and both derivatives of sddmm are spmm. So all orders of differentiation run on the same kernels, except that
// higher orders of max and min fall back to ATen on edge-sized tensors. Derivatives are written in C++ because host
// time dominates on small graphs.
#pragma once

#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

#include <string>

#include "common/dtypes.h"
#include "ops/calls.h"

namespace gnna {

using ops::MaybeTensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Returns the tensors saved for the backward pass. If one of them was modified in place, the error says what to do and
// quotes torch's message.
inline variable_list saved_by(AutogradContext* ctx) {
  try {
    return ctx->get_saved_variables();
  } catch (const c10::Error& error) {
    const std::string words = error.what_without_backtrace();
    if (words.find("modified by an inplace operation") == std::string::npos) throw;
    TORCH_CHECK(false,
                "gnna_plugin: features or weights of a layer have been modified in place before backward(), which "
                "needs their old values; modify a copy instead (x = x.clone()), or exclude the layer with "
                "`conv.gnna = False`. ",
                words);
  }
}

inline bool wants_grad(const at::Tensor& t) { return t.defined() && t.requires_grad(); }
inline bool wants_grad(const MaybeTensor& t) { return t.has_value() && wants_grad(*t); }
inline MaybeTensor maybe(const at::Tensor& t) { return t.defined() ? MaybeTensor(t) : std::nullopt; }

// Appends dimensions of size 1 to t [E, *W], so that it broadcasts against messages [E, *S]. W is a prefix of S.
inline at::Tensor broadcast_to_messages(const at::Tensor& t, int64_t message_dims) {
  std::vector<c10::SymInt> sizes(t.sym_sizes().begin(), t.sym_sizes().end());
  sizes.resize(message_dims, 1);
  return t.reshape_symint(sizes);
}

// Sums messages [E, *S] over the dimensions along which a weight [E, *W] is broadcast.
inline at::Tensor sum_to_weight(const at::Tensor& messages, int64_t weight_dims) {
  std::vector<int64_t> dims;
  for (int64_t d = weight_dims; d < messages.dim(); ++d) dims.push_back(d);
  return dims.empty() ? messages : messages.sum(dims);
}

// Divides each row of grad by its count. count is in the compute dtype, because 16-bit types do not hold every integer
// above 256 (bfloat16) or 2048 (float16).
inline at::Tensor divide_by_count(const at::Tensor& grad, const at::Tensor& count) {
  return (grad / broadcast_to_messages(count, grad.dim())).to(grad.scalar_type());
}

}  // namespace gnna
