// How rows are dealt out: the items into which long rows are cut, and the neighbour groups of the others. Each is a
// count per row, a scan that gives each row its place, then the list. An item's row has parts of equal size, to within
// one; what becomes of a row depends on its degree and the limits only.
#include <cub/device/device_scan.cuh>

#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"

namespace gnna::cuda {

namespace {

constexpr int kBlock = 256;

__device__ __forceinline__ int64_t thread_index() { return static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; }

struct ItemsOf {
  int64_t threshold, item_edges;
  __device__ __forceinline__ int64_t operator()(int64_t degree) const {
    return degree > threshold ? (degree + item_edges - 1) / item_edges : 0;
  }
};

struct GroupsOf {
  int64_t ngs, long_row;
  __device__ __forceinline__ int64_t operator()(int64_t degree) const {
    return degree > long_row || degree == 0 ? 1 : (degree + ngs - 1) / ngs;
  }
};

// One element more than there are rows, so that the scan's last element is the total.
template <typename PartsOf>
__global__ void __launch_bounds__(kBlock)
    count_parts(const int64_t* rowptr, int64_t rows, PartsOf parts_of, int64_t* parts) {
  const int64_t r = thread_index();
  if (r > rows) return;
  parts[r] = r < rows ? parts_of(__ldg(rowptr + r + 1) - __ldg(rowptr + r)) : 0;
}

__global__ void __launch_bounds__(kBlock)
    write_items(const int64_t* rowptr, int64_t rows, ItemsOf items_of, const int64_t* first, LongItem* items) {
  const int64_t r = thread_index();
  if (r >= rows) return;
  const int64_t begin = __ldg(rowptr + r), end = __ldg(rowptr + r + 1);
  const int64_t parts = items_of(end - begin);
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

// first [rows + 1]: the parts of all rows before each.
template <typename PartsOf>
cudaError_t count_and_scan(const int64_t* rowptr, int64_t rows, PartsOf parts_of, int64_t* first, void* scan_workspace,
                           size_t scan_bytes, cudaStream_t stream) {
  size_t needed = 0;
  cudaError_t error = scan(nullptr, needed, first, rows, stream);
  if (error != cudaSuccess) return error;
  if (scan_workspace == nullptr || scan_bytes < needed) return cudaErrorInvalidValue;
  const unsigned blocks = static_cast<unsigned>(ceil_div(rows + 1, kBlock));
  error = launch(count_parts<PartsOf>, blocks, kBlock, 0, stream, rowptr, rows, parts_of, first);
  return error != cudaSuccess ? error : scan(scan_workspace, needed, first, rows, stream);
}

}  // namespace

size_t partition_scan_bytes(int64_t rows) {
  size_t bytes = 0;
  // A failing query shows again in the count, which asks the same and can return it.
  if (rows < 0 || rows >= kMaxIndex || scan(nullptr, bytes, nullptr, rows, nullptr) != cudaSuccess) return 0;
  return bytes;
}

cudaError_t count_items(const int64_t* rowptr, int64_t rows, int64_t threshold, int64_t item_edges, int64_t* first,
                        void* scan_workspace, size_t scan_bytes, cudaStream_t stream) {
  if (!in_range(rows) || threshold < 0 || item_edges < 1) return cudaErrorInvalidValue;
  return count_and_scan(rowptr, rows, ItemsOf{threshold, item_edges}, first, scan_workspace, scan_bytes, stream);
}

cudaError_t list_items(const int64_t* rowptr, int64_t rows, int64_t threshold, int64_t item_edges, const int64_t* first,
                       LongItem* items, cudaStream_t stream) {
  if (!in_range(rows) || threshold < 0 || item_edges < 1) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  const unsigned blocks = static_cast<unsigned>(ceil_div(rows, kBlock));
  return launch(write_items, blocks, kBlock, 0, stream, rowptr, rows, ItemsOf{threshold, item_edges}, first, items);
}

cudaError_t count_groups(const int64_t* rowptr, int64_t rows, int64_t ngs, int64_t long_row, int64_t* first,
                         void* scan_workspace, size_t scan_bytes, cudaStream_t stream) {
  if (!in_range(rows) || ngs < 1 || long_row < 0) return cudaErrorInvalidValue;
  return count_and_scan(rowptr, rows, GroupsOf{ngs, long_row}, first, scan_workspace, scan_bytes, stream);
}

cudaError_t list_groups(const int64_t* first, int64_t rows, int32_t* row, cudaStream_t stream) {
  if (!in_range(rows)) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  const unsigned blocks = static_cast<unsigned>(ceil_div(rows, kBlock));
  return launch(write_groups, blocks, kBlock, 0, stream, first, rows, row);
}

}  // namespace gnna::cuda
