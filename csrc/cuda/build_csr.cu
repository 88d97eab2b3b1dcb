// COO to CSR on the device. If the row ids already ascend, only the row boundaries are searched. Otherwise a stable
// radix sort of (row, position) over the bits that row ids use gives the permutation, and columns are gathered through
// it.
#include <cub/device/device_radix_sort.cuh>

#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"

namespace gnna::cuda {

namespace {

constexpr int kBlock = 256;
constexpr size_t kAlign = 256;  // alignment of every buffer inside the workspace

size_t align_up(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

unsigned blocks_for(int64_t n) { return static_cast<unsigned>(ceil_div(n, kBlock)); }

__device__ __forceinline__ int64_t thread_index() { return static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; }

// rowptr[r] = position of the first row id that is not below r. Each row runs a binary search, instead of each edge
// writing boundaries, because a search reads little and a long run of empty rows (at the end of a mini-batch, for
// example) costs no thread more than any other row.
template <typename Id>
__global__ void __launch_bounds__(kBlock)
    row_bounds(const Id* sorted_row, int64_t edges, int64_t rows, int64_t* rowptr) {
  const int64_t r = thread_index();
  if (r > rows) return;
  int64_t low = 0, high = edges;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (static_cast<int64_t>(__ldg(sorted_row + middle)) < r) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  rowptr[r] = low;
}

template <typename Id>
__global__ void __launch_bounds__(kBlock) narrow_columns(const Id* col, int64_t edges, int32_t* out) {
  const int64_t i = thread_index();
  if (i < edges) out[i] = static_cast<int32_t>(__ldg(col + i));
}

template <typename Id>
__global__ void __launch_bounds__(kBlock) sort_input(const Id* row, int64_t edges, uint32_t* key, int32_t* position) {
  const int64_t i = thread_index();
  if (i >= edges) return;
  key[i] = static_cast<uint32_t>(__ldg(row + i));
  position[i] = static_cast<int32_t>(i);
}

// `sorted` and `perm` may be the same array, because each thread reads its element before it writes it.
template <typename Id>
__global__ void __launch_bounds__(kBlock)
    gather_columns(const Id* col, const int32_t* sorted, int64_t edges, int32_t* perm, int32_t* out) {
  const int64_t i = thread_index();
  if (i >= edges) return;
  const int32_t from = sorted[i];
  perm[i] = from;
  out[i] = static_cast<int32_t>(__ldg(col + from));
}

int key_bits(int64_t rows) {
  int bits = 1;
  while (bits < 31 && (rows - 1) >> bits != 0) ++bits;
  return bits;
}

cudaError_t sort_pairs(void* temporary, size_t& bytes, cub::DoubleBuffer<uint32_t>& keys,
                       cub::DoubleBuffer<int32_t>& positions, int64_t edges, int64_t rows, cudaStream_t stream) {
  return cub::DeviceRadixSort::SortPairs(temporary, bytes, keys, positions, static_cast<int>(edges), 0, key_bits(rows),
                                         stream);
}

struct Layout {
  size_t buffer = 0;     // bytes of one array of `edges` elements
  size_t temporary = 0;  // bytes of temporary storage for the sort
  size_t total() const { return 3 * buffer + align_up(temporary); }
};

// The workspace holds two key arrays, one position array and the temporary storage of the sort. out_perm serves as the
// second position array.
cudaError_t layout_for(int64_t edges, int64_t rows, Layout* layout) {
  layout->buffer = align_up(static_cast<size_t>(edges) * sizeof(int32_t));
  cub::DoubleBuffer<uint32_t> keys;
  cub::DoubleBuffer<int32_t> positions;
  return sort_pairs(nullptr, layout->temporary, keys, positions, edges, rows, nullptr);
}

bool in_range(int64_t edges, int64_t rows) { return edges >= 0 && edges <= kMaxIndex && rows >= 0 && rows < kMaxIndex; }

}  // namespace

template <typename Id>
size_t build_csr_workspace(int64_t edges, int64_t rows, bool sorted) {
  if (sorted || !in_range(edges, rows) || edges == 0) return 0;
  Layout layout;
  // An error of this query is returned by build_csr, which repeats the query.
  return layout_for(edges, rows, &layout) == cudaSuccess ? layout.total() : 0;
}

template <typename Id>
cudaError_t build_csr(const Id* row, const Id* col, int64_t edges, int64_t rows, bool sorted, int64_t* rowptr,
                      int32_t* out_col, int32_t* out_perm, void* workspace, size_t workspace_bytes,
                      cudaStream_t stream) {
  if (!in_range(edges, rows)) return cudaErrorInvalidValue;
  if (edges == 0) return cudaMemsetAsync(rowptr, 0, static_cast<size_t>(rows + 1) * sizeof(int64_t), stream);
  cudaError_t error = cudaSuccess;
  if (sorted) {
    error = launch(row_bounds<Id>, blocks_for(rows + 1), kBlock, 0, stream, row, edges, rows, rowptr);
    if (error != cudaSuccess) return error;
    return launch(narrow_columns<Id>, blocks_for(edges), kBlock, 0, stream, col, edges, out_col);
  }

  Layout layout;
  if ((error = layout_for(edges, rows, &layout)) != cudaSuccess) return error;
  if (workspace == nullptr || workspace_bytes < layout.total() || !is_aligned(workspace, kAlign) ||
      out_perm == nullptr) {
    return cudaErrorInvalidValue;
  }
  auto* bytes = static_cast<unsigned char*>(workspace);
  cub::DoubleBuffer<uint32_t> keys(reinterpret_cast<uint32_t*>(bytes),
                                   reinterpret_cast<uint32_t*>(bytes + layout.buffer));
  cub::DoubleBuffer<int32_t> positions(reinterpret_cast<int32_t*>(bytes + 2 * layout.buffer), out_perm);
  error = launch(sort_input<Id>, blocks_for(edges), kBlock, 0, stream, row, edges, keys.Current(), positions.Current());
  if (error != cudaSuccess) return error;
  error = sort_pairs(bytes + 3 * layout.buffer, layout.temporary, keys, positions, edges, rows, stream);
  if (error != cudaSuccess) return error;
  error = launch(gather_columns<Id>, blocks_for(edges), kBlock, 0, stream, col, positions.Current(), edges, out_perm,
                 out_col);
  if (error != cudaSuccess) return error;
  return launch(row_bounds<uint32_t>, blocks_for(rows + 1), kBlock, 0, stream, keys.Current(), edges, rows, rowptr);
}

template size_t build_csr_workspace<int32_t>(int64_t, int64_t, bool);
template size_t build_csr_workspace<int64_t>(int64_t, int64_t, bool);
template cudaError_t build_csr(const int32_t*, const int32_t*, int64_t, int64_t, bool, int64_t*, int32_t*, int32_t*,
                               void*, size_t, cudaStream_t);
template cudaError_t build_csr(const int64_t*, const int64_t*, int64_t, int64_t, bool, int64_t*, int32_t*, int32_t*,
                               void*, size_t, cudaStream_t);

}  // namespace gnna::cuda
