// Selects the kernel table for this processor and distributes the rows of a call over the threads. Rows are cut into
// tasks of about equal edges, and a free thread takes the next task, so neither a hub nor a busy core delays the rest.
#include <algorithm>
#include <atomic>

#include "gnna/cpu_api.h"
#include "kernel_table.h"

namespace gnna::cpu {
namespace {

const Kernels& kernels() {
  static const Kernels& chosen = []() -> const Kernels& {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw"))
      return kAvx512Kernels;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
      return kAvx2Kernels;
#endif
    return kGenericKernels;
  }();
  return chosen;
}

template <typename T>
const KernelTable<T>& table();
template <>
const KernelTable<float>& table<float>() {
  return kernels().f32;
}
template <>
const KernelTable<double>& table<double>() {
  return kernels().f64;
}
template <>
const KernelTable<Float16>& table<Float16>() {
  return kernels().f16;
}
template <>
const KernelTable<BFloat16>& table<BFloat16>() {
  return kernels().bf16;
}

// Work, in elements, below which one thread is faster than two, because a parallel region costs some microseconds.
constexpr int64_t kSerialWork = 1 << 14;
// Tasks per thread. More tasks balance the load better when a core is busy. Fewer make a task long enough (tens of
// microseconds) to repay taking it.
constexpr int64_t kTasksPerThread = 8;

// Calls body(task) for all tasks. A thread that is free takes the next one.
template <typename Body>
void run_tasks(int64_t tasks, const Executor& executor, const Body& body) {
  std::atomic<int64_t> next{0};
  executor.run(executor.threads, [&](int64_t) {
    for (int64_t task = next++; task < tasks; task = next++) body(task);
  });
}

template <typename Body>
void for_rows(const CsrView& csr, int64_t width, const Executor& executor, const Body& body) {
  const int64_t cost = csr.edges + csr.rows;
  if (executor.threads <= 1 || cost * width < kSerialWork) {
    body(0, csr.rows);
    return;
  }
  const int64_t tasks = std::min<int64_t>(csr.rows, executor.threads * kTasksPerThread);
  // The first row for which the cost of the rows before it (their edges plus their number) reaches the task's target.
  const auto first_row = [&](int64_t task) {
    const int64_t target = cost / tasks * task + std::min(cost % tasks, task);
    int64_t low = 0, high = csr.rows;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (csr.rowptr[middle] + middle < target) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  run_tasks(tasks, executor,
            [&](int64_t task) { body(first_row(task), task + 1 == tasks ? csr.rows : first_row(task + 1)); });
}

template <typename Body>
void for_edges(int64_t edges, int64_t width, const Executor& executor, const Body& body) {
  if (executor.threads <= 1 || edges * width < kSerialWork) {
    body(0, edges);
    return;
  }
  const int64_t tasks = std::min<int64_t>(edges, executor.threads * kTasksPerThread),
                size = (edges + tasks - 1) / tasks;
  run_tasks(tasks, executor,
            [&](int64_t task) { body(std::min(edges, task * size), std::min(edges, (task + 1) * size)); });
}

}  // namespace

const char* instruction_set() { return kernels().name; }

template <typename T>
void spmm(const SpmmArgs<T>& args, const Executor& executor) {
  for_rows(args.csr, args.heads * args.head_dim, executor,
           [&](int64_t begin, int64_t end) { table<T>().spmm(args, begin, end); });
}

template <typename T>
void spmm_arg(const SpmmArgs<T>& args, bool last, int32_t* arg, const Executor& executor) {
  for_rows(args.csr, args.heads * args.head_dim, executor,
           [&](int64_t begin, int64_t end) { table<T>().spmm_arg(args, last, arg, begin, end); });
}

template <typename T>
void sddmm(const SddmmArgs<T>& args, const Executor& executor) {
  for_rows(args.csr, args.heads * args.head_dim, executor,
           [&](int64_t begin, int64_t end) { table<T>().sddmm(args, begin, end); });
}

template <typename T>
void extremum_share(const CsrView& forward, const ExtremumArgs<T>& args, const Executor& executor) {
  for_rows(forward, args.heads * args.head_dim, executor,
           [&](int64_t begin, int64_t end) { table<T>().extremum_share(forward, args, begin, end); });
}

template <typename T>
void extremum_grad_x(const CsrView& transposed, const ExtremumArgs<T>& args, const Executor& executor) {
  for_rows(transposed, args.heads * args.head_dim, executor,
           [&](int64_t begin, int64_t end) { table<T>().extremum_grad_x(transposed, args, begin, end); });
}

template <typename T>
void extremum_grad_weight(const CsrView& forward, const ExtremumArgs<T>& args, const Executor& executor) {
  for_rows(forward, args.heads * args.head_dim, executor,
           [&](int64_t begin, int64_t end) { table<T>().extremum_grad_weight(forward, args, begin, end); });
}

template <typename T>
void segment_softmax(const SegmentSoftmaxArgs<T>& args, const Executor& executor) {
  for_rows(args.csr, args.heads, executor,
           [&](int64_t begin, int64_t end) { table<T>().segment_softmax(args, begin, end); });
}

template <typename T>
void segment_softmax_backward(const SegmentSoftmaxBackwardArgs<T>& args, const Executor& executor) {
  for_rows(args.csr, args.heads, executor,
           [&](int64_t begin, int64_t end) { table<T>().segment_softmax_backward(args, begin, end); });
}

template <typename T>
void pair_reduce(const PairArgs<T>& args, const Executor& executor) {
  for_rows(args.csr, args.width(), executor,
           [&](int64_t begin, int64_t end) { table<T>().pair_reduce(args, begin, end); });
}

template <typename T>
void pair_dot(const PairArgs<T>& args, const Executor& executor) {
  for_rows(args.csr, args.width(), executor,
           [&](int64_t begin, int64_t end) { table<T>().pair_dot(args, begin, end); });
}

template <typename T>
void pair_map(const int64_t* src, const int64_t* dst, const PairArgs<T>& args, const Executor& executor) {
  for_edges(args.csr.edges, args.width(), executor,
            [&](int64_t begin, int64_t end) { table<T>().pair_map(src, dst, args, begin, end); });
}

#define GNNA_INSTANTIATE(T)                                                                         \
  template void spmm<T>(const SpmmArgs<T>&, const Executor&);                                       \
  template void spmm_arg<T>(const SpmmArgs<T>&, bool, int32_t*, const Executor&);                   \
  template void segment_softmax<T>(const SegmentSoftmaxArgs<T>&, const Executor&);                  \
  template void segment_softmax_backward<T>(const SegmentSoftmaxBackwardArgs<T>&, const Executor&); \
  template void sddmm<T>(const SddmmArgs<T>&, const Executor&);                                     \
  template void pair_reduce<T>(const PairArgs<T>&, const Executor&);                                \
  template void pair_dot<T>(const PairArgs<T>&, const Executor&);                                   \
  template void pair_map<T>(const int64_t*, const int64_t*, const PairArgs<T>&, const Executor&);   \
  template void extremum_share<T>(const CsrView&, const ExtremumArgs<T>&, const Executor&);         \
  template void extremum_grad_x<T>(const CsrView&, const ExtremumArgs<T>&, const Executor&);        \
  template void extremum_grad_weight<T>(const CsrView&, const ExtremumArgs<T>&, const Executor&);
GNNA_INSTANTIATE(float)
GNNA_INSTANTIATE(double)
GNNA_INSTANTIATE(Float16)
GNNA_INSTANTIATE(BFloat16)
#undef GNNA_INSTANTIATE

}  // namespace gnna::cpu
