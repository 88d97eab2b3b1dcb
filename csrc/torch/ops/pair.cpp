// Checks of the pair ops, and their derivatives. The derivative of each op is made of the same three ops on derivatives
// of the function, and nothing of the size of edges x features is stored for it.
#include "ops/pair.h"

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <array>

#include "ops/winners.h"

namespace gnna {

Activation parse_activation(c10::string_view name) {
  static const std::pair<const char*, Activation> kNames[] = {
      {"identity", Activation::Identity}, {"relu", Activation::Relu}, {"leaky_relu", Activation::LeakyRelu},
      {"square", Activation::Square},     {"exp", Activation::Exp},   {"elu", Activation::Elu},
      {"gelu", Activation::Gelu},         {"silu", Activation::Silu}, {"sigmoid", Activation::Sigmoid},
      {"tanh", Activation::Tanh},
  };
  for (const auto& [known, function] : kNames)
    if (name == known) return function;
  TORCH_CHECK_VALUE(
      false, "function is '", name,
      "'; accepted are 'identity', 'relu', 'leaky_relu', 'square', 'exp', 'elu', 'gelu', 'silu', 'sigmoid' and 'tanh'");
}

PairOperands::PairOperands(const ops::PairCall& call, int64_t head_dims)
    : function_(parse_activation(call.function)), order_(static_cast<int>(call.order)), parameter_(call.parameter) {
  const MaybeTensor& first = call.rows.has_value() ? call.rows : call.cols.has_value() ? call.cols : call.edges;
  TORCH_CHECK_VALUE(first.has_value(), "rows, cols and edges are all None; at least one of them must be given");
  TORCH_CHECK_NOT_IMPLEMENTED(call.order <= 2, "the third derivative of ", call.function, " is not implemented");
  check_indices(*first, call.src, call.dst);
  const int64_t num_src = call.num_src.expect_int(), num_dst = call.num_dst.expect_int(), edges = call.src.numel();
  TORCH_CHECK_VALUE(num_src >= 0 && num_dst >= 0, "num_src is ", num_src, " and num_dst ", num_dst,
                    "; they count the nodes at the ends of the edges and must be 0 or more");
  like_ = *first;
  const auto checked = [&](const MaybeTensor& operand, const char* name, int64_t rows, bool may_be_one = false) {
    if (!operand.has_value()) return at::Tensor();
    check_operands(*operand, like_);
    TORCH_CHECK_VALUE(operand->size(0) == rows || (may_be_one && operand->size(0) == 1), name, " has ",
                      operand->size(0), " rows; it must have ", rows);
    return operand->contiguous();
  };
  rows_ = checked(call.rows, "rows", num_dst);
  cols_ = checked(call.cols, "cols", num_src);
  edges_ = checked(call.edges, "edges", edges);
  left_ = checked(call.left, "left", num_dst, true);
  right_ = checked(call.right, "right", num_src);
  if (call.weight.has_value()) weight_ = call.weight->contiguous();
  shape_ = head_dims < 0 ? layer_shape(like_, call.weight, edges) : layer_shape(like_, head_dims);
}

namespace {

using ops::PairCall;

MaybeTensor times(const MaybeTensor& a, const at::Tensor& b) { return a.has_value() ? *a * b : b; }

// Which operands want a gradient: rows, cols, edges, weight, left, right.
std::array<bool, 6> wanted_of(const PairCall& call) {
  return {wants_grad(call.rows),   wants_grad(call.cols), wants_grad(call.edges),
          wants_grad(call.weight), wants_grad(call.left), wants_grad(call.right)};
}

void save(AutogradContext* ctx, const PairCall& call) {
  const auto wanted = wanted_of(call);
  int64_t bits = 0;
  for (size_t i = 0; i < wanted.size(); ++i) bits |= int64_t{wanted[i]} << i;
  ctx->saved_data["wanted"] = bits;
  ctx->saved_data["num_src"] = call.num_src;
  ctx->saved_data["num_dst"] = call.num_dst;
  ctx->saved_data["function"] = std::string(call.function);
  ctx->saved_data["parameter"] = call.parameter;
  ctx->saved_data["order"] = call.order;
  ctx->saved_data["cache"] = call.cache;
}

variable_list to_save(const PairCall& call) {
  variable_list saved;
  for (const MaybeTensor* t : {&call.rows, &call.cols, &call.edges, &call.weight, &call.left, &call.right})
    saved.push_back(t->value_or(at::Tensor()));
  saved.push_back(call.src);
  saved.push_back(call.dst);
  return saved;
}

// The call that save() and to_save() stored. `function` keeps its name alive.
PairCall restore(AutogradContext* ctx, const variable_list& saved, std::string& function) {
  function = ctx->saved_data["function"].toStringRef();
  return {maybe(saved[0]),
          maybe(saved[1]),
          maybe(saved[2]),
          maybe(saved[3]),
          maybe(saved[4]),
          maybe(saved[5]),
          saved[6],
          saved[7],
          ctx->saved_data["num_src"].toSymInt(),
          ctx->saved_data["num_dst"].toSymInt(),
          function,
          ctx->saved_data["parameter"].toDouble(),
          ctx->saved_data["order"].toInt(),
          ctx->saved_data["cache"].toBool()};
}

bool wants(AutogradContext* ctx, int operand) { return (ctx->saved_data["wanted"].toInt() >> operand & 1) != 0; }

// Returns the reversed call. A left that all rows share has no counterpart on the right, but it can multiply the
// result.
PairCall turned(PairCall call) {
  MaybeTensor shared;
  if (call.left.has_value() && call.left->sym_size(0) == 1) std::swap(shared, call.left);
  PairCall turned = call.reversed();
  if (shared.has_value()) turned.left = times(turned.left, *shared);
  return turned;
}

// Gradients of sum over all e, r, d of  weight * left * right * f(z), for the given operands of a call:
// 0 rows, 1 cols, 2 edges, 4 left, 5 right. left here includes the gradient of a result per row, weight that of a
// result per edge.
struct Differentiated {
  const PairCall& call;

