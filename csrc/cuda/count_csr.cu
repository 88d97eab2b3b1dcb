// COO to CSR with checks, for edge lists of moderate size: a counting sort in three launches. On a fresh mini-batch the
// launches of a radix sort, of the checks and of the copies between them would take longer than the layer itself.
//
// 1. count_rows checks the ids and counts the edges of each row. Its last block sums the counts up to rowptr and writes
//    the summary.
// 2. place_edges writes each edge to a free slot of its row, in any order.
// 3. order_rows ranks each edge among those of its row. The edges of a row are then in the user's order, so the result
//    does not depend on the order of step 2.
//
// Step 3 reads each row once per edge of the row. Lists with rows too long for that are left to build_csr.
#include <cstddef>

#include "gnna/cuda_api.h"
#include "gnna/edge_hash.h"
#include "gnna/launch.cuh"

namespace gnna::cuda {

namespace {

constexpr int kBlock = 512;
constexpr int64_t kMaxBlocks = 1024;
constexpr int kRowsPerThread = 16;                // that a thread sums up at a time
constexpr int64_t kMostReads = int64_t{1} << 28;  // of step 3: edges times the largest degree
constexpr int64_t kMostEdges = int64_t{1} << 19;  // above, a sort takes no longer
constexpr int64_t kMostRows = int64_t{1} << 18;   // summed up by one block

// The beginning of the workspace, zero before the first launch.
struct State {
  // edges - i for the first bad edge i; 0: none. The largest is that of the smallest position.
  unsigned long long bad_row, bad_col, reversal;
  unsigned unsorted, ticket, skip;
};

struct Workspace {
  State* state;
  int32_t* counts;  // [rows], zero before the first launch
  int32_t* free;    // [rows], likewise: edges that step 2 has placed
  int32_t* slots;   // [edges], position of the edge in each slot
};

constexpr size_t kStateBytes = (sizeof(State) + 15) / 16 * 16;

size_t zeroed_bytes(int64_t rows) { return kStateBytes + 2 * static_cast<size_t>(rows) * sizeof(int32_t); }

Workspace lay_out(void* memory, int64_t rows) {
  auto* const bytes = static_cast<unsigned char*>(memory);
  auto* const counts = reinterpret_cast<int32_t*>(bytes + kStateBytes);
  return {reinterpret_cast<State*>(bytes), counts, counts + rows, counts + 2 * rows};
}

__device__ __forceinline__ int64_t thread_index() { return static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; }

// Writes the exclusive sums of the counts to rowptr [rows + 1] and returns the largest count, all threads of one block.
__device__ int64_t sum_up(const volatile int32_t* counts, int64_t rows, int64_t* rowptr) {
  __shared__ int64_t sums[kBlock];
  __shared__ int32_t largest[kBlock];
  int64_t before = 0;
  int32_t most = 0;
  for (int64_t tile = 0; tile < rows; tile += static_cast<int64_t>(kBlock) * kRowsPerThread) {
    const int64_t first = tile + static_cast<int64_t>(threadIdx.x) * kRowsPerThread;
    int32_t mine[kRowsPerThread];
    int64_t sum = 0;
    for (int k = 0; k < kRowsPerThread; ++k) {
      mine[k] = first + k < rows ? counts[first + k] : 0;
      most = mine[k] > most ? mine[k] : most;
      sum += mine[k];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int distance = 1; distance < kBlock; distance *= 2) {  // inclusive sums over the threads
      const int64_t other = static_cast<int>(threadIdx.x) >= distance ? sums[threadIdx.x - distance] : 0;
      __syncthreads();
      sums[threadIdx.x] += other;
      __syncthreads();
    }
    int64_t next = before + sums[threadIdx.x] - sum;
    for (int k = 0; k < kRowsPerThread; ++k) {
      if (first + k < rows) rowptr[first + k] = next;
      next += mine[k];
    }
    before += sums[kBlock - 1];
    __syncthreads();
  }
  if (threadIdx.x == 0) rowptr[rows] = before;
  largest[threadIdx.x] = most;
  __syncthreads();
  for (int half = kBlock / 2; half > 0; half /= 2) {
    const auto t = static_cast<int>(threadIdx.x);
    if (t < half && largest[t + half] > largest[t]) largest[t] = largest[t + half];
    __syncthreads();
  }
  return largest[0];
}

template <typename Id>
__global__ void __launch_bounds__(kBlock)
    count_rows(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t cols, Workspace work, int64_t* rowptr,
               EdgeSummary* summary) {
  State* const state = work.state;
  unsigned long long bad_row = 0, bad_col = 0, reversal = 0;
  bool unsorted = false;
  for (int64_t i = thread_index(); i < edges; i += static_cast<int64_t>(gridDim.x) * kBlock) {
    const int64_t r = __ldg(row + i), c = __ldg(col + i);
    const bool good_row = r >= 0 && r < rows, good_col = c >= 0 && c < cols;
    if (!good_row && bad_row == 0) bad_row = edges - i;
    if (!good_col && bad_col == 0) bad_col = edges - i;
    if (good_row && good_col) reversal += hash_against_reverse(static_cast<uint64_t>(r), static_cast<uint64_t>(c));
    if (good_row) atomicAdd(work.counts + r, 1);
    unsorted |= i > 0 && static_cast<int64_t>(__ldg(row + i - 1)) > r;
  }
  if (bad_row != 0) atomicMax(&state->bad_row, bad_row);
  if (bad_col != 0) atomicMax(&state->bad_col, bad_col);
  __syncwarp();
  for (int offset = 16; offset > 0; offset /= 2) reversal += __shfl_xor_sync(0xffffffffu, reversal, offset);
  if ((threadIdx.x & 31) == 0 && reversal != 0) atomicAdd(&state->reversal, reversal);
  if (__any_sync(0xffffffffu, unsorted) && (threadIdx.x & 31) == 0) atomicMax(&state->unsorted, 1u);

  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = atomicAdd(&state->ticket, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  const int64_t max_degree = sum_up(work.counts, rows, rowptr);
  if (threadIdx.x != 0) return;
  const volatile State& found = *state;
  const auto position = [&](unsigned long long from_end) {
    return from_end == 0 ? int64_t{-1} : edges - static_cast<int64_t>(from_end);
  };
  const bool fits = max_degree * edges <= kMostReads || found.unsorted == 0;
  state->skip = found.bad_row != 0 || found.bad_col != 0 || !fits;
  *summary = {
      {position(found.bad_row), position(found.bad_col), found.unsorted}, max_degree, found.reversal == 0, fits};
}

template <typename Id>
__global__ void __launch_bounds__(kBlock)
    place_edges(const Id* row, int64_t edges, const int64_t* rowptr, Workspace work) {
  const int64_t i = thread_index();
  if (i >= edges || work.state->skip || work.state->unsorted == 0) return;
  const auto r = static_cast<int64_t>(__ldg(row + i));
  work.slots[rowptr[r] + atomicAdd(work.free + r, 1)] = static_cast<int32_t>(i);
}

template <typename Id>
__global__ void __launch_bounds__(kBlock) order_rows(const Id* row, const Id* col, int64_t edges, const int64_t* rowptr,
                                                     Workspace work, int32_t* out_col, int32_t* out_perm) {
  const int64_t i = thread_index();
  if (i >= edges || work.state->skip) return;
  if (work.state->unsorted == 0) {
    out_col[i] = static_cast<int32_t>(__ldg(col + i));
    out_perm[i] = static_cast<int32_t>(i);
    return;
  }
  const int32_t edge = work.slots[i];
  const auto r = static_cast<int64_t>(__ldg(row + edge));
  const int64_t begin = rowptr[r], end = rowptr[r + 1];
  int64_t place = begin;
  for (int64_t slot = begin; slot < end; ++slot) place += work.slots[slot] < edge;
  out_perm[place] = edge;
  out_col[place] = static_cast<int32_t>(__ldg(col + edge));
}

}  // namespace

bool can_count_csr(int64_t edges, int64_t rows) {
  return edges > 0 && edges <= kMostEdges && rows > 0 && rows <= kMostRows;
}

size_t count_csr_workspace(int64_t edges, int64_t rows) {
  return zeroed_bytes(rows) + static_cast<size_t>(edges) * sizeof(int32_t);
}

template <typename Id>
cudaError_t count_csr(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t cols, int64_t* rowptr,
                      int32_t* out_col, int32_t* out_perm, void* workspace, EdgeSummary* summary, cudaStream_t stream) {
  if (!can_count_csr(edges, rows) || cols < 0 || cols > kMaxIndex || !is_aligned(workspace, 16))
    return cudaErrorInvalidValue;
  const Workspace work = lay_out(workspace, rows);
  const auto blocks = static_cast<unsigned>(ceil_div(edges, kBlock));
  cudaError_t error = cudaMemsetAsync(workspace, 0, zeroed_bytes(rows), stream);
  if (error != cudaSuccess) return error;
  error = launch(count_rows<Id>, stride_blocks(edges, kBlock, kMaxBlocks), kBlock, 0, stream, row, col, edges, rows,
                 cols, work, rowptr, summary);
  if (error != cudaSuccess) return error;
  error = launch(place_edges<Id>, blocks, kBlock, 0, stream, row, edges, rowptr, work);
  if (error != cudaSuccess) return error;
  return launch(order_rows<Id>, blocks, kBlock, 0, stream, row, col, edges, rowptr, work, out_col, out_perm);
}

template cudaError_t count_csr(const int32_t*, const int32_t*, int64_t, int64_t, int64_t, int64_t*, int32_t*, int32_t*,
                               void*, EdgeSummary*, cudaStream_t);
template cudaError_t count_csr(const int64_t*, const int64_t*, int64_t, int64_t, int64_t, int64_t*, int32_t*, int32_t*,
                               void*, EdgeSummary*, cudaStream_t);

}  // namespace gnna::cuda
