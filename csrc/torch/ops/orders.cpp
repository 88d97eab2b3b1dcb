// Ops for orders of a graph's nodes, on CPU tensors, and for the schedules of cached plans.
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/sort.h>
#include <torch/library.h>

#include "common/arguments.h"
#include "common/cpu_executor.h"
#include "gnna/order.h"
#include "plan/builder.h"
#include "plan/cache.h"
#include "plan/schedule.h"

namespace gnna {
namespace {

at::Tensor as_tensor(const std::vector<int32_t>& values) {
  at::Tensor result = at::empty({static_cast<int64_t>(values.size())}, at::kInt);
  std::copy(values.begin(), values.end(), result.mutable_data_ptr<int32_t>());
  return result;
}

void check_order(const std::optional<at::Tensor>& order, int64_t rows) {
  if (!order.has_value()) return;
  TORCH_CHECK_VALUE(order->dim() == 1 && order->numel() == rows, "order has shape ", order->sizes(), " for ", rows,
                    " rows; it must be a permutation of them");
  const bool permutation =
      at::equal(std::get<0>(at::sort(order->to(at::kLong))), at::arange(rows, order->options().dtype(at::kLong)));
  TORCH_CHECK_VALUE(permutation, "order is not a permutation of 0 to ", rows - 1);
}

// Builds a plan outside the cache. Its rows ascend, whereas a cached plan may have a schedule.
std::shared_ptr<const Plan> plan_of(const at::Tensor& src, const at::Tensor& dst, int64_t num_src, int64_t num_dst) {
  check_edge_ids(src, dst);
  TORCH_CHECK_VALUE(src.device().is_cpu() && dst.device().is_cpu(), "src and dst are on ", src.device(), " and ",
                    dst.device(), "; both must be on the CPU: pass src.cpu() and dst.cpu()");
  TORCH_CHECK_VALUE(num_src >= 0 && num_dst >= 0, "the numbers of nodes are ", num_src, " and ", num_dst,
                    "; they must be 0 or more");
  return plan_for(dst, src, num_dst, num_src, "dst", "src", /*cache=*/false);
}

std::tuple<at::Tensor, at::Tensor> rabbit_order(const at::Tensor& src, const at::Tensor& dst, int64_t num_nodes) {
  const auto plan = plan_of(src, dst, num_nodes, num_nodes);
  const cpu::Communities found = cpu::rabbit_order(plan->view(), cpu_executor());
  return {as_tensor(found.order), as_tensor(found.community)};
}

at::Tensor degree_order(const at::Tensor& src, const at::Tensor& dst, int64_t num_nodes) {
  const auto plan = plan_of(src, dst, num_nodes, num_nodes);
  at::Tensor order = at::empty({num_nodes}, at::kInt);
  cpu::degree_order(plan->view().rowptr, num_nodes, nullptr, nullptr, order.mutable_data_ptr<int32_t>());
  return order;
}

// Returns the order in which a community schedule processes the destination rows of this edge list, int32 [num_dst].
at::Tensor community_order(const at::Tensor& src, const at::Tensor& dst, int64_t num_src, int64_t num_dst) {
  const auto plan = plan_of(src, dst, num_src, num_dst);
  at::Tensor order = at::empty({num_dst}, at::kInt);
  auto* const out = order.mutable_data_ptr<int32_t>();
  cpu::community_schedule(plan->view(), cpu::rabbit_order(plan->view(), cpu_executor()), 0, out);
  return order;
}

// Returns the share (0 to 1) of gathers that miss a cache of `capacity` feature rows if rows are processed in this
// order. Without an order rows ascend.
double cold_gathers(const at::Tensor& src, const at::Tensor& dst, int64_t num_src, int64_t num_dst,
                    const std::optional<at::Tensor>& order, int64_t capacity) {
  const auto plan = plan_of(src, dst, num_src, num_dst);
  check_order(order, num_dst);
  const at::Tensor ints = order.has_value() ? order->to(at::kCPU, at::kInt).contiguous() : at::Tensor();
  const auto cold =
      cpu::cold_gathers(plan->view(), ints.defined() ? ints.const_data_ptr<int32_t>() : nullptr, capacity);
  return plan->edges > 0 ? static_cast<double>(cold) / static_cast<double>(plan->edges) : 0.0;
}

// set_schedule of plan/cache.h, with a check that order is a permutation. order: int32 or int64 [num_dst].
bool set_schedule_op(const at::Tensor& src, const at::Tensor& dst, int64_t num_src, int64_t num_dst,
                     const std::optional<at::Tensor>& order) {
  check_edge_ids(src, dst);
  check_order(order, num_dst);
  if (!order.has_value()) return set_schedule(dst, src, num_dst, num_src, std::nullopt);
  return set_schedule(dst, src, num_dst, num_src, order->to(dst.device(), at::kInt).contiguous());
}

// The ScheduleInfo of all cached plans as two flat lists. Each plan has 4 strings (device, state, kind, reason) and 12
// numbers (rows, cols, edges, calls, found_in, stored_in, forecast, before, after, cold_before, cold_after, edge_span).
std::tuple<std::vector<std::string>, std::vector<double>> schedules() {
  std::vector<std::string> words;
  std::vector<double> numbers;
  for (const ScheduleInfo& s : schedule_infos()) {
    for (const std::string* word : {&s.device, &s.state, &s.kind, &s.reason}) words.push_back(*word);
    for (const int64_t n : {s.rows, s.cols, s.edges, s.calls}) numbers.push_back(static_cast<double>(n));
    numbers.insert(numbers.end(),
                   {s.found_in, s.stored_in, s.forecast, s.before, s.after, s.cold_before, s.cold_after, s.edge_span});
  }
  return {words, numbers};
}

std::tuple<std::string, double, double, bool, std::string> choose_schedule_op(int64_t rows, int64_t cols, int64_t edges,
                                                                              int64_t max_degree, bool cuda,
                                                                              int64_t processors, int64_t l2_bytes,
                                                                              int64_t row_bytes, int64_t calls,
                                                                              double seconds) {
  const ScheduleChoice choice = choose_schedule(
      {{rows, cols, edges, max_degree}, {cuda, processors, l2_bytes}, row_bytes, calls, seconds, false});
  return {name_of(choice.kind), choice.gain, choice.cost, choice.repays, choice.reason};
}

TORCH_LIBRARY_IMPL(gnna, CompositeImplicitAutograd, m) {
  m.impl("rabbit_order", &rabbit_order);
  m.impl("degree_order", &degree_order);
  m.impl("community_order", &community_order);
  m.impl("cold_gathers", &cold_gathers);
  m.impl("schedules", &schedules);
  m.impl("set_auto_schedule", &set_auto_schedule);
  m.impl("choose_schedule", &choose_schedule_op);
  m.impl("set_schedule", &set_schedule_op);
}

}  // namespace
}  // namespace gnna
