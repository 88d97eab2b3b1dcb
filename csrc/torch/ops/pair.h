// The bodies of the pair ops (PairArgs in gnna/types.h), which compute a function of the features of both ends of every
// edge. The device provides
//   static void pair_reduce(const Plan&, const PairArgs<T>&);   empty rows may get any value
//   static void pair_dot(const PairArgs<T>&, const at::Tensor& src, const at::Tensor& dst);
//   static void pair_map(const PairArgs<T>&, const at::Tensor& src, const at::Tensor& dst);
#pragma once

#include <ATen/TensorOperators.h>

#include "ops/calls.h"
#include "ops/spmm.h"

namespace gnna {

Activation parse_activation(c10::string_view name);

// The operands of one call, checked and contiguous.
class PairOperands {
 public:
  // dims: leading feature dimensions of a head; -1 takes those of the weight.
  PairOperands(const ops::PairCall& call, int64_t head_dims);

  const at::Tensor& like() const { return like_; }
  const LayerShape& shape() const { return shape_; }

  template <typename T>
  PairArgs<T> args(const Plan& plan, const at::Tensor& out) const {
    PairArgs<T> a;
    a.csr = plan.view();
    a.rows = data<T>(rows_);
    a.cols = data<T>(cols_);
    a.edges = data<T>(edges_);
    a.weight = data<T>(weight_);
    a.left = data<T>(left_);
    a.left_stride = left_.defined() && left_.size(0) > 1 ? shape_.width() : 0;
    a.right = data<T>(right_);
    a.function = function_;
    a.order = order_;
    a.parameter = static_cast<Compute<T>>(parameter_);
    a.out = mutable_data<T>(out);
    a.heads = shape_.heads;
    a.head_dim = shape_.head_dim;
    return a;
  }

  // Removes the operands of the sum if the function's derivative is constant. They need not be read then.
  template <typename T>
  void drop_unread(PairArgs<T>& a) const {
    if (function_ == Activation::Identity && order_ > 0) a.rows = a.cols = a.edges = nullptr;
  }

 private:
  template <typename T>
  static const T* data(const at::Tensor& t) {
    return t.defined() ? const_data<T>(t) : nullptr;
  }

