// Typed C++ calls of the ops through torch's dispatcher. Backward passes use them, so that derivatives are composed of
// registered ops and can be differentiated again.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <tuple>

namespace gnna::ops {

using MaybeTensor = std::optional<at::Tensor>;

inline at::Tensor spmm(const at::Tensor& x, const MaybeTensor& weight, const at::Tensor& src, const at::Tensor& dst,
                       c10::SymInt num_dst, c10::string_view reduce, bool cache) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gnna::spmm", "")
                             .typed<at::Tensor(const at::Tensor&, const MaybeTensor&, const at::Tensor&,
                                               const at::Tensor&, c10::SymInt, c10::string_view, bool)>();
  return op.call(x, weight, src, dst, std::move(num_dst), reduce, cache);
}

inline at::Tensor sddmm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& src, const at::Tensor& dst,
                        int64_t head_dims, bool cache) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gnna::sddmm", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                               const at::Tensor&, int64_t, bool)>();
  return op.call(a, b, src, dst, head_dims, cache);
}

inline std::tuple<at::Tensor, at::Tensor> extremum_backward(const at::Tensor& grad, const at::Tensor& x,
                                                            const MaybeTensor& weight, const at::Tensor& out,
                                                            const at::Tensor& src, const at::Tensor& dst,
                                                            bool with_weight, bool cache) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gnna::extremum_backward", "")
                             .typed<std::tuple<at::Tensor, at::Tensor>(
                                 const at::Tensor&, const at::Tensor&, const MaybeTensor&, const at::Tensor&,
                                 const at::Tensor&, const at::Tensor&, bool, bool)>();
  return op.call(grad, x, weight, out, src, dst, with_weight, cache);
}

inline at::Tensor mean_divisor(const at::Tensor& like, const MaybeTensor& src, const at::Tensor& dst,
                               c10::SymInt num_src, c10::SymInt num_dst, bool cache) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gnna::mean_divisor", "")
                             .typed<at::Tensor(const at::Tensor&, const MaybeTensor&, const at::Tensor&, c10::SymInt,
                                               c10::SymInt, bool)>();
  return op.call(like, src, dst, std::move(num_src), std::move(num_dst), cache);
}

inline at::Tensor segment_reduce(const at::Tensor& messages, const at::Tensor& index, c10::SymInt num_rows,
                                 c10::string_view reduce, bool cache) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gnna::segment_reduce", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, c10::SymInt, c10::string_view, bool)>();
  return op.call(messages, index, std::move(num_rows), reduce, cache);
}

inline at::Tensor segment_softmax(const at::Tensor& scores, const at::Tensor& index, c10::SymInt num_rows, bool cache) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gnna::segment_softmax", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&, c10::SymInt, bool)>();
  return op.call(scores, index, std::move(num_rows), cache);
}

inline at::Tensor segment_softmax_backward(const at::Tensor& grad, const at::Tensor& out, const at::Tensor& index,
                                           c10::SymInt num_rows, bool cache) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gnna::segment_softmax_backward", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, c10::SymInt, bool)>();
  return op.call(grad, out, index, std::move(num_rows), cache);
}

inline at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index, bool cache) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gnna::gather_rows", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&, bool)>();
  return op.call(x, index, cache);
}

inline at::Tensor scatter_rows(const at::Tensor& messages, const at::Tensor& index, c10::SymInt num_rows, bool cache) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gnna::scatter_rows", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&, c10::SymInt, bool)>();
  return op.call(messages, index, std::move(num_rows), cache);
}

inline at::Tensor lift(const at::Tensor& x, const MaybeTensor& weight, const at::Tensor& src) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gnna::lift", "")
                             .typed<at::Tensor(const at::Tensor&, const MaybeTensor&, const at::Tensor&)>();
  return op.call(x, weight, src);
}

}  // namespace gnna::ops
