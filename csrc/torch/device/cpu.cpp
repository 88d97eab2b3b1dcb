// The CPU as a device of the ops (ops/spmm.h): how its plans are built, and its kernels, run on the framework's own
// threads.
#include <torch/library.h>
#include <unistd.h>

#include <chrono>

#include "common/cpu_executor.h"
#include "common/decisions.h"
#include "gnna/order.h"
#include "ops/extremum_backward.h"
#include "ops/gather.h"
#include "ops/pair.h"
#include "ops/sddmm.h"
#include "ops/segment_reduce.h"
#include "ops/segment_softmax.h"
#include "ops/spmm.h"
#include "plan/builder.h"

namespace gnna {
namespace {

template <typename Id>
void build_typed(const at::Tensor& row, const at::Tensor& col, Plan& plan, const char* row_name, const char* col_name) {
  const Id* rows = row.const_data_ptr<Id>();
  const Id* cols = col.const_data_ptr<Id>();
  const cpu::Executor run = cpu_executor();
  const EdgeCheck check = cpu::check_edges(rows, cols, plan.edges, plan.rows, plan.cols, run);
  if (check.bad_col >= 0) throw_bad_index(col_name, check.bad_col, cols[check.bad_col], plan.cols);
  if (check.bad_row >= 0) throw_bad_index(row_name, check.bad_row, rows[check.bad_row], plan.rows);
  plan.rowptr = at::empty({plan.rows + 1}, at::kLong);
  plan.col = at::empty({plan.edges}, at::kInt);
  if (check.unsorted != 0) plan.perm = at::empty({plan.edges}, at::kInt);
  cpu::build_csr(rows, cols, plan.edges, plan.rows, plan.rowptr.mutable_data_ptr<int64_t>(),
                 plan.col.mutable_data_ptr<int32_t>(),
                 check.unsorted == 0 ? nullptr : plan.perm.mutable_data_ptr<int32_t>(), run);
  plan.max_degree = cpu::max_degree(plan.rowptr.const_data_ptr<int64_t>(), plan.rows);
}

std::shared_ptr<Plan> build_plan(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                 const char* row_name, const char* col_name) {
  auto plan = std::make_shared<Plan>();
  plan->rows = rows;
  plan->cols = cols;
  plan->edges = row.numel();
  const at::Tensor r = row.contiguous(), c = col.contiguous();
  if (r.scalar_type() == at::kInt) {
    build_typed<int32_t>(r, c, *plan, row_name, col_name);
  } else {
    build_typed<int64_t>(r, c, *plan, row_name, col_name);
  }
  return plan;
}

bool symmetric(const at::Tensor& row, const at::Tensor& col) {
  const at::Tensor r = row.contiguous(), c = col.contiguous();
  const cpu::Executor run = cpu_executor();
  return (r.scalar_type() == at::kInt
              ? cpu::reversal_sum(r.const_data_ptr<int32_t>(), c.const_data_ptr<int32_t>(), r.numel(), run)
              : cpu::reversal_sum(r.const_data_ptr<int64_t>(), c.const_data_ptr<int64_t>(), r.numel(), run)) == 0;
}

std::shared_ptr<Plan> rearrange(const Plan& plan, const at::Tensor& places) {
  auto scheduled = plan.with_empty_lists();
  cpu::schedule_csr(plan.view(), places.const_data_ptr<int32_t>(), scheduled->rowptr.mutable_data_ptr<int64_t>(),
                    scheduled->col.mutable_data_ptr<int32_t>(), scheduled->perm.mutable_data_ptr<int32_t>(),
                    cpu_executor());
  return scheduled;
}

DeviceFacts cpu_facts(at::Device) {
  static const int64_t l2 = [] {
#ifdef _SC_LEVEL2_CACHE_SIZE
    const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (bytes > 0) return static_cast<int64_t>(bytes);
#endif
    return int64_t{1} << 20;
  }();
  return {false, at::get_num_threads(), l2};
}

const bool registered =
    (register_plan_builder(c10::DeviceType::CPU, {build_plan, [] { return false; }, rearrange, cpu_facts,
                                                  [](const Plan&) { return true; }, symmetric}),
     true);

struct Cpu {
  struct Guard {
    explicit Guard(at::Device) {}
  };

