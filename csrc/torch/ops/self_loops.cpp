// Self-loops and the symmetric normalisation of an edge list, on the CPU. They replace about a dozen of PyG's
// operations and give the same bits. Layers call these in every forward pass unless the results are in the memo
// (plan/memo.h).
#include "gnna/self_loops.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <limits>
#include <tuple>

namespace gnna {
namespace {

constexpr int64_t kEdgesOfTask = 1 << 15;

cpu::EdgeList edge_list(const at::Tensor& edge_index) {
  TORCH_CHECK_VALUE(
      edge_index.is_cpu() && edge_index.dim() == 2 && edge_index.size(0) == 2 && edge_index.scalar_type() == at::kLong,
      "edge_index is ", edge_index.scalar_type(), " ", edge_index.sizes(), " on ", edge_index.device(),
      "; it must be int64 [2, E] on the CPU");
  const auto* const row = edge_index.const_data_ptr<int64_t>();
  return {row, row + edge_index.stride(0), edge_index.stride(1), edge_index.size(1)};
}

void check_nodes(int64_t num_nodes) {
  TORCH_CHECK_VALUE(num_nodes >= 0, "num_nodes is ", num_nodes, "; it must be 0 or more");
}

template <typename Body>
void for_weight(at::ScalarType type, const Body& body) {
  TORCH_CHECK_VALUE(type == at::kFloat || type == at::kDouble, "weights are ", type,
                    "; they must be float32 or float64");
  if (type == at::kFloat) return body(float{});
  body(double{});
}

at::Tensor checked_weight(const at::Tensor& weight, int64_t edges) {
  TORCH_CHECK_VALUE(weight.is_cpu() && weight.dim() == 1 && weight.numel() == edges, "edge_weight is ", weight.sizes(),
                    " on ", weight.device(), " for ", edges, " edges; it must be [E] on the CPU");
  return weight.contiguous();
}

void check_ids(bool good, int64_t num_nodes) {
  TORCH_CHECK_INDEX(good, "edge_index has an id that is not a node: ids are 0 to ", num_nodes - 1);
}

void append_loops(int64_t* row, int64_t* col, int64_t num_nodes) {
  for (int64_t node = 0; node < num_nodes; ++node) row[node] = col[node] = node;
}

at::Tensor without_self_loops(const at::Tensor& edge_index) {
  const cpu::EdgeList list = edge_list(edge_index);
  const int64_t kept = list.edges - cpu::count_self_loops(list);
  at::Tensor out = at::empty({2, kept}, edge_index.options());
  auto* const row = out.mutable_data_ptr<int64_t>();
  cpu::copy_edges<float>(list, /*all=*/false, nullptr, row, row + kept, nullptr);
  return out;
}

at::Tensor with_self_loops(const at::Tensor& edge_index, int64_t num_nodes) {
  check_nodes(num_nodes);
  const cpu::EdgeList list = edge_list(edge_index);
  const int64_t total = list.edges + num_nodes;
  at::Tensor out = at::empty({2, total}, edge_index.options());
  auto* const row = out.mutable_data_ptr<int64_t>();
  cpu::copy_edges<float>(list, /*all=*/true, nullptr, row, row + total, nullptr);
  append_loops(row + list.edges, row + total + list.edges, num_nodes);
  return out;
}

// Returns the edges that are no self-loops, followed by one self-loop for each node, and their weights. A node that had
// self-loops keeps the weight of the last one. New self-loops get the weight `fill`. Without edge_weight the second
// result is empty.
std::tuple<at::Tensor, at::Tensor> with_remaining_self_loops(const at::Tensor& edge_index,
                                                             const std::optional<at::Tensor>& edge_weight,
                                                             int64_t num_nodes, double fill) {
  check_nodes(num_nodes);
  const cpu::EdgeList list = edge_list(edge_index);
  const int64_t kept = list.edges - cpu::count_self_loops(list), total = kept + num_nodes;
  at::Tensor out = at::empty({2, total}, edge_index.options()), out_weight;
  auto* const row = out.mutable_data_ptr<int64_t>();
  append_loops(row + kept, row + total + kept, num_nodes);
  if (!edge_weight.has_value()) {
    cpu::copy_edges<float>(list, /*all=*/false, nullptr, row, row + total, nullptr);
    return {out, at::empty({0})};
  }
  const at::Tensor weight = checked_weight(*edge_weight, list.edges);
  for_weight(weight.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    out_weight = at::full({total}, fill, weight.options());
    T* const to = out_weight.mutable_data_ptr<T>();
    cpu::copy_edges<T>(list, /*all=*/false, weight.const_data_ptr<T>(), row, row + total, to);
    check_ids(cpu::take_loop_weights<T>(list, weight.const_data_ptr<T>(), num_nodes, to + kept), num_nodes);
  });
  return {out, out_weight};
}

// Returns the weights [E] of D^-1/2 A D^-1/2 (Kipf and Welling 2017, equation 2). D holds each node's sum of edge
// weights: over its incoming edges, or over its outgoing edges if by_source. dtype applies if there is no edge_weight.
at::Tensor gcn_weights(const at::Tensor& edge_index, const std::optional<at::Tensor>& edge_weight, int64_t num_nodes,
                       bool by_source, at::ScalarType dtype) {
  check_nodes(num_nodes);
  const cpu::EdgeList list = edge_list(edge_index);
  at::Tensor weight, out;
  if (edge_weight.has_value()) weight = checked_weight(*edge_weight, list.edges);
  for_weight(weight.defined() ? weight.scalar_type() : dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto options = edge_index.options().dtype(c10::CppTypeToScalarType<T>::value);
    const T* const weights = weight.defined() ? weight.const_data_ptr<T>() : nullptr;
    at::Tensor degree = at::zeros({num_nodes}, options);
    const int64_t* const counted = by_source ? list.row : list.col;
    const int64_t* const other = by_source ? list.col : list.row;
    T* const scale = degree.mutable_data_ptr<T>();
    check_ids(cpu::add_degrees<T>(counted, list.stride, list.edges, weights, num_nodes, scale), num_nodes);
    for (int64_t e = 0; e < list.edges; ++e)
      check_ids(static_cast<uint64_t>(other[e * list.stride]) < static_cast<uint64_t>(num_nodes), num_nodes);
    degree.pow_(-0.5);  // as PyG does; 1 / sqrt differs in the last bit
    for (int64_t node = 0; node < num_nodes; ++node)
      if (scale[node] == std::numeric_limits<T>::infinity()) scale[node] = 0;
    out = at::empty({list.edges}, options);
    T* const to = out.mutable_data_ptr<T>();
    at::parallel_for(0, list.edges, kEdgesOfTask,
                     [&](int64_t begin, int64_t end) { cpu::scale_by_ends<T>(list, weights, scale, to, begin, end); });
  });
  return out;
}

TORCH_LIBRARY_IMPL(gnna, CPU, m) {
  m.impl("without_self_loops", &without_self_loops);
  m.impl("with_self_loops", &with_self_loops);
  m.impl("with_remaining_self_loops", &with_remaining_self_loops);
  m.impl("gcn_weights", &gcn_weights);
}

}  // namespace
}  // namespace gnna
