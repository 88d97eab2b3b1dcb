// Checks the arguments of the ops and converts them to the kernels' terms: heads and elements per weight, the
// reduction, row strides. An error message says what was given and what is accepted.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

#include "common/dtypes.h"

namespace gnna {

// "sum" (or "add"), "mean", "max" or "min".
Reduce parse_reduce(std::string_view reduce);

// Checks that src and dst are one-dimensional int32 or int64 tensors of one length and dtype.
void check_edge_ids(const at::Tensor& src, const at::Tensor& dst);

// As check_edge_ids. Also checks that x is on the same device, has a supported dtype and at least one dimension.
void check_indices(const at::Tensor& x, const at::Tensor& src, const at::Tensor& dst);

// For x [N, *S] and weight [E, *W], where W is a prefix of S: heads is the product of W and head_dim the product of the
// other dimensions of S. A weight [E] has one element per edge, [E, H] with x [N, H, D] one per head, and [E, F] with
// x [N, F] one per feature.
struct LayerShape {
  int64_t heads = 1;
  int64_t head_dim = 1;
  int64_t width() const { return heads * head_dim; }
};
LayerShape layer_shape(const at::Tensor& x, const std::optional<at::Tensor>& weight, int64_t edges);

// For sddmm, whose result keeps the first head_dims feature dimensions of its operands.
LayerShape layer_shape(const at::Tensor& a, int64_t head_dims);

// x in a form whose rows have unit stride inside: x itself if it is two-dimensional, has unit stride inside its rows
// and the rows do not overlap, otherwise x.contiguous().
struct FeatureRows {
  at::Tensor tensor;
  int64_t stride;  // elements from one row to the next
};
FeatureRows feature_rows(const at::Tensor& x);

// The sizes of x with the first one replaced by rows.
at::DimVector with_rows(const at::Tensor& x, int64_t rows);

// Checks that two operands of an op have one dtype, one device and the same trailing dimensions. Their numbers of rows
// may differ.
void check_operands(const at::Tensor& a, const at::Tensor& b);

// The operands of extremum_backward, contiguous, and its uninitialised results share, grad_x and grad_weight.
// grad_weight is empty unless with_weight is set and there is a weight.
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