  template <typename T>
  static void spmm(const Plan& plan, const SpmmArgs<T>& args, at::Tensor&) {
    const Usage::Kind kind = kind_of(args);
    decide_launch(plan.facts(), layer_facts(args), cpu_facts(at::kCPU));
    const bool timed = plan.usage->count(kind) > 0;
    const auto start = std::chrono::steady_clock::now();
    cpu::spmm(args, cpu_executor());
    if (timed) plan.usage->time(kind, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }

  template <typename T>
  static void spmm_arg(const Plan&, const SpmmArgs<T>& args, bool last, int32_t* arg) {
    cpu::spmm_arg(args, last, arg, cpu_executor());
  }

  template <typename T>
  static void sddmm(const SddmmArgs<T>& args, const at::Tensor&, const at::Tensor&) {
    cpu::sddmm(args, cpu_executor());
  }

  template <typename T>
  static void extremum(const Plan& forward, const Plan& transposed, const ExtremumArgs<T>& args, const at::Tensor&,
                       const at::Tensor&) {
    const cpu::Executor run = cpu_executor();
    cpu::extremum_share(forward.view(), args, run);
    cpu::extremum_grad_x(transposed.view(), args, run);
    if (args.grad_weight) cpu::extremum_grad_weight(forward.view(), args, run);
  }

  static constexpr bool kGathersUnchecked = false;

  template <typename T>
  static void segment_softmax(const Plan&, const SegmentSoftmaxArgs<T>& args, const at::Tensor&) {
    cpu::segment_softmax(args, cpu_executor());
  }

  template <typename T>
  static void segment_softmax_backward(const Plan&, const SegmentSoftmaxBackwardArgs<T>& args, const at::Tensor&) {
    cpu::segment_softmax_backward(args, cpu_executor());
  }

  template <typename T>
  static void pair_reduce(const Plan&, const PairArgs<T>& args) {
    cpu::pair_reduce(args, cpu_executor());
  }

  template <typename T>
  static void pair_dot(const PairArgs<T>& args, const at::Tensor&, const at::Tensor&) {
    cpu::pair_dot(args, cpu_executor());
  }

  template <typename T>
  static void pair_map(const PairArgs<T>& args, const at::Tensor& src, const at::Tensor& dst) {
    const at::Tensor sources = src.to(at::kLong).contiguous(), destinations = dst.to(at::kLong).contiguous();
    cpu::pair_map(sources.const_data_ptr<int64_t>(), destinations.const_data_ptr<int64_t>(), args, cpu_executor());
  }
};

TORCH_LIBRARY_IMPL(gnna, CPU, m) {
  m.impl("spmm", &spmm_on<Cpu>);
  m.impl("segment_reduce", &segment_reduce_on<Cpu>);
  m.impl("segment_extremum_backward", &segment_extremum_backward_on<Cpu>);
  m.impl("spmm_arg", &spmm_arg_on<Cpu>);
  m.impl("sddmm", &sddmm_on<Cpu>);
  m.impl("extremum_backward", &extremum_backward_on<Cpu>);
  m.impl("gather_rows", &gather_rows_on<Cpu>);
  m.impl("scatter_rows", &scatter_rows_on<Cpu>);
  m.impl("segment_softmax", &segment_softmax_on<Cpu>);
  m.impl("segment_softmax_backward", &segment_softmax_backward_on<Cpu>);
  m.impl("pair_reduce", &pair_reduce_on<Cpu>);
  m.impl("pair_dot", &pair_dot_on<Cpu>);
  m.impl("pair_map", &pair_map_on<Cpu>);
  m.impl("pair_extremum_backward", &pair_extremum_backward_on<Cpu>);
}

}  // namespace
}  // namespace gnna
