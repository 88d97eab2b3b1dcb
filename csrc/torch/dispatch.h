// The ops' bodies, the same for every device: arguments checked, plan looked up, results allocated, the kernel called.
// A device is a type with
//   static void spmm(const Plan&, const SpmmArgs<T>&, at::Tensor& out);
//   static void spmm_arg(const Plan&, const SpmmArgs<T>&, bool last, int32_t* arg);
//   static void sddmm(const SddmmArgs<T>&, const at::Tensor& src, const at::Tensor& dst);
//   static void extremum(const Plan& forward, const Plan& transposed, const ExtremumArgs<T>&, const at::Tensor& src,
//                        const at::Tensor& dst);
//   Guard, which makes a tensor's device the current one.
#pragma once

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/MemoryFormat.h>

#include <cmath>

#include "arguments.h"
#include "dtypes.h"
#include "plan.h"

namespace gnna {

inline at::Tensor empty_like_rows(const at::Tensor& x, at::IntArrayRef sizes) {
  return at::empty(sizes, x.options().memory_format(at::MemoryFormat::Contiguous));
}

// What spmm's kernels are told, in the kernels' types, to `run`.
template <typename Run>
void with_spmm_args(const Plan& plan, const at::Tensor& x, const std::optional<at::Tensor>& weight, bool cache,
                    const LayerShape& shape, Reduce reduce, const at::Tensor& out, const Run& run) {
  const FeatureRows rows = feature_rows(x);
  at::Tensor values;  // the weight, in slot order where the plan has it so
  bool slot_order = !plan.perm.defined();
  if (weight.has_value()) {
    if (cache) values = plan.slot_ordered(*weight);
    slot_order = slot_order || values.defined();
    values = (values.defined() ? values : *weight).contiguous();
  }
  for_dtype(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    SpmmArgs<T> args;
    args.csr = plan.view();
    args.x = const_data<T>(rows.tensor);
    args.x_stride = rows.stride;
    args.weight = values.defined() ? const_data<T>(values) : nullptr;
    args.weight_index = slot_order ? nullptr : args.csr.perm;
    args.out = mutable_data<T>(out);
    args.heads = shape.heads;
    args.head_dim = shape.head_dim;
    args.reduce = reduce;
    run(args);
  });
}

template <typename Device>
at::Tensor spmm_on(const at::Tensor& x, const std::optional<at::Tensor>& weight, const at::Tensor& src,
                   const at::Tensor& dst, int64_t num_dst, c10::string_view reduce_name, bool cache) {
  const Reduce reduce = parse_reduce({reduce_name.data(), reduce_name.size()});
  check_indices(x, src, dst);
  TORCH_CHECK_VALUE(num_dst >= 0, "num_dst is ", num_dst, "; it counts the output rows");
  const LayerShape shape = layer_shape(x, weight, src.numel());
  const typename Device::Guard guard(x.device());
  if (src.numel() == 0) return at::zeros(with_rows(x, num_dst), x.options());
  const auto plan = plan_for(dst, src, num_dst, x.size(0), "dst", "src", cache, /*edge_ids=*/weight.has_value());
  at::Tensor out = empty_like_rows(x, with_rows(x, num_dst));
  if (out.numel() == 0) return out;

  with_spmm_args(*plan, x, weight, cache, shape, reduce, out,
                 [&](const auto& args) { Device::spmm(*plan, args, out); });
  return out;
}

inline void check_messages(const at::Tensor& messages, const at::Tensor& index, int64_t num_rows) {
  check_indices(messages, index, index);
  TORCH_CHECK_VALUE(messages.size(0) == index.numel(), "there are ", messages.size(0), " messages and ", index.numel(),
                    " indices; there must be one index per message");
  TORCH_CHECK_VALUE(num_rows >= 0, "num_rows is ", num_rows, "; it counts the output rows");
}

template <typename Device>
at::Tensor reduce_segments(const Plan& plan, const at::Tensor& messages, int64_t num_rows, Reduce reduce, bool cache) {
  at::Tensor out = empty_like_rows(messages, with_rows(messages, num_rows));
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
  return reduce_segments<Device>(*segments_for(index, num_rows, cache), messages, num_rows, reduce, cache);
}

