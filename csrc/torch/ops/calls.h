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

inline at::Tensor segment_extremum_backward(const at::Tensor& grad, const at::Tensor& messages, const at::Tensor& best,
                                            const at::Tensor& index, bool cache) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gnna::segment_extremum_backward", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, bool)>();
  return op.call(grad, messages, best, index, cache);
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

// The operands of a pair op (PairArgs). `function` is a name that outlives the call.
struct PairCall {
  MaybeTensor rows, cols, edges, weight, left, right;
  at::Tensor src, dst;
  c10::SymInt num_src, num_dst;
  c10::string_view function;
  double parameter = 0;
  int64_t order = 0;  // of the function's derivative
  bool cache = true;

  // The same values with the two ends of every edge exchanged.
  PairCall reversed() const {
    return {cols, rows, edges, weight, right, left, dst, src, num_dst, num_src, function, parameter, order, cache};
  }
};

inline at::Tensor pair_reduce(const PairCall& c, c10::string_view reduce) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gnna::pair_reduce", "")
          .typed<at::Tensor(const MaybeTensor&, const MaybeTensor&, const MaybeTensor&, const MaybeTensor&,
                            const MaybeTensor&, const MaybeTensor&, const at::Tensor&, const at::Tensor&, c10::SymInt,
                            c10::SymInt, c10::string_view, double, int64_t, c10::string_view, bool)>();
  return op.call(c.rows, c.cols, c.edges, c.weight, c.left, c.right, c.src, c.dst, c.num_src, c.num_dst, c.function,
                 c.parameter, c.order, reduce, c.cache);
}

inline at::Tensor pair_dot(const PairCall& c, int64_t head_dims) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gnna::pair_dot", "")
          .typed<at::Tensor(const MaybeTensor&, const MaybeTensor&, const MaybeTensor&, const MaybeTensor&,
                            const MaybeTensor&, const at::Tensor&, const at::Tensor&, c10::SymInt, c10::SymInt,
                            c10::string_view, double, int64_t, int64_t, bool)>();
  return op.call(c.rows, c.cols, c.edges, c.left, c.right, c.src, c.dst, c.num_src, c.num_dst, c.function, c.parameter,
                 c.order, head_dims, c.cache);
}

inline at::Tensor pair_map(const PairCall& c) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gnna::pair_map", "")
          .typed<at::Tensor(const MaybeTensor&, const MaybeTensor&, const MaybeTensor&, const MaybeTensor&,
                            const MaybeTensor&, const MaybeTensor&, const at::Tensor&, const at::Tensor&, c10::SymInt,
                            c10::SymInt, c10::string_view, double, int64_t, bool)>();
  return op.call(c.rows, c.cols, c.edges, c.weight, c.left, c.right, c.src, c.dst, c.num_src, c.num_dst, c.function,
                 c.parameter, c.order, c.cache);
}

inline std::tuple<at::Tensor, at::Tensor, at::Tensor> pair_extremum_backward(const at::Tensor& grad,
                                                                             const at::Tensor& best,
                                                                             const PairCall& c) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gnna::pair_extremum_backward", "")
          .typed<std::tuple<at::Tensor, at::Tensor, at::Tensor>(
              const at::Tensor&, const at::Tensor&, const MaybeTensor&, const MaybeTensor&, const MaybeTensor&,
              const at::Tensor&, const at::Tensor&, c10::SymInt, c10::SymInt, c10::string_view, double, bool)>();
  return op.call(grad, best, c.rows, c.cols, c.edges, c.src, c.dst, c.num_src, c.num_dst, c.function, c.parameter,
                 c.cache);
}

inline at::Tensor lift(const at::Tensor& x, const MaybeTensor& weight, const at::Tensor& src) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gnna::lift", "")
                             .typed<at::Tensor(const at::Tensor&, const MaybeTensor&, const at::Tensor&)>();
  return op.call(x, weight, src);
}

}  // namespace gnna::ops
