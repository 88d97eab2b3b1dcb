// The arguments of the ops, checked once and put into the kernels' terms: which trailing dimensions of x share one
// weight, which reduction is meant, and that indices and features fit together. Every refusal is one sentence: what was
// given, what is accepted.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

#include "common/dtypes.h"

namespace gnna {

Reduce parse_reduce(std::string_view reduce);

// src and dst: one-dimensional int32 or int64 of one length and dtype.
void check_ends(const at::Tensor& src, const at::Tensor& dst);

// The same, and on one device with x, whose dtype has kernels.
void check_indices(const at::Tensor& x, const at::Tensor& src, const at::Tensor& dst);

// x [N, *S] with weight [E, *W], W a prefix of S: heads = product of W, head_dim = product of the rest. weight [E] is
// one weight per edge, [E, H] against [N, H, D] one per head, [E, F] against [N, F] one per feature.
struct LayerShape {
  int64_t heads = 1;
  int64_t head_dim = 1;
  int64_t width() const { return heads * head_dim; }
};
LayerShape layer_shape(const at::Tensor& x, const std::optional<at::Tensor>& weight, int64_t edges);

// The same for sddmm, whose result keeps the first head_dims trailing dimensions of its operands.
LayerShape layer_shape(const at::Tensor& a, int64_t head_dims);

// Feature rows with unit stride inside: x itself where its rows merely lie apart, otherwise a contiguous copy.
struct FeatureRows {
  at::Tensor tensor;
  int64_t stride;
};
FeatureRows feature_rows(const at::Tensor& x);

at::DimVector with_rows(const at::Tensor& x, int64_t rows);

// sddmm's two operands: one dtype, one device, the same trailing dimensions.
void check_operands(const at::Tensor& a, const at::Tensor& b);

// The tensors of one max / min gradient, contiguous, with room for the results.
struct ExtremumTensors {
  at::Tensor grad, x, weight, out, share, grad_x, grad_weight;

  ExtremumTensors(const at::Tensor& grad, const at::Tensor& x, const std::optional<at::Tensor>& weight,
                  const at::Tensor& out, bool with_weight);

  template <typename T>
  ExtremumArgs<T> args(const LayerShape& shape) const {
    ExtremumArgs<T> a;
    a.grad = const_data<T>(grad);
    a.x = const_data<T>(x);
    a.weight = weight.defined() ? const_data<T>(weight) : nullptr;
    a.out = const_data<T>(out);
    a.share = mutable_data<Compute<T>>(share);
    a.grad_x = mutable_data<T>(grad_x);
    a.grad_weight = grad_weight.numel() > 0 ? mutable_data<T>(grad_weight) : nullptr;
    a.heads = shape.heads;
    a.head_dim = shape.head_dim;
    return a;
  }
};

}  // namespace gnna
