// Copies feature rows to the edges that read them: out[e] = x[index[e]], for elements of any type. A team of lanes
// copies several rows at once, so that their loads are in flight together. Accesses are 16 bytes, or 4 or 2 if the row
// size or the pointers require it. Stores are streaming, because the kernel does not read them again. Memory per edge:
// its id, one row read, one row written.
#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

namespace {

constexpr int kGatherBlock = 256;
// Rows that a team copies at once. 4 were 2 to 15 % faster than 1, and as fast as 2 or 8 (four graphs, rows of 4 to 512
// bytes, H200).
constexpr int kGatherRows = 4;

template <typename Unit, typename Id>
__global__ void __launch_bounds__(kGatherBlock, 1)
    gather(const Unit* x, const Id* index, int64_t edges, int64_t units, Unit* out, int lanes_log2) {
  const int lanes = 1 << lanes_log2, teams = kGatherBlock >> lanes_log2;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * teams * kGatherRows + (threadIdx.x >> lanes_log2);
  const Unit* from[kGatherRows];
#pragma unroll
  for (int i = 0; i < kGatherRows; ++i) {
    // Past the end, read the last row again, so that no branch separates the loads.
    const int64_t edge = first + i * teams < edges ? first + i * teams : edges - 1;
    from[i] = x + static_cast<int64_t>(__ldg(index + edge)) * units;
  }
  for (int64_t unit = threadIdx.x & (lanes - 1); unit < units; unit += lanes) {
    Unit row[kGatherRows];
#pragma unroll
    for (int i = 0; i < kGatherRows; ++i) row[i] = __ldg(from[i] + unit);
#pragma unroll
    for (int i = 0; i < kGatherRows; ++i) {
      const int64_t edge = first + i * teams;
      if (edge < edges) __stcs(out + edge * units + unit, row[i]);
    }
  }
}

template <typename Unit, typename Id>
cudaError_t launch_gather(const void* x, const Id* index, int64_t edges, int64_t row_bytes, void* out,
                          cudaStream_t stream) {
  const int64_t units = row_bytes / static_cast<int64_t>(sizeof(Unit));
  int lanes = 1;
  while (lanes < 32 && lanes < units) lanes *= 2;
  const int64_t blocks = ceil_div(edges, static_cast<int64_t>(kGatherBlock / lanes) * kGatherRows);
  return launch(gather<Unit, Id>, static_cast<unsigned>(blocks), kGatherBlock, 0, stream, static_cast<const Unit*>(x),
                index, edges, units, static_cast<Unit*>(out), log2_of(lanes));
}

}  // namespace

template <typename Id>
cudaError_t gather_rows(const void* x, const Id* index, int64_t edges, int64_t row_bytes, void* out,
                        cudaStream_t stream) {
  if (edges < 0 || edges > kMaxIndex || row_bytes < 0 || row_bytes % 2 != 0) return cudaErrorInvalidValue;
  if (edges == 0 || row_bytes == 0) return cudaSuccess;
  const auto fits = [&](int64_t unit) { return row_bytes % unit == 0 && is_aligned(x, unit) && is_aligned(out, unit); };
  if (fits(16)) return launch_gather<uint4>(x, index, edges, row_bytes, out, stream);
  if (fits(4)) return launch_gather<unsigned>(x, index, edges, row_bytes, out, stream);
  if (fits(2)) return launch_gather<unsigned short>(x, index, edges, row_bytes, out, stream);
  return cudaErrorInvalidValue;
}

template cudaError_t gather_rows(const void*, const int32_t*, int64_t, int64_t, void*, cudaStream_t);
template cudaError_t gather_rows(const void*, const int64_t*, int64_t, int64_t, void*, cudaStream_t);

}  // namespace gnna::cuda
