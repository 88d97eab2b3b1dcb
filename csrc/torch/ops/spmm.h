// The bodies of spmm, out[i] = reduce of weight[e] * x[src[e]] over the edges e with dst[e] = i, and of spmm_arg, max
// or min with the winning edges. A body checks its arguments, looks up the plan, allocates the result and calls the
// device.
//
// A device (device/cpu.cpp, device/cuda_device.cpp) is a type with one function per op and a Guard, which makes a
// tensor's device the current one. For the ops of this file it provides
//   static void spmm(const Plan&, const SpmmArgs<T>&, at::Tensor& out);
//   static void spmm_arg(const Plan&, const SpmmArgs<T>&, bool last, int32_t* arg);
#pragma once

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/MemoryFormat.h>

#include <cmath>

#include "common/arguments.h"
#include "common/dtypes.h"
#include "plan/cache.h"

namespace gnna {

// An uninitialised contiguous tensor of these sizes, with x's dtype and device.
inline at::Tensor empty_contiguous(const at::Tensor& x, at::IntArrayRef sizes) {
  return at::empty(sizes, x.options().memory_format(at::MemoryFormat::Contiguous));
}

// Calls run(args) with the SpmmArgs<T> of a call, T by x's dtype. The pointers in args are valid until run returns.
template <typename Run>
void with_spmm_args(const Plan& plan, const at::Tensor& x, const std::optional<at::Tensor>& weight, bool cache,
                    const LayerShape& shape, Reduce reduce, const at::Tensor& out, const Run& run) {
  const FeatureRows rows = feature_rows(x);
  at::Tensor values;  // the weight; in slot order if the plan keeps it in that order
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
  TORCH_CHECK_VALUE(num_dst >= 0, "num_dst is ", num_dst, "; it counts the output rows and must be 0 or more");
  const LayerShape shape = layer_shape(x, weight, src.numel());
  const typename Device::Guard guard(x.device());
  if (src.numel() == 0) return at::zeros(with_rows(x, num_dst), x.options());
  const auto plan =
      scheduled_plan_for(dst, src, num_dst, x.size(0), "dst", "src", cache, /*edge_ids=*/weight.has_value());
  at::Tensor out = empty_contiguous(x, with_rows(x, num_dst));
  if (out.numel() == 0) return out;

  with_spmm_args(*plan, x, weight, cache, shape, reduce, out,
                 [&](const auto& args) { Device::spmm(*plan, args, out); });
  return out;
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
  TORCH_CHECK_VALUE(num_dst >= 0, "num_dst is ", num_dst, "; it counts the output rows and must be 0 or more");
  const LayerShape shape = layer_shape(x, weight, src.numel());
  const typename Device::Guard guard(x.device());
  const double start = reduce == Reduce::Max ? -INFINITY : INFINITY;
  at::Tensor out = empty_contiguous(x, with_rows(x, num_dst));
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

}  // namespace gnna
