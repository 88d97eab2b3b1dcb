// Checks and facts of a graph, each found in one pass: ids out of range, rows out of order, symmetry, the largest
// degree.
#include <cstddef>

#include "gnna/cuda_api.h"
#include "gnna/edge_hash.h"
#include "gnna/launch.cuh"

namespace gnna::cuda {

namespace {

constexpr int kBlock = 256;
constexpr int64_t kMaxBlocks = 2048;  // enough to fill the largest device; more would only add atomics

// Threads stride over the edges in ascending order, so the first bad position that a thread finds is its smallest.
// Reads both ids of every edge, and the row id before it, which the neighbouring thread has just loaded.
template <typename Id>
__global__ void __launch_bounds__(kBlock)
    check_ids(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t cols, EdgeCheck* result) {
  constexpr int64_t kNone = -1;
  int64_t bad_row = kNone, bad_col = kNone;
  bool unsorted = false;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; i < edges;
       i += static_cast<int64_t>(gridDim.x) * kBlock) {
    const int64_t r = __ldg(row + i), c = __ldg(col + i);
    if (bad_row == kNone && (r < 0 || r >= rows)) bad_row = i;
    if (bad_col == kNone && (c < 0 || c >= cols)) bad_col = i;
    unsorted |= i > 0 && static_cast<int64_t>(__ldg(row + i - 1)) > r;
  }
  // "None" has all bits set. As an unsigned number it is the largest, so atomicMin needs no special case, and it reads
  // back as -1.
  auto* row_at = reinterpret_cast<unsigned long long*>(&result->bad_row);
  auto* col_at = reinterpret_cast<unsigned long long*>(&result->bad_col);
  auto* unsorted_at = reinterpret_cast<unsigned long long*>(&result->unsorted);
  if (bad_row != kNone) atomicMin(row_at, static_cast<unsigned long long>(bad_row));
  if (bad_col != kNone) atomicMin(col_at, static_cast<unsigned long long>(bad_col));
  __syncwarp();
  if (__any_sync(0xffffffffu, unsorted) && (threadIdx.x & 31) == 0) atomicMax(unsorted_at, 1ull);
}

// The sum is modulo 2^64, so it does not depend on the order of the additions.
template <typename Id>
__global__ void __launch_bounds__(kBlock)
    sum_against_reverse(const Id* row, const Id* col, int64_t edges, unsigned long long* sum) {
  unsigned long long mine = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; i < edges;
       i += static_cast<int64_t>(gridDim.x) * kBlock) {
    mine += hash_against_reverse(static_cast<uint64_t>(__ldg(row + i)), static_cast<uint64_t>(__ldg(col + i)));
  }
  __syncwarp();
  for (int offset = 16; offset > 0; offset /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, offset);
  if ((threadIdx.x & 31) == 0) atomicAdd(sum, mine);
}

__global__ void __launch_bounds__(kBlock) max_of_rows(const int64_t* rowptr, int64_t rows, int64_t* result) {
  long long degree = 0;
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; r < rows;
       r += static_cast<int64_t>(gridDim.x) * kBlock) {
    const long long d = __ldg(rowptr + r + 1) - __ldg(rowptr + r);
    degree = d > degree ? d : degree;
  }
  __syncwarp();
  for (int offset = 16; offset > 0; offset /= 2) {
    const long long other = __shfl_xor_sync(0xffffffffu, degree, offset);
    degree = other > degree ? other : degree;
  }
  if ((threadIdx.x & 31) == 0) atomicMax(reinterpret_cast<long long*>(result), degree);
}

}  // namespace

template <typename Id>
cudaError_t check_edges(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t cols,
                        EdgeCheck* device_result, cudaStream_t stream) {
  if (edges < 0 || rows < 0 || cols < 0 || rows > kMaxIndex || cols > kMaxIndex) return cudaErrorInvalidValue;
  static_assert(offsetof(EdgeCheck, unsorted) == 2 * sizeof(int64_t) && sizeof(EdgeCheck) == 3 * sizeof(int64_t));
  cudaError_t error = cudaMemsetAsync(device_result, 0xff, offsetof(EdgeCheck, unsorted), stream);
  if (error != cudaSuccess) return error;
  error = cudaMemsetAsync(&device_result->unsorted, 0, sizeof(int64_t), stream);
  if (error != cudaSuccess || edges == 0) return error;
  const unsigned blocks = stride_blocks(edges, kBlock, kMaxBlocks);
  return launch(check_ids<Id>, blocks, kBlock, 0, stream, row, col, edges, rows, cols, device_result);
}

template <typename Id>
cudaError_t reversal_sum(const Id* row, const Id* col, int64_t edges, uint64_t* device_sum, cudaStream_t stream) {
  if (edges < 0) return cudaErrorInvalidValue;
  const cudaError_t error = cudaMemsetAsync(device_sum, 0, sizeof(uint64_t), stream);
  if (error != cudaSuccess || edges == 0) return error;
  return launch(sum_against_reverse<Id>, stride_blocks(edges, kBlock, kMaxBlocks), kBlock, 0, stream, row, col, edges,
                reinterpret_cast<unsigned long long*>(device_sum));
}

cudaError_t max_degree(const int64_t* rowptr, int64_t rows, int64_t* device_max, cudaStream_t stream) {
  if (rows < 0) return cudaErrorInvalidValue;
  const cudaError_t error = cudaMemsetAsync(device_max, 0, sizeof(int64_t), stream);
  if (error != cudaSuccess || rows == 0) return error;
  return launch(max_of_rows, stride_blocks(rows, kBlock, kMaxBlocks), kBlock, 0, stream, rowptr, rows, device_max);
}

template cudaError_t check_edges(const int32_t*, const int32_t*, int64_t, int64_t, int64_t, EdgeCheck*, cudaStream_t);
template cudaError_t check_edges(const int64_t*, const int64_t*, int64_t, int64_t, int64_t, EdgeCheck*, cudaStream_t);
template cudaError_t reversal_sum(const int32_t*, const int32_t*, int64_t, uint64_t*, cudaStream_t);
template cudaError_t reversal_sum(const int64_t*, const int64_t*, int64_t, uint64_t*, cudaStream_t);

}  // namespace gnna::cuda