  PairCall next() const {
    PairCall d = call;
    ++d.order;
    return d;
  }
  // Writes the gradients of rows, cols and edges, which come first in every op.
  void write_terms(AutogradContext* ctx, variable_list& out) const {
    if (wants(ctx, 0)) out[0] = ops::pair_reduce(next(), "sum");
    if (wants(ctx, 1)) out[1] = ops::pair_reduce(turned(next()), "sum");
    if (wants(ctx, 2)) out[2] = ops::pair_map(next());
  }
  at::Tensor left() const {
    PairCall d = call;
    d.left = std::nullopt;
    return ops::pair_reduce(d, "sum");
  }
  at::Tensor right() const {
    PairCall d = call;
    d.right = std::nullopt;
    return ops::pair_reduce(turned(std::move(d)), "sum");
  }
};

at::Tensor of_left(const at::Tensor& grad, const MaybeTensor& left) {
  return left.has_value() && left->sym_size(0) == 1 ? grad.sum(0, /*keepdim=*/true) : grad;
}

struct PairReduce : torch::autograd::Function<PairReduce> {
  static at::Tensor forward(AutogradContext* ctx, const MaybeTensor& rows, const MaybeTensor& cols,
                            const MaybeTensor& edges, const MaybeTensor& weight, const MaybeTensor& left,
                            const MaybeTensor& right, const at::Tensor& src, const at::Tensor& dst,
                            const c10::SymInt& num_src, const c10::SymInt& num_dst, const std::string& function,
                            double parameter, int64_t order, const std::string& reduce, bool cache) {
    const PairCall call{rows, cols,    edges,   weight,   left,      right, src,
                        dst,  num_src, num_dst, function, parameter, order, cache};
    save(ctx, call);
    ctx->saved_data["reduce"] = reduce;
    const at::AutoDispatchBelowADInplaceOrView below;
    at::Tensor out = ops::pair_reduce(call, reduce);
    variable_list saved = to_save(call);
    if (reduce == "max" || reduce == "min") saved.push_back(out);
    ctx->save_for_backward(saved);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = saved_by(ctx);
    std::string function;
    PairCall call = restore(ctx, saved, function);
    const std::string& reduce = ctx->saved_data["reduce"].toStringRef();
    at::Tensor grad = grads[0];
    variable_list out(15);
    if (!grad.defined()) return out;
    if ((reduce == "max" || reduce == "min") && c10::GradMode::is_enabled()) {
      const at::Tensor messages = ops::pair_map(call);
      call.weight = winners_share(grad, saved[8], messages, call.dst, call.num_dst, call.cache);
      Differentiated{call}.write_terms(ctx, out);
      return out;
    }
    if (reduce == "max" || reduce == "min") {
      const auto [to_rows, to_cols, to_edges] = ops::pair_extremum_backward(grad, saved[8], call);
      if (wants(ctx, 0)) out[0] = to_rows;
      if (wants(ctx, 1)) out[1] = to_cols;
      if (wants(ctx, 2)) out[2] = to_edges;
      return out;
    }
    if (reduce == "mean") {
      grad = divide_by_count(grad, ops::mean_divisor(grad, call.src, call.dst, call.num_src, call.num_dst, call.cache));
    }
    const MaybeTensor left = call.left;
    call.left = times(left, grad);
    const Differentiated by{call};
    by.write_terms(ctx, out);
    if (wants(ctx, 3)) out[3] = ops::pair_dot(call, saved[3].dim() - 1);
    if (wants(ctx, 4)) out[4] = of_left(grad * by.left(), left);
    if (wants(ctx, 5)) out[5] = by.right();
    return out;
  }
};

struct PairDot : torch::autograd::Function<PairDot> {
  static at::Tensor forward(AutogradContext* ctx, const MaybeTensor& rows, const MaybeTensor& cols,
                            const MaybeTensor& edges, const MaybeTensor& left, const MaybeTensor& right,
                            const at::Tensor& src, const at::Tensor& dst, const c10::SymInt& num_src,
                            const c10::SymInt& num_dst, const std::string& function, double parameter, int64_t order,
                            int64_t head_dims, bool cache) {
    const PairCall call{rows, cols,    edges,   {},       left,      right, src,
                        dst,  num_src, num_dst, function, parameter, order, cache};
    save(ctx, call);
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward(to_save(call));
    return ops::pair_dot(call, head_dims);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = saved_by(ctx);
    std::string function;
    PairCall call = restore(ctx, saved, function);
    variable_list out(14);
    if (!grads[0].defined()) return out;
    call.weight = grads[0];
    const Differentiated by{call};
    by.write_terms(ctx, out);
    if (wants(ctx, 4)) out[3] = of_left(by.left(), call.left);
    if (wants(ctx, 5)) out[4] = by.right();
    return out;
  }
};

struct PairMap : torch::autograd::Function<PairMap> {
  static at::Tensor forward(AutogradContext* ctx, const MaybeTensor& rows, const MaybeTensor& cols,
                            const MaybeTensor& edges, const MaybeTensor& weight, const MaybeTensor& left,
                            const MaybeTensor& right, const at::Tensor& src, const at::Tensor& dst,
                            const c10::SymInt& num_src, const c10::SymInt& num_dst, const std::string& function,
                            double parameter, int64_t order, bool cache) {
    const PairCall call{rows, cols,    edges,   weight,   left,      right, src,
                        dst,  num_src, num_dst, function, parameter, order, cache};
    save(ctx, call);
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward(to_save(call));
    return ops::pair_map(call);
  }

