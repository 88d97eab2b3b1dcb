// Stores a plan's neighbour lists in another order of the rows: the degrees in that order, a scan that gives each row
// its start, and a copy by one warp per row. Memory per edge: col and perm are read and written once, 4 bytes each.
#include <cub/device/device_scan.cuh>

#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

namespace {

constexpr int kBlock = 256;

// Writes one more element than there are rows, so that the scan's last element is the number of edges.
__global__ void __launch_bounds__(kBlock)
    degrees_in_order(const int64_t* rowptr, const int32_t* places, int64_t rows, int64_t* degrees) {
  const int64_t place = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (place > rows) return;
  int64_t degree = 0;
  if (place < rows) {
    const int64_t row = __ldg(places + place);
    degree = __ldg(rowptr + row + 1) - __ldg(rowptr + row);
  }
  degrees[place] = degree;
}

__global__ void __launch_bounds__(kBlock) copy_lists(const __grid_constant__ CsrView csr, const int32_t* places,
                                                     const int64_t* rowptr, int32_t* col, int32_t* perm) {
  const int64_t place = static_cast<int64_t>(blockIdx.x) * (kBlock / 32) + (threadIdx.x >> 5);
  if (place >= csr.rows) return;
  const int64_t from = __ldg(csr.rowptr + __ldg(places + place));
  const int64_t to = rowptr[place], degree = rowptr[place + 1] - to;
  for (int64_t k = threadIdx.x & 31; k < degree; k += 32) {
    col[to + k] = __ldg(csr.col + from + k);
    perm[to + k] = csr.perm != nullptr ? __ldg(csr.perm + from + k) : static_cast<int32_t>(from + k);
  }
}

cudaError_t scan(void* temporary, size_t& bytes, int64_t* values, int64_t rows, cudaStream_t stream) {
  return cub::DeviceScan::ExclusiveSum(temporary, bytes, values, values, static_cast<int>(rows + 1), stream);
}

bool in_range(int64_t rows) { return rows >= 0 && rows < kMaxIndex; }

}  // namespace

cudaError_t schedule_csr(const CsrView& csr, const int32_t* places, int64_t* rowptr, int32_t* col, int32_t* perm,
                         void* scan_workspace, size_t scan_bytes, cudaStream_t stream) {
  if (!in_range(csr.rows) || csr.edges < 0 || csr.edges > kMaxIndex) {
    return cudaErrorInvalidValue;
  }
  if (csr.rows == 0) return cudaMemsetAsync(rowptr, 0, sizeof(int64_t), stream);
  size_t needed = 0;
  cudaError_t error = scan(nullptr, needed, rowptr, csr.rows, stream);
  if (error != cudaSuccess) return error;
  if (scan_workspace == nullptr || scan_bytes < needed) return cudaErrorInvalidValue;
  const auto blocks = static_cast<unsigned>(ceil_div(csr.rows + 1, kBlock));
  error = launch(degrees_in_order, blocks, kBlock, 0, stream, csr.rowptr, places, csr.rows, rowptr);
  if (error != cudaSuccess) return error;
  if ((error = scan(scan_workspace, scan_bytes, rowptr, csr.rows, stream)) != cudaSuccess) return error;
  const auto copies = static_cast<unsigned>(ceil_div(csr.rows, kBlock / 32));
  return launch(copy_lists, copies, kBlock, 0, stream, csr, places, rowptr, col, perm);
}

}  // namespace gnna::cuda
