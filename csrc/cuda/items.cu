// The list of items into which long rows are cut: a count per row, a scan that gives each row its place, then the list.
// A row's parts are of equal size, to within one, and depend on its degree and the two limits only.
#include <cub/device/device_scan.cuh>

#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"

namespace gnna::cuda {

namespace {

constexpr int kBlock = 256;

__device__ __forceinline__ int64_t thread_index() { return static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; }

__device__ __forceinline__ int64_t parts_of(int64_t degree, int64_t threshold, int64_t item_edges) {
  return degree > threshold ? (degree + item_edges - 1) / item_edges : 0;
}

// One element more than there are rows, so that the scan's last element is the total.
__global__ void __launch_bounds__(kBlock)
    count_parts(const int64_t* rowptr, int64_t rows, int64_t threshold, int64_t item_edges, int64_t* parts) {
  const int64_t r = thread_index();
  if (r > rows) return;
  parts[r] = r < rows ? parts_of(__ldg(rowptr + r + 1) - __ldg(rowptr + r), threshold, item_edges) : 0;
}

__global__ void __launch_bounds__(kBlock) write_items(const int64_t* rowptr, int64_t rows, int64_t threshold,
                                                      int64_t item_edges, const int64_t* first, LongItem* items) {
  const int64_t r = thread_index();
  if (r >= rows) return;
  const int64_t begin = __ldg(rowptr + r), end = __ldg(rowptr + r + 1);
  const int64_t parts = parts_of(end - begin, threshold, item_edges);
  if (parts == 0) return;
  const int64_t degree = end - begin, start = __ldg(first + r);
  for (int64_t part = 0; part < parts; ++part) {
    LongItem item;
    item.begin = begin + degree * part / parts;
    item.end = begin + degree * (part + 1) / parts;
    item.row = static_cast<int32_t>(r);
    item.part = static_cast<int32_t>(part);
    item.parts = static_cast<int32_t>(parts);
    item.first = static_cast<int32_t>(start);
    items[start + part] = item;
  }
}

cudaError_t scan(void* temporary, size_t& bytes, int64_t* values, int64_t rows, cudaStream_t stream) {
  return cub::DeviceScan::ExclusiveSum(temporary, bytes, values, values, static_cast<int>(rows + 1), stream);
}

bool in_range(int64_t rows, int64_t threshold, int64_t item_edges) {
  return rows >= 0 && rows < kMaxIndex && threshold >= 0 && item_edges >= 1;
}

}  // namespace

size_t count_items_scan_bytes(int64_t rows) {
  size_t bytes = 0;
  // A failing query shows again in count_items, which asks the same and can return it.
  if (rows < 0 || rows >= kMaxIndex || scan(nullptr, bytes, nullptr, rows, nullptr) != cudaSuccess) return 0;
  return bytes;
}

cudaError_t count_items(const int64_t* rowptr, int64_t rows, int64_t threshold, int64_t item_edges, int64_t* workspace,
                        int64_t* device_count, void* scan_workspace, size_t scan_bytes, cudaStream_t stream) {
  if (!in_range(rows, threshold, item_edges)) return cudaErrorInvalidValue;
  if (rows == 0) return cudaMemsetAsync(device_count, 0, sizeof(int64_t), stream);
  size_t needed = 0;
  cudaError_t error = scan(nullptr, needed, workspace, rows, stream);
  if (error != cudaSuccess) return error;
  if (scan_workspace == nullptr || scan_bytes < needed) return cudaErrorInvalidValue;
  const unsigned blocks = static_cast<unsigned>(ceil_div(rows + 1, kBlock));
  error = launch(count_parts, blocks, kBlock, 0, stream, rowptr, rows, threshold, item_edges, workspace);
  if (error != cudaSuccess) return error;
  if ((error = scan(scan_workspace, scan_bytes, workspace, rows, stream)) != cudaSuccess) return error;
  return cudaMemcpyAsync(device_count, workspace + rows, sizeof(int64_t), cudaMemcpyDeviceToDevice, stream);
}

cudaError_t list_items(const int64_t* rowptr, int64_t rows, int64_t threshold, int64_t item_edges,
                       const int64_t* workspace, LongItem* items, cudaStream_t stream) {
  if (!in_range(rows, threshold, item_edges)) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  const unsigned blocks = static_cast<unsigned>(ceil_div(rows, kBlock));
  return launch(write_items, blocks, kBlock, 0, stream, rowptr, rows, threshold, item_edges, workspace, items);
}

}  // namespace gnna::cuda
