// The CUDA side as the rest of the project sees it: host functions on raw device pointers and an explicit stream.
// Nothing here synchronises or allocates unless its comment says so; every launch is checked and its error returned.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "gnna/decide.h"
#include "gnna/types.h"

namespace gnna::cuda {

// ---- plan building ------------------------------------------------------------------------------------------------

// What one pass over the edge list finds. All positions are -1 when there is none.
struct EdgeCheck {
  int64_t bad_row = -1;  // smallest position whose row id is outside [0, rows)
  int64_t bad_col = -1;  // smallest position whose column id is outside [0, cols)
  int64_t unsorted = 0;  // 1 when the row ids are not ascending
};

// Checks both ends of every edge and whether the rows are ascending. Id is int32_t or int64_t.
// device_result points to one EdgeCheck in device memory, which the call initialises; the caller copies it back.
template <typename Id>
cudaError_t check_edges(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t cols,
                        EdgeCheck* device_result, cudaStream_t stream);

// In device memory, all 0 at first.
struct ChecksumState {
  unsigned long long sum = 0, expected = 0;
  unsigned ticket = 0;
};

// The checksum of `elements` elements, `stride` apart. Stored in state->expected if `differs` is nullptr; otherwise
// compared with it, and 1 is written to *differs, in memory that the host reads, if they are not equal. Calls on one
// state must follow one another on one stream.
template <typename Id>
cudaError_t checksum(const Id* list, int64_t elements, int64_t stride, ChecksumState* state, int* differs,
                     cudaStream_t stream);

// Writes 0 to device_sum when every edge comes as often as its reverse, see edge_hash.h. The ids must be below 2^31.
template <typename Id>
cudaError_t reversal_sum(const Id* row, const Id* col, int64_t edges, uint64_t* device_sum, cudaStream_t stream);

// Bytes of workspace that build_csr needs for this many edges (0 when sorted).
template <typename Id>
size_t build_csr_workspace(int64_t edges, int64_t rows, bool sorted);

// COO to CSR: rowptr [rows + 1], out_col [edges], out_perm [edges] (nullptr when sorted). Stable: edges of a row keep
// the user's order. The ids must have passed check_edges.
template <typename Id>
cudaError_t build_csr(const Id* row, const Id* col, int64_t edges, int64_t rows, bool sorted, int64_t* rowptr,
                      int32_t* out_col, int32_t* out_perm, void* workspace, size_t workspace_bytes,
                      cudaStream_t stream);

// max_degree: one int64 in device memory, overwritten.
cudaError_t max_degree(const int64_t* rowptr, int64_t rows, int64_t* device_max, cudaStream_t stream);

// Rows longer than a threshold are cut into chunks of at most chunk_edges edges, one block each.
struct RowChunk {
  int64_t begin;  // first slot
  int64_t end;    // one past the last slot
  int32_t row;    // its place in the plan's order, as all rows here
  int32_t index;  // which chunk of its row, from 0
  int32_t count;  // how many chunks the row has
  int32_t first;  // index of the row's first chunk among all chunks: where its partial results start
};

// Lists the chunks of all rows with more than threshold edges, in row order. count_chunks writes first [rows + 1],
// where each row's chunks start and, last, how many there are; list_chunks fills the list. scan_workspace:
// partition_scan_bytes(rows) bytes.
cudaError_t count_chunks(const int64_t* rowptr, int64_t rows, int64_t threshold, int64_t chunk_edges, int64_t* first,
                         void* scan_workspace, size_t scan_bytes, cudaStream_t stream);
cudaError_t list_chunks(const int64_t* rowptr, int64_t rows, int64_t threshold, int64_t chunk_edges,
                        const int64_t* first, RowChunk* chunks, cudaStream_t stream);
size_t partition_scan_bytes(int64_t rows);

// The neighbour groups of all rows, in row order: rows with up to split_above edges have one per group_size edges, at
// least one; longer rows, which are chunks, have one that nobody takes.
struct NeighbourGroups {
  const int64_t* first = nullptr;  // [rows + 1] where each row's groups start
  const int32_t* row = nullptr;    // [count] the row of each group
  int64_t count = 0;
};

// The same two steps for the groups, with the same workspace.
cudaError_t count_groups(const int64_t* rowptr, int64_t rows, int64_t group_size, int64_t split_above, int64_t* first,
                         void* scan_workspace, size_t scan_bytes, cudaStream_t stream);
cudaError_t list_groups(const int64_t* first, int64_t rows, int32_t* row, cudaStream_t stream);

// The same neighbour lists stored in another order: places [rows] says where in csr each now comes from, whatever row
// that is. rowptr [rows + 1], col [edges] and perm [edges]; edges keep their order inside a row. scan_workspace:
// partition_scan_bytes(rows) bytes.
cudaError_t schedule_csr(const CsrView& csr, const int32_t* places, int64_t* rowptr, int32_t* col, int32_t* perm,
                         void* scan_workspace, size_t scan_bytes, cudaStream_t stream);

// ---- operations ---------------------------------------------------------------------------------------------------

struct SplitRows {
  const RowChunk* chunks = nullptr;
  int64_t count = 0;
  int64_t split_above = INT64_MAX;  // rows with more edges are in chunks
  bool needs_combining = false;     // some row has several chunks, whose partial results meet in scratch
};

// How the rows are dealt out, made for the configuration they are launched with: the chunks of its split_above and
// chunk_edges, and for Kernel::Group the neighbour groups of its group_size and split_above.
struct Partition {
  SplitRows split_rows;
  NeighbourGroups groups;
};

// T of all operations is float, double, Float16 or BFloat16.

// Bytes of scratch that one launch of spmm<T> needs: partial results, which are Compute<T>, and arrival counters of the
// split rows. The scratch belongs to the launch, so that launches on different streams cannot meet in it. 0 when no row
// has several chunks.
template <typename T>
size_t spmm_scratch_bytes(const SpmmArgs<T>& args, const KernelConfig& config, const SplitRows& split_rows);

template <typename T>
cudaError_t spmm(const SpmmArgs<T>& args, const KernelConfig& config, const Partition& partition, void* scratch,
                 cudaStream_t stream);

// Scratch of the operations below that take split rows: for each chunk a counter, and up to kTaskBytes for each element
// of the width. Like spmm's it belongs to a launch, and is 0 when no row has several chunks.
template <typename T>
constexpr int64_t kTaskBytes = sizeof(Compute<T>) == 8 ? 16 : 8;
inline size_t task_counter_bytes(int64_t chunks) { return (static_cast<size_t>(chunks) * 4 + 15) / 16 * 16; }
template <typename T>
size_t task_scratch_bytes(const SplitRows& rows, int64_t width) {
  if (!rows.needs_combining) return 0;
  return task_counter_bytes(rows.count) + static_cast<size_t>(rows.count) * static_cast<size_t>(width) * kTaskBytes<T>;
}

// Max or min (args.reduce) with the winning edge: arg [rows, heads * head_dim] is its position in the user's list, or
// -1 where nothing beat the start value, -inf for max and +inf for min, which out then holds. NaN never wins; the first
// of equals does, where 16-bit messages are compared before they are rounded.
template <typename T>
cudaError_t spmm_arg(const SpmmArgs<T>& args, int32_t* arg, const SplitRows& split_rows, void* scratch,
                     cudaStream_t stream);

// Edge-parallel; needs no plan beyond the edge list. Id is int32_t or int64_t; out[e, h] in the user's edge order.
template <typename T, typename Id>
cudaError_t sddmm(const Id* src, const Id* dst, const SddmmArgs<T>& args, cudaStream_t stream);

// args.share = args.grad / number of sharers, on the forward plan.
template <typename T>
cudaError_t extremum_share(const CsrView& forward, const ExtremumArgs<T>& args, const SplitRows& split_rows,
                           void* scratch, cudaStream_t stream);

// args.grad_x from args.share, on the transposed plan (rows are sources).
template <typename T>
cudaError_t extremum_grad_x(const CsrView& transposed, const ExtremumArgs<T>& args, const SplitRows& split_rows,
                            void* scratch, cudaStream_t stream);

// args.grad_weight from args.share, edge-parallel.
template <typename T, typename Id>
cudaError_t extremum_grad_weight(const Id* src, const Id* dst, int64_t edges, const ExtremumArgs<T>& args,
                                 cudaStream_t stream);

// index [edges] is the row of each edge in the user's order; totals are softmax_bytes<T>, aligned to 16, that belong to
// the launch.
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

// x [rows, width], its rows stride elements apart, copied into rows of padded elements, the rest zero. padded elements
// are a multiple of 16 bytes, and out starts on 16.
template <typename T>
cudaError_t pad_rows(const T* x, int64_t stride, int64_t rows, int64_t width, int64_t padded, T* out,
                     cudaStream_t stream);

// out[e] = x[index[e]], rows of so many bytes, an even number. The ids must have been checked.
template <typename Id>
cudaError_t gather_rows(const void* x, const Id* index, int64_t edges, int64_t row_bytes, void* out,
                        cudaStream_t stream);

}  // namespace gnna::cuda
