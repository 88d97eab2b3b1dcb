// What the derivatives of several ops share. spmm and sddmm are each other's: d spmm / dx is spmm on the transposed
// edge list, d spmm / dweight is sddmm, and the derivatives of sddmm are two spmm. So every order of differentiation
// runs on the same kernels; only the second order of max and min falls back to ATen on edge-sized tensors. C++
// throughout: on small graphs the host's time decides.
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

// What was saved for the backward pass. If it was written to, the error says what to do, beside torch's own words.
inline variable_list saved_by(AutogradContext* ctx) {
  try {
    return ctx->get_saved_variables();
  } catch (const c10::Error& error) {
    const std::string words = error.what_without_backtrace();
    if (words.find("modified by an inplace operation") == std::string::npos) throw;
    TORCH_CHECK(false,
                "gnna_plugin: features or weights of a layer have been modified in place between the layer and "
                "backward(), which needs them as they were; write to a copy of them instead (x = x.clone()), or "
                "exclude the layer with `conv.gnna = False`. ",
                words);
  }
}

inline bool wants_grad(const at::Tensor& t) { return t.defined() && t.requires_grad(); }
inline bool wants_grad(const MaybeTensor& t) { return t.has_value() && wants_grad(*t); }
inline MaybeTensor maybe(const at::Tensor& t) { return t.defined() ? MaybeTensor(t) : std::nullopt; }

// t [E, *W] against messages [E, *S], W a prefix of S: trailing ones, so that the two broadcast.
inline at::Tensor broadcast_to_messages(const at::Tensor& t, int64_t message_dims) {
  std::vector<c10::SymInt> sizes(t.sym_sizes().begin(), t.sym_sizes().end());
  sizes.resize(message_dims, 1);
  return t.reshape_symint(sizes);
}

// messages [E, *S] summed over what one weight [E, *W] multiplies.
inline at::Tensor sum_to_weight(const at::Tensor& messages, int64_t weight_dims) {
  std::vector<int64_t> dims;
  for (int64_t d = weight_dims; d < messages.dim(); ++d) dims.push_back(d);
  return dims.empty() ? messages : messages.sum(dims);
}

// Counts are in the dtype of computation: in 16 bits a degree would be inexact from 257 or 2049 on.
inline at::Tensor divide_by_count(const at::Tensor& grad, const at::Tensor& count) {
  return (grad / broadcast_to_messages(count, grad.dim())).to(grad.scalar_type());
}

}  // namespace gnna
