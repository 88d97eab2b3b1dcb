// The CPU side as the rest of the project sees it: functions on raw pointers, free of torch and of any thread library.
// Work is cut into tasks of about equal edges; an Executor, handed in by the caller, runs them on the framework's own
// threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "gnna/types.h"

namespace gnna::cpu {

// Runs body(0) .. body(tasks - 1), in any order, on up to `threads` threads, and returns when all are done.
struct Executor {
  int threads = 1;
  std::function<void(int64_t tasks, const std::function<void(int64_t)>& body)> run;
};

// What one pass over the edge list finds; positions are -1 when there is none.
struct EdgeCheck {
  int64_t bad_row = -1;
  int64_t bad_col = -1;
  bool sorted = true;  // row ids ascend
};

template <typename Id>
EdgeCheck check_edges(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t cols,
                      const Executor& executor);

// 0 when every edge comes as often as its reverse, see edge_hash.h. The ids must be below 2^31.
template <typename Id>
uint64_t reversal_sum(const Id* row, const Id* col, int64_t edges, const Executor& executor);

// COO to CSR by a counting sort that keeps the user's order inside a row. The ids must have passed check_edges.
// rowptr [rows + 1], out_col [edges], out_perm [edges] or nullptr when the list is sorted.
template <typename Id>
void build_csr(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t* rowptr, int32_t* out_col,
               int32_t* out_perm, const Executor& executor);

int64_t max_degree(const int64_t* rowptr, int64_t rows);

// A number that changes with any byte of the memory, but for a chance of about 2^-32.
uint64_t checksum(const void* data, size_t bytes);

// T is float, double, Float16 or BFloat16 in all of these.
template <typename T>
void spmm(const SpmmArgs<T>& args, const Executor& executor);

// Max or min (args.reduce) with the winning edge: arg [rows, heads * head_dim] is its position in the user's list, or
// -1 if nothing won over the start value, -inf for max and +inf for min, which out then holds. NaN never wins. Of
// equals the first edge in the user's list wins, with `last` the last one; with `last` also a message that equals the
// start value wins.
template <typename T>
void spmm_arg(const SpmmArgs<T>& args, bool last, int32_t* arg, const Executor& executor);

template <typename T>
void sddmm(const SddmmArgs<T>& args, const Executor& executor);

template <typename T>
void extremum_share(const CsrView& forward, const ExtremumArgs<T>& args, const Executor& executor);

template <typename T>
void extremum_grad_x(const CsrView& transposed, const ExtremumArgs<T>& args, const Executor& executor);

template <typename T>
void extremum_grad_weight(const CsrView& forward, const ExtremumArgs<T>& args, const Executor& executor);

template <typename T>
void segment_softmax(const SegmentSoftmaxArgs<T>& args, const Executor& executor);

template <typename T>
void segment_softmax_backward(const SegmentSoftmaxBackwardArgs<T>& args, const Executor& executor);

// "avx512", "avx2" or "generic": what the kernels of this process use.
const char* instruction_set();

}  // namespace gnna::cpu