template <typename Device>
std::tuple<at::Tensor, at::Tensor, at::Tensor> spmm_arg_on(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                                                           const at::Tensor& src, const at::Tensor& dst,
                                                           int64_t num_dst, c10::string_view reduce_name, bool cache,
                                                           bool last) {
  const Reduce reduce = parse_reduce({reduce_name.data(), reduce_name.size()});
  TORCH_CHECK_VALUE(reduce == Reduce::Max || reduce == Reduce::Min, "reduce is '", reduce_name,
                    "'; only 'max' and 'min' have a winner");
  check_indices(x, src, dst);
  TORCH_CHECK_VALUE(num_dst >= 0, "num_dst is ", num_dst, "; it counts the output rows");
  const LayerShape shape = layer_shape(x, weight, src.numel());
  const typename Device::Guard guard(x.device());
  const double start = reduce == Reduce::Max ? -INFINITY : INFINITY;
  at::Tensor out = empty_like_rows(x, with_rows(x, num_dst));
  const auto no_winners = [&] { return at::zeros(out.sizes(), src.options()); };
  if (src.numel() == 0) return {out.fill_(start), no_winners(), no_winners()};
  const auto plan = plan_for(dst, src, num_dst, x.size(0), "dst", "src", cache);
  if (out.numel() == 0) return {out, no_winners(), no_winners()};
  const at::Tensor arg = at::empty(out.sizes(), src.options().dtype(at::kInt));
  with_spmm_args(*plan, x, weight, cache, shape, reduce, out,
                 [&](const auto& args) { Device::spmm_arg(*plan, args, last, arg.mutable_data_ptr<int32_t>()); });
  const at::Tensor edge = arg.clamp_min(0);
  const at::Tensor source = src.index_select(0, edge.flatten()).view(out.sizes()).masked_fill_(arg.lt(0), 0);
  return {out, source, edge.to(src.scalar_type())};
}

template <typename Device>
at::Tensor sddmm_on(const at::Tensor& a, const at::Tensor& b, const at::Tensor& src, const at::Tensor& dst,
                    int64_t head_dims, bool cache) {
  check_indices(a, src, dst);
  check_operands(a, b);
  const LayerShape shape = layer_shape(a, head_dims);
  at::DimVector sizes(a.sizes().begin(), a.sizes().begin() + 1 + head_dims);
  sizes[0] = src.numel();
  const typename Device::Guard guard(a.device());
  const auto plan = plan_for(dst, src, b.size(0), a.size(0), "dst", "src", cache);
  at::Tensor out = empty_like_rows(a, sizes);
  if (out.numel() == 0) return out;
  const at::Tensor a_rows = a.contiguous(), b_rows = b.contiguous();
  for_dtype(a.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    SddmmArgs<T> args;
    args.csr = plan->view();
    args.a = const_data<T>(a_rows);
    args.b = const_data<T>(b_rows);
    args.out = mutable_data<T>(out);
    args.heads = shape.heads;
    args.head_dim = shape.head_dim;
    Device::sddmm(args, src, dst);
  });
  return out;
}

template <typename Device>
std::tuple<at::Tensor, at::Tensor> extremum_backward_on(const at::Tensor& grad, const at::Tensor& x,
                                                        const std::optional<at::Tensor>& weight, const at::Tensor& out,
                                                        const at::Tensor& src, const at::Tensor& dst, bool with_weight,
                                                        bool cache) {
  check_indices(x, src, dst);
  const LayerShape shape = layer_shape(x, weight, src.numel());
  check_operands(x, out);
  check_operands(grad, out);
  TORCH_CHECK_VALUE(grad.size(0) == out.size(0), "grad has ", grad.size(0), " rows and out ", out.size(0));
  const int64_t num_dst = out.size(0), num_src = x.size(0);
  const typename Device::Guard guard(x.device());
  const ExtremumTensors t(grad, x, weight, out, with_weight);
  if (src.numel() == 0 || shape.width() == 0) return {t.grad_x.zero_(), t.grad_weight.zero_()};
  const auto forward = plan_for(dst, src, num_dst, num_src, "dst", "src", cache);
  const auto transposed = plan_for(src, dst, num_src, num_dst, "src", "dst", cache);
  for_dtype(x.scalar_type(), [&](auto zero) {
    Device::extremum(*forward, *transposed, t.template args<decltype(zero)>(shape), src, dst);
  });
  return {t.grad_x, t.grad_weight};
}

}  // namespace gnna
