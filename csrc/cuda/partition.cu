// Builds partitions: the chunks of split rows and the neighbour groups of all other rows. Each list is built in three
// steps: a count per row, a scan of the counts, and the list itself. The chunks of a row differ by at most one edge. A
// row's chunks and groups depend only on its degree and on the limits, not on other rows.
#include <cub/device/device_scan.cuh>

#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"

namespace gnna::cuda {

namespace {

constexpr int kBlock = 256;

__device__ __forceinline__ int64_t thread_index() { return static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; }

struct ChunksOf {
  int64_t threshold, chunk_edges;
  __device__ __forceinline__ int64_t operator()(int64_t degree) const {
    return degree > threshold ? (degree + chunk_edges - 1) / chunk_edges : 0;
  }
};

struct GroupsOf {
  int64_t group_size, split_above;
  __device__ __forceinline__ int64_t operator()(int64_t degree) const {
    return degree > split_above || degree == 0 ? 1 : (degree + group_size - 1) / group_size;
  }
};

// Writes one more element than there are rows, so that the scan's last element is the total.
template <typename CountOf>
__global__ void __launch_bounds__(kBlock)
    count_pieces(const int64_t* rowptr, int64_t rows, CountOf count_of, int64_t* count) {
  const int64_t r = thread_index();
  if (r > rows) return;
  count[r] = r < rows ? count_of(__ldg(rowptr + r + 1) - __ldg(rowptr + r)) : 0;
}

__global__ void __launch_bounds__(kBlock)
    write_chunks(const int64_t* rowptr, int64_t rows, ChunksOf chunks_of, const int64_t* first, RowChunk* chunks) {
  const int64_t r = thread_index();
  if (r >= rows) return;
  const int64_t begin = __ldg(rowptr + r), end = __ldg(rowptr + r + 1);
  const int64_t chunk_count = chunks_of(end - begin);
  if (chunk_count == 0) return;
  const int64_t degree = end - begin, start = __ldg(first + r);
  for (int64_t index = 0; index < chunk_count; ++index) {
    RowChunk chunk;
    chunk.begin = begin + degree * index / chunk_count;
    chunk.end = begin + degree * (index + 1) / chunk_count;
    chunk.row = static_cast<int32_t>(r);
    chunk.index = static_cast<int32_t>(index);
    chunk.count = static_cast<int32_t>(chunk_count);
    chunk.first = static_cast<int32_t>(start);
    chunks[start + index] = chunk;
  }
}

__global__ void __launch_bounds__(kBlock) write_groups(const int64_t* first, int64_t rows, int32_t* row) {
  const int64_t r = thread_index();
  if (r >= rows) return;
  const int64_t end = __ldg(first + r + 1);
  for (int64_t group = __ldg(first + r); group < end; ++group) row[group] = static_cast<int32_t>(r);
}

cudaError_t scan(void* temporary, size_t& bytes, int64_t* values, int64_t rows, cudaStream_t stream) {
  return cub::DeviceScan::ExclusiveSum(temporary, bytes, values, values, static_cast<int>(rows + 1), stream);
}

bool in_range(int64_t rows) { return rows >= 0 && rows < kMaxIndex; }

// Writes first [rows + 1]: first[r] is the sum of the counts of all rows before r.
template <typename CountOf>
cudaError_t count_and_scan(const int64_t* rowptr, int64_t rows, CountOf count_of, int64_t* first, void* scan_workspace,
                           size_t scan_bytes, cudaStream_t stream) {
  size_t needed = 0;
  cudaError_t error = scan(nullptr, needed, first, rows, stream);
  if (error != cudaSuccess) return error;
  if (scan_workspace == nullptr || scan_bytes < needed) return cudaErrorInvalidValue;
  const unsigned blocks = static_cast<unsigned>(ceil_div(rows + 1, kBlock));
  error = launch(count_pieces<CountOf>, blocks, kBlock, 0, stream, rowptr, rows, count_of, first);
  return error != cudaSuccess ? error : scan(scan_workspace, needed, first, rows, stream);
}

}  // namespace

size_t partition_scan_bytes(int64_t rows) {
  size_t bytes = 0;
  // An error of this query is returned by count_and_scan, which repeats the query.
  if (rows < 0 || rows >= kMaxIndex || scan(nullptr, bytes, nullptr, rows, nullptr) != cudaSuccess) return 0;
  return bytes;
}

cudaError_t count_chunks(const int64_t* rowptr, int64_t rows, int64_t threshold, int64_t chunk_edges, int64_t* first,
                         void* scan_workspace, size_t scan_bytes, cudaStream_t stream) {
  if (!in_range(rows) || threshold < 0 || chunk_edges < 1) return cudaErrorInvalidValue;
  return count_and_scan(rowptr, rows, ChunksOf{threshold, chunk_edges}, first, scan_workspace, scan_bytes, stream);
}

cudaError_t list_chunks(const int64_t* rowptr, int64_t rows, int64_t threshold, int64_t chunk_edges,
                        const int64_t* first, RowChunk* chunks, cudaStream_t stream) {
  if (!in_range(rows) || threshold < 0 || chunk_edges < 1) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  const unsigned blocks = static_cast<unsigned>(ceil_div(rows, kBlock));
  return launch(write_chunks, blocks, kBlock, 0, stream, rowptr, rows, ChunksOf{threshold, chunk_edges}, first, chunks);
}

cudaError_t count_groups(const int64_t* rowptr, int64_t rows, int64_t group_size, int64_t split_above, int64_t* first,
                         void* scan_workspace, size_t scan_bytes, cudaStream_t stream) {
  if (!in_range(rows) || group_size < 1 || split_above < 0) return cudaErrorInvalidValue;
  return count_and_scan(rowptr, rows, GroupsOf{group_size, split_above}, first, scan_workspace, scan_bytes, stream);
}

cudaError_t list_groups(const int64_t* first, int64_t rows, int32_t* row, cudaStream_t stream) {
  if (!in_range(rows)) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  const unsigned blocks = static_cast<unsigned>(ceil_div(rows, kBlock));
  return launch(write_groups, blocks, kBlock, 0, stream, first, rows, row);
}

}  // namespace gnna::cuda
