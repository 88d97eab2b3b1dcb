// Argument checks that the ops share on all devices.
#include "common/arguments.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>

namespace gnna {

Reduce parse_reduce(std::string_view reduce) {
  if (reduce == "sum" || reduce == "add") return Reduce::Sum;
  if (reduce == "mean") return Reduce::Mean;
  if (reduce == "max") return Reduce::Max;
  if (reduce == "min") return Reduce::Min;
  TORCH_CHECK_VALUE(false, "reduce is '", reduce, "'; accepted are 'sum', 'mean', 'max' and 'min'");
}

void check_edge_ids(const at::Tensor& src, const at::Tensor& dst) {
  const auto integral = [](const at::Tensor& t) { return t.scalar_type() == at::kInt || t.scalar_type() == at::kLong; };
  TORCH_CHECK_TYPE(integral(src) && src.scalar_type() == dst.scalar_type(), "src and dst are ", src.scalar_type(),
                   " and ", dst.scalar_type(), "; both must be int32 or both int64");
  TORCH_CHECK_VALUE(src.dim() == 1 && dst.dim() == 1 && src.numel() == dst.numel(), "src and dst have shapes ",
                    src.sizes(), " and ", dst.sizes(), "; both must be one-dimensional and of one length");
}

void check_indices(const at::Tensor& x, const at::Tensor& src, const at::Tensor& dst) {
  check_edge_ids(src, dst);
  TORCH_CHECK_VALUE(src.device() == x.device() && dst.device() == x.device(), "x is on ", x.device(), ", src on ",
                    src.device(), " and dst on ", dst.device(), "; they must be on one device");
  TORCH_CHECK_TYPE(is_supported(x.scalar_type()), "features are ", x.scalar_type(),
                   "; float32, float64, float16 and bfloat16 are supported");
  TORCH_CHECK_VALUE(x.dim() >= 1, "features have no dimensions; the first must count the nodes");
}

LayerShape layer_shape(const at::Tensor& x, const std::optional<at::Tensor>& weight, int64_t edges) {
  if (!weight.has_value()) return layer_shape(x, 0);
  TORCH_CHECK_TYPE(weight->scalar_type() == x.scalar_type(), "weight is ", weight->scalar_type(), " and x ",
                   x.scalar_type(), "; they must have one dtype");
  TORCH_CHECK_VALUE(weight->device() == x.device(), "weight is on ", weight->device(), " and x on ", x.device(),
                    "; they must be on one device");
  bool fits = weight->dim() >= 1 && weight->dim() <= x.dim() && weight->size(0) == edges;
  for (int64_t d = 1; fits && d < weight->dim(); ++d) fits = weight->size(d) == x.size(d);
  TORCH_CHECK_VALUE(fits, "weight has shape ", weight->sizes(), " for ", edges, " edges and x of shape ", x.sizes(),
                    "; it must be [edges] followed by leading feature dimensions of x");
  return layer_shape(x, weight->dim() - 1);
}

LayerShape layer_shape(const at::Tensor& a, int64_t head_dims) {
  TORCH_CHECK_VALUE(head_dims >= 0 && head_dims < std::max<int64_t>(a.dim(), 1), "head_dims is ", head_dims,
                    " for features of shape ", a.sizes(),
                    "; it must be 0 or more and less than their number of dimensions");
  LayerShape shape;
  for (int64_t d = 1; d < a.dim(); ++d) (d <= head_dims ? shape.heads : shape.head_dim) *= a.size(d);
  return shape;
}

FeatureRows feature_rows(const at::Tensor& x) {
  const bool rows_apart = x.dim() == 2 && x.stride(1) == 1 && x.stride(0) >= x.size(1);
  if (rows_apart) return {x, x.stride(0)};
  at::Tensor contiguous = x.contiguous();
  const int64_t width = contiguous.size(0) == 0 ? 0 : contiguous.numel() / contiguous.size(0);
  return {std::move(contiguous), width};
}

at::DimVector with_rows(const at::Tensor& x, int64_t rows) {
  at::DimVector sizes(x.sizes());
  sizes[0] = rows;
  return sizes;
}

void check_operands(const at::Tensor& a, const at::Tensor& b) {
  TORCH_CHECK_VALUE(a.scalar_type() == b.scalar_type() && a.device() == b.device(), "the operands are ",
                    a.scalar_type(), " on ", a.device(), " and ", b.scalar_type(), " on ", b.device(),
                    "; they must have one dtype and one device");
  TORCH_CHECK_VALUE(a.dim() >= 1 && a.dim() == b.dim() && a.sizes().slice(1) == b.sizes().slice(1),
                    "the operands have shapes ", a.sizes(), " and ", b.sizes(),
                    "; their trailing dimensions must be equal");
}

ExtremumTensors::ExtremumTensors(const at::Tensor& grad_, const at::Tensor& x_,
                                 const std::optional<at::Tensor>& weight_, const at::Tensor& out_, bool with_weight)
    : grad(grad_.contiguous()), x(x_.contiguous()), out(out_.contiguous()) {
  const auto options = x.options().memory_format(at::MemoryFormat::Contiguous);
  if (weight_.has_value()) weight = weight_->contiguous();
  share = at::empty(out.sizes(), options.dtype(compute_dtype(x.scalar_type())));
  grad_x = at::empty(x.sizes(), options);
  grad_weight = with_weight && weight.defined() ? at::empty(weight.sizes(), options) : at::empty({0}, options);
}

}  // namespace gnna