  at::Tensor like_, rows_, cols_, edges_, weight_, left_, right_;
  LayerShape shape_;
  Activation function_;
  int order_;
  double parameter_;
};

inline std::shared_ptr<const Plan> pair_plan(const ops::PairCall& call, bool edge_ids) {
  return plan_for(call.dst, call.src, call.num_dst.expect_int(), call.num_src.expect_int(), "dst", "src", call.cache,
                  edge_ids);
}

template <typename Device>
at::Tensor pair_reduce_on(const ops::MaybeTensor& rows, const ops::MaybeTensor& cols, const ops::MaybeTensor& edges,
                          const ops::MaybeTensor& weight, const ops::MaybeTensor& left, const ops::MaybeTensor& right,
                          const at::Tensor& src, const at::Tensor& dst, int64_t num_src, int64_t num_dst,
                          c10::string_view function, double parameter, int64_t order, c10::string_view reduce_name,
                          bool cache) {
  const ops::PairCall call{rows, cols,    edges,   weight,   left,      right, src,
                           dst,  num_src, num_dst, function, parameter, order, cache};
  const Reduce reduce = parse_reduce({reduce_name.data(), reduce_name.size()});
  const PairOperands operands(call, -1);
  const typename Device::Guard guard(src.device());
  const auto sizes = with_rows(operands.like(), num_dst);
  if (src.numel() == 0) return at::zeros(sizes, operands.like().options());
  const auto plan = pair_plan(call, edges.has_value() || weight.has_value());
  at::Tensor out = empty_contiguous(operands.like(), sizes);
  if (out.numel() == 0) return out;
  for_dtype(out.scalar_type(), [&](auto zero) {
    auto args = operands.template args<decltype(zero)>(*plan, out);
    operands.drop_unread(args);
    args.reduce = reduce == Reduce::Mean ? Reduce::Sum : reduce;
    Device::pair_reduce(*plan, args);
  });
  if (reduce == Reduce::Sum) return out;
  at::DimVector per_row(out.dim(), 1);
  per_row[0] = num_dst;
  const at::Tensor degrees = plan->degrees().view(per_row);
  return reduce == Reduce::Mean ? out.div_(degrees.clamp_min(1)) : out.masked_fill_(degrees.eq(0), 0);
}

template <typename Device>
at::Tensor pair_dot_on(const ops::MaybeTensor& rows, const ops::MaybeTensor& cols, const ops::MaybeTensor& edges,
                       const ops::MaybeTensor& left, const ops::MaybeTensor& right, const at::Tensor& src,
                       const at::Tensor& dst, int64_t num_src, int64_t num_dst, c10::string_view function,
                       double parameter, int64_t order, int64_t head_dims, bool cache) {
  const ops::PairCall call{rows, cols,    edges,   {},       left,      right, src,
                           dst,  num_src, num_dst, function, parameter, order, cache};
  const PairOperands operands(call, head_dims);
  const typename Device::Guard guard(src.device());
  at::DimVector sizes(operands.like().sizes().begin(), operands.like().sizes().begin() + 1 + head_dims);
  sizes[0] = src.numel();
  if (operands.shape().head_dim == 0) return at::zeros(sizes, operands.like().options());
  const auto plan = pair_plan(call, true);
  at::Tensor out = empty_contiguous(operands.like(), sizes);
  if (out.numel() == 0) return out;
  for_dtype(out.scalar_type(), [&](auto zero) {
    auto args = operands.template args<decltype(zero)>(*plan, out);
    operands.drop_unread(args);
    Device::pair_dot(args, src, dst);
  });
  return out;
}

template <typename Device>
at::Tensor pair_map_on(const ops::MaybeTensor& rows, const ops::MaybeTensor& cols, const ops::MaybeTensor& edges,
                       const ops::MaybeTensor& weight, const ops::MaybeTensor& left, const ops::MaybeTensor& right,
                       const at::Tensor& src, const at::Tensor& dst, int64_t num_src, int64_t num_dst,
                       c10::string_view function, double parameter, int64_t order, bool cache) {
  const ops::PairCall call{rows, cols,    edges,   weight,   left,      right, src,
                           dst,  num_src, num_dst, function, parameter, order, cache};
  const PairOperands operands(call, -1);
  const typename Device::Guard guard(src.device());
  const auto plan = pair_plan(call, true);
  at::Tensor out = empty_contiguous(operands.like(), with_rows(operands.like(), src.numel()));
  if (out.numel() == 0) return out;
  for_dtype(out.scalar_type(), [&](auto zero) {
    auto args = operands.template args<decltype(zero)>(*plan, out);
    operands.drop_unread(args);
    Device::pair_map(args, src, dst);
  });
  return out;
}

// Gradients of max or min of f(rows + cols + edges) with respect to the three operands. Messages that equal the result
// share its gradient, as in extremum_backward.
template <typename Device>
std::tuple<at::Tensor, at::Tensor, at::Tensor> pair_extremum_backward_on(
    const at::Tensor& grad, const at::Tensor& best, const ops::MaybeTensor& rows, const ops::MaybeTensor& cols,
    const ops::MaybeTensor& edges, const at::Tensor& src, const at::Tensor& dst, int64_t num_src, int64_t num_dst,
    c10::string_view function, double parameter, bool cache) {
  ops::PairCall call{rows, cols, edges, {}, {}, {}, src, dst, num_src, num_dst, function, parameter, 0, cache};
  const typename Device::Guard guard(src.device());
  const at::Tensor like = PairOperands(call, -1).like(), best_rows = best.contiguous();
  const auto zeros_like = [&](const ops::MaybeTensor& t) {
    return t.has_value() ? at::zeros(t->sizes(), t->options()) : at::Tensor();
  };
  if (src.numel() == 0 || best.numel() == 0) return {zeros_like(rows), zeros_like(cols), zeros_like(edges)};
  const auto run = [&](const ops::PairCall& of, const at::Tensor& out, bool best_of_cols, bool map) {
    const PairOperands operands(of, -1);
    const auto plan = pair_plan(of, true);
    for_dtype(out.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      auto args = operands.template args<T>(*plan, out);
      args.best = const_data<T>(best_rows);
      args.best_of_cols = best_of_cols;
      map ? Device::pair_map(args, of.src, of.dst) : Device::pair_reduce(*plan, args);
    });
    return out;
  };
  // The number of winners is exact in 16-bit types up to 256 (bfloat16); more are rounded, as their shares would be.
  const at::Tensor winners = run(call, empty_contiguous(like, best.sizes()), false, false);
  const at::Tensor share = grad / (winners + best.eq(0));
  const bool constant_slope = parse_activation(function) == Activation::Identity;
  call.order = 1;
  at::Tensor to_rows, to_cols, to_edges;
  call.left = share;
  if (rows.has_value()) {
    to_rows = constant_slope ? share * winners : run(call, empty_contiguous(like, rows->sizes()), false, false);
  }
  if (edges.has_value()) to_edges = run(call, empty_contiguous(like, edges->sizes()), false, true);
  if (cols.has_value()) to_cols = run(call.reversed(), empty_contiguous(like, cols->sizes()), true, false);
  return {to_rows, to_cols, to_edges};
}

}  // namespace gnna
