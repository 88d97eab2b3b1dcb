// The interface of the CPU kernels: functions on raw pointers, independent of torch and of any thread library. They cut
// their work into tasks of about equal edges, which the caller's Executor runs on the framework's threads. Arguments
// are described in types.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "gnna/types.h"

namespace gnna::cpu {

// run() calls body(0) .. body(tasks - 1), in any order, on up to `threads` threads, and returns when all are done.
struct Executor {
  int threads = 1;
  std::function<void(int64_t tasks, const std::function<void(int64_t)>& body)> run;
};

// Checks every edge for 0 <= row < rows and 0 <= col < cols.
template <typename Id>
EdgeCheck check_edges(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t cols,
                      const Executor& executor);

// Returns 0 if every edge occurs as often as its reverse (edge_hash.h). The ids must be below 2^31.
template <typename Id>
uint64_t reversal_sum(const Id* row, const Id* col, int64_t edges, const Executor& executor);

// Converts COO to CSR by a counting sort that keeps the user's order inside a row. The ids must have passed
// check_edges. rowptr [rows + 1], out_col [edges], out_perm [edges], or nullptr if the list is sorted
// (EdgeCheck::unsorted is 0).
template <typename Id>
void build_csr(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t* rowptr, int32_t* out_col,
               int32_t* out_perm, const Executor& executor);

int64_t max_degree(const int64_t* rowptr, int64_t rows);

// Returns a checksum of the memory. Two different contents have the same one with a chance of about 2^-32.
uint64_t checksum(const void* data, size_t bytes);

// In all functions below, T is float, double, Float16 or BFloat16.
template <typename T>
void spmm(const SpmmArgs<T>& args, const Executor& executor);

// Max or min (args.reduce) with the winning edges. arg [rows, heads * head_dim] is the position of the winner in the
// user's list. Elements start at -inf for max and +inf for min. If no message wins, out keeps the start value and arg
// is -1. NaN never wins. The first of equal edges in the user's list wins, with `last` the last one. With `last`, a
// message that equals the start value wins too.
template <typename T>
void spmm_arg(const SpmmArgs<T>& args, bool last, int32_t* arg, const Executor& executor);

template <typename T>
void sddmm(const SddmmArgs<T>& args, const Executor& executor);

// The gradient of max and min takes these three steps: extremum_share fills args.share, which the others read.
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

template <typename T>
void pair_reduce(const PairArgs<T>& args, const Executor& executor);

template <typename T>
void pair_dot(const PairArgs<T>& args, const Executor& executor);

template <typename T>
void pair_map(const int64_t* src, const int64_t* dst, const PairArgs<T>& args, const Executor& executor);

// Returns the instruction set that the kernels use in this process: "avx512", "avx2" or "generic".
const char* instruction_set();

}  // namespace gnna::cpu