  // The gradient of a result per element is a weight per element.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = saved_by(ctx);
    std::string function;
    PairCall call = restore(ctx, saved, function);
    variable_list out(14);
    const at::Tensor& grad = grads[0];
    if (!grad.defined()) return out;
    const at::Tensor& weight = saved[3];
    const at::Tensor weighted = weight.defined() ? broadcast_to_messages(weight, grad.dim()) * grad : grad;
    if (wants(ctx, 3)) {
      call.weight = std::nullopt;
      out[3] = sum_to_weight(grad * ops::pair_map(call), weight.dim());
    }
    call.weight = weighted;
    const Differentiated by{call};
    by.write_terms(ctx, out);
    if (wants(ctx, 4)) out[4] = of_left(by.left(), call.left);
    if (wants(ctx, 5)) out[5] = by.right();
    return out;
  }
};

bool recorded(const PairCall& call) {
  const auto wanted = wanted_of(call);
  return c10::GradMode::is_enabled() && std::any_of(wanted.begin(), wanted.end(), [](bool wants) { return wants; });
}

at::Tensor pair_reduce(const MaybeTensor& rows, const MaybeTensor& cols, const MaybeTensor& edges,
                       const MaybeTensor& weight, const MaybeTensor& left, const MaybeTensor& right,
                       const at::Tensor& src, const at::Tensor& dst, c10::SymInt num_src, c10::SymInt num_dst,
                       c10::string_view function, double parameter, int64_t order, c10::string_view reduce,
                       bool cache) {
  const bool extremum = reduce == "max" || reduce == "min";
  TORCH_CHECK_VALUE(!extremum || !(weight.has_value() || left.has_value() || right.has_value()), "reduce is '", reduce,
                    "', which takes rows, cols and edges only; weight, left and right must be "
                    "None");
  const PairCall call{rows,     cols,      edges, weight, left, right, src, dst, std::move(num_src), std::move(num_dst),
                      function, parameter, order, cache};
  if (recorded(call)) {
    return PairReduce::apply(rows, cols, edges, weight, left, right, src, dst, call.num_src, call.num_dst,
                             std::string(function), parameter, order, std::string(reduce), cache);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::pair_reduce(call, reduce);
}

at::Tensor pair_dot(const MaybeTensor& rows, const MaybeTensor& cols, const MaybeTensor& edges, const MaybeTensor& left,
                    const MaybeTensor& right, const at::Tensor& src, const at::Tensor& dst, c10::SymInt num_src,
                    c10::SymInt num_dst, c10::string_view function, double parameter, int64_t order, int64_t head_dims,
                    bool cache) {
  const PairCall call{rows,     cols,      edges, {},   left, right, src, dst, std::move(num_src), std::move(num_dst),
                      function, parameter, order, cache};
  if (recorded(call)) {
    return PairDot::apply(rows, cols, edges, left, right, src, dst, call.num_src, call.num_dst, std::string(function),
                          parameter, order, head_dims, cache);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::pair_dot(call, head_dims);
}

at::Tensor pair_map(const MaybeTensor& rows, const MaybeTensor& cols, const MaybeTensor& edges,
                    const MaybeTensor& weight, const MaybeTensor& left, const MaybeTensor& right, const at::Tensor& src,
                    const at::Tensor& dst, c10::SymInt num_src, c10::SymInt num_dst, c10::string_view function,
                    double parameter, int64_t order, bool cache) {
  const PairCall call{rows,     cols,      edges, weight, left, right, src, dst, std::move(num_src), std::move(num_dst),
                      function, parameter, order, cache};
  if (recorded(call)) {
    return PairMap::apply(rows, cols, edges, weight, left, right, src, dst, call.num_src, call.num_dst,
                          std::string(function), parameter, order, cache);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::pair_map(call);
}

TORCH_LIBRARY_IMPL(gnna, Autograd, m) {
  m.impl("pair_reduce", &pair_reduce);
  m.impl("pair_dot", &pair_dot);
  m.impl("pair_map", &pair_map);
  m.impl("pair_extremum_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace
}  // namespace gnna
