// The interface of the CUDA kernels: host functions on raw device pointers and an explicit stream. They neither
// synchronise nor allocate unless their comment says so. Every launch is checked and its error is returned.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "gnna/decide.h"
#include "gnna/types.h"

namespace gnna::cuda {

// ---- plan building ------------------------------------------------------------------------------------------------

// Checks both ends of every edge and whether the row ids ascend. Id is int32_t or int64_t. device_result points to one
// EdgeCheck in device memory. The call initialises it, and the caller copies it back.
template <typename Id>
cudaError_t check_edges(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t cols,
                        EdgeCheck* device_result, cudaStream_t stream);

// The state of one checksum, in device memory. The caller sets it to zero before the first call.
struct ChecksumState {
  unsigned long long sum = 0, expected = 0;
  unsigned ticket = 0;
};

// Computes the checksum of `elements` elements that are `stride` elements apart. If `differs` is nullptr, the checksum
// is stored in state->expected. Otherwise it is compared with state->expected, and 1 is written to *differs if they are
// not equal. `differs` points to pinned host memory. Calls that use the same state must run in order on one stream.
template <typename Id>
cudaError_t checksum(const Id* list, int64_t elements, int64_t stride, ChecksumState* state, int* differs,
                     cudaStream_t stream);

// Writes 0 to *device_sum if every edge occurs as often as its reverse (edge_hash.h). The ids must be below 2^31.
template <typename Id>
cudaError_t reversal_sum(const Id* row, const Id* col, int64_t edges, uint64_t* device_sum, cudaStream_t stream);

// Returns the bytes of workspace that build_csr needs for this many edges (0 if sorted).
template <typename Id>
size_t build_csr_workspace(int64_t edges, int64_t rows, bool sorted);

// Converts COO to CSR: rowptr [rows + 1], out_col [edges], out_perm [edges] (may be nullptr if sorted). Stable: the
// edges of a row keep the user's order. The ids must have passed check_edges. workspace must be aligned to 256 bytes.
template <typename Id>
cudaError_t build_csr(const Id* row, const Id* col, int64_t edges, int64_t rows, bool sorted, int64_t* rowptr,
                      int32_t* out_col, int32_t* out_perm, void* workspace, size_t workspace_bytes,
                      cudaStream_t stream);

// What count_csr finds about an edge list, in host memory that the device can write to.
struct EdgeSummary {
  EdgeCheck check;
  int64_t max_degree = 0;
  bool symmetric = false;  // every edge occurs as often as its reverse
  bool fits = false;       // the largest degree allows this way of sorting; otherwise only rowptr is complete
};

// As check_edges, build_csr and max_degree together, for lists that can_count_csr(), in fewer launches. Always writes
// out_perm. If the summary reports a bad id or that the list does not fit, out_col and out_perm are undefined. The
// workspace must be aligned to 16 bytes. The summary is complete once the stream has been waited for.
bool can_count_csr(int64_t edges, int64_t rows);
size_t count_csr_workspace(int64_t edges, int64_t rows);
template <typename Id>
cudaError_t count_csr(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t cols, int64_t* rowptr,
                      int32_t* out_col, int32_t* out_perm, void* workspace, EdgeSummary* summary, cudaStream_t stream);

// Writes the largest degree to *device_max, one int64 in device memory.
cudaError_t max_degree(const int64_t* rowptr, int64_t rows, int64_t* device_max, cudaStream_t stream);

// A piece of a split row, processed by one block. Rows with more edges than a threshold are cut into chunks of at most
// chunk_edges edges.
struct RowChunk {
  int64_t begin;  // first slot (index into col)
  int64_t end;    // one past the last slot
  int32_t row;    // the row's place in the plan's order
  int32_t index;  // index among the chunks of its row, from 0
  int32_t count;  // number of chunks of the row
  int32_t first;  // index of the row's first chunk among all chunks, where its partial results start
};

// List the chunks of all rows with more than `threshold` edges, in the plan's order. count_chunks writes the index of
// each row's first chunk and, at the end, the number of chunks to first [rows + 1]. list_chunks fills the list.
// scan_workspace has partition_scan_bytes(rows) bytes.
cudaError_t count_chunks(const int64_t* rowptr, int64_t rows, int64_t threshold, int64_t chunk_edges, int64_t* first,
                         void* scan_workspace, size_t scan_bytes, cudaStream_t stream);
cudaError_t list_chunks(const int64_t* rowptr, int64_t rows, int64_t threshold, int64_t chunk_edges,
                        const int64_t* first, RowChunk* chunks, cudaStream_t stream);
size_t partition_scan_bytes(int64_t rows);

// The neighbour groups of all rows, in the plan's order. A row with up to split_above edges has one group per
// group_size edges, and at least one. A longer row has one placeholder group, which the kernel skips because the row is
// processed in chunks.
struct NeighbourGroups {
  const int64_t* first = nullptr;  // [rows + 1] index of each row's first group, then their number
  const int32_t* row = nullptr;    // [count] the row of each group, as its place in the plan's order
  int64_t count = 0;
};

// List the neighbour groups in the same two steps, with the same workspace. list_groups fills row.
cudaError_t count_groups(const int64_t* rowptr, int64_t rows, int64_t group_size, int64_t split_above, int64_t* first,
                         void* scan_workspace, size_t scan_bytes, cudaStream_t stream);
cudaError_t list_groups(const int64_t* first, int64_t rows, int32_t* row, cudaStream_t stream);

// Copies the neighbour lists of csr in another order. places [rows] gives, for each new place, the place in csr from
// which its list is copied. Writes rowptr [rows + 1], col [edges] and perm [edges]. The edges keep their order inside a
// row. scan_workspace has partition_scan_bytes(rows) bytes.
cudaError_t schedule_csr(const CsrView& csr, const int32_t* places, int64_t* rowptr, int32_t* col, int32_t* perm,
                         void* scan_workspace, size_t scan_bytes, cudaStream_t stream);

// ---- operations ---------------------------------------------------------------------------------------------------

struct SplitRows {
  const RowChunk* chunks = nullptr;
  int64_t count = 0;
  int64_t split_above = INT64_MAX;  // rows with more edges are cut into chunks
  bool needs_combining = false;     // some row has several chunks, whose partial results need scratch
};

// The assignment of a plan's rows to blocks. It must be built for the configuration that it is launched with: the
// chunks for its split_above and chunk_edges and, for Kernel::Group, the neighbour groups for its group_size and
// split_above.
struct Partition {
  SplitRows split_rows;
  NeighbourGroups groups;
};

// T is float, double, Float16 or BFloat16 in all operations.

// Returns the bytes of scratch that one launch of spmm<T> needs: the partial results (Compute<T>) and arrival counters
// of the split rows. Returns 0 if no row has several chunks. scratch must be aligned to 16 bytes and need not be
// initialised. Concurrent launches must not share it.
template <typename T>
size_t spmm_scratch_bytes(const SpmmArgs<T>& args, const KernelConfig& config, const SplitRows& split_rows);

template <typename T>
cudaError_t spmm(const SpmmArgs<T>& args, const KernelConfig& config, const Partition& partition, void* scratch,
                 cudaStream_t stream);

// Scratch of the operations below that take split rows: one counter per chunk, and up to kTaskBytes per chunk and
// element of the width. The rules for spmm's scratch apply. 0 bytes if no row has several chunks.
template <typename T>
constexpr int64_t kTaskBytes = sizeof(Compute<T>) == 8 ? 16 : 8;
inline size_t task_counter_bytes(int64_t chunks) { return (static_cast<size_t>(chunks) * 4 + 15) / 16 * 16; }
template <typename T>
size_t task_scratch_bytes(const SplitRows& rows, int64_t width) {
  if (!rows.needs_combining) return 0;
  return task_counter_bytes(rows.count) + static_cast<size_t>(rows.count) * static_cast<size_t>(width) * kTaskBytes<T>;
}

// Computes max or min (args.reduce) and the winning edge: arg [rows, heads * head_dim] is its position in the user's
// list. If no message beats the start value (-inf for max, +inf for min), arg is -1 and out holds the start value. NaN
// never wins. The first of equal messages wins; 16-bit messages are compared before they are rounded.
template <typename T>
cudaError_t spmm_arg(const SpmmArgs<T>& args, int32_t* arg, const SplitRows& split_rows, void* scratch,
                     cudaStream_t stream);

// Edge-parallel: reads the edge list only, not a plan. Id is int32_t or int64_t. out[e, h] is in the user's edge order.
template <typename T, typename Id>
cudaError_t sddmm(const Id* src, const Id* dst, const SddmmArgs<T>& args, cudaStream_t stream);

// Computes args.share = args.grad / number of sharers. `forward` is the forward plan (rows are destinations).
template <typename T>
cudaError_t extremum_share(const CsrView& forward, const ExtremumArgs<T>& args, const SplitRows& split_rows,
                           void* scratch, cudaStream_t stream);

// Computes args.grad_x from args.share. `transposed` is the transposed plan (rows are sources).
template <typename T>
cudaError_t extremum_grad_x(const CsrView& transposed, const ExtremumArgs<T>& args, const SplitRows& split_rows,
                            void* scratch, cudaStream_t stream);

// Computes args.grad_weight from args.share, edge-parallel.
template <typename T, typename Id>
cudaError_t extremum_grad_weight(const Id* src, const Id* dst, int64_t edges, const ExtremumArgs<T>& args,
                                 cudaStream_t stream);

// Compute a softmax over each row's edges, and its gradient. index [edges] is the row of each edge in the user's order.
// totals is workspace of softmax_bytes<T> bytes, aligned to 16. Concurrent launches must not share it.
template <typename T>
size_t softmax_bytes(int64_t rows, int64_t heads) {
  return static_cast<size_t>(rows) * static_cast<size_t>(heads) * kTaskBytes<T>;
}
template <typename T, typename Id>
cudaError_t segment_softmax(const Id* index, const SegmentSoftmaxArgs<T>& args, const SplitRows& split_rows,
                            void* totals, void* scratch, cudaStream_t stream);

template <typename T, typename Id>
cudaError_t segment_softmax_backward(const Id* index, const SegmentSoftmaxBackwardArgs<T>& args,
                                     const SplitRows& split_rows, void* totals, void* scratch, cudaStream_t stream);

// The pair ops (PairArgs). pair_reduce takes Sum, Max and Min; for the last two a row without edges gets the start
// value -inf or +inf. pair_dot and pair_map read the edge list and, of args.csr, only the number of edges.
template <typename T>
cudaError_t pair_reduce(const PairArgs<T>& args, const SplitRows& split_rows, void* scratch, cudaStream_t stream);
template <typename T, typename Id>
cudaError_t pair_dot(const Id* src, const Id* dst, const PairArgs<T>& args, cudaStream_t stream);
template <typename T, typename Id>
cudaError_t pair_map(const Id* src, const Id* dst, const PairArgs<T>& args, cudaStream_t stream);

// Copies x [rows, width], whose rows are `stride` elements apart, into rows of `padded` elements and fills the rest
// with zeros. `padded` elements must be a multiple of 16 bytes, and out must be aligned to 16.
template <typename T>
cudaError_t pad_rows(const T* x, int64_t stride, int64_t rows, int64_t width, int64_t padded, T* out,
                     cudaStream_t stream);

// Copies rows: out[e] = x[index[e]]. row_bytes must be even. The ids are not checked here.
template <typename Id>
cudaError_t gather_rows(const void* x, const Id* index, int64_t edges, int64_t row_bytes, void* out,
                        cudaStream_t stream);

}  // namespace gnna::cuda
