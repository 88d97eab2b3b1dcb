// Max and min with the edge that won, by DGL's rules: a row starts at -inf (+inf for min) and only a strictly better
// message wins, so NaN never does, and of equals the first edge of the row. A warp per row, or the block's four warps
// together where a row is long: `lanes` threads take one column each, the other lanes take other edges, and they
// meet by shuffles. Per edge: the column id, its weight if there is one, and one row of x.
#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

namespace {

constexpr int kArgBlock = 128, kArgWarps = kArgBlock / 32;
constexpr int64_t kArgLongRow = 256;  // an estimate

// Candidate of one column: the message in what the kernel computes in, and its slot, -1 for the start value.
template <typename C>
struct Best {
  C value;
  int32_t slot;
};

template <bool kMax, typename C>
struct Contest {
  static __device__ __forceinline__ Best<C> start() { return {static_cast<C>(kMax ? -INFINITY : INFINITY), -1}; }

  static __device__ __forceinline__ bool beats(C a, C b) { return kMax ? a > b : a < b; }

  // The earlier slot of equals. Two that both are the start value have no slot, since nothing equal to it ever won.
  static __device__ __forceinline__ void combine(Best<C>& a, Best<C> b) {
    if (beats(b.value, a.value) || (b.value == a.value && b.slot < a.slot)) a = b;
  }

  static __device__ __forceinline__ void combine_groups(Best<C>& a, int lanes) {
    __syncwarp();
    for (int offset = lanes; offset < 32; offset *= 2) {
      const C value = __shfl_xor_sync(kFullWarp, a.value, offset);
      combine(a, {value, __shfl_xor_sync(kFullWarp, a.slot, offset)});
    }
  }
};

// Slots k, k + stride, ... below end, for one column; they ascend, so that a strict comparison keeps the first.
template <bool kMax, typename T>
__device__ __forceinline__ Best<Compute<T>> search(const SpmmArgs<T>& args, int64_t k, int64_t end, int64_t stride,
                                                   int64_t column) {
  using C = Compute<T>;
  Best<C> best = Contest<kMax, C>::start();
  const int64_t head = args.weight != nullptr ? column / args.head_dim : 0;
#pragma unroll 4
  for (; k < end; k += stride) {
    C message = widen(load_one(args.x + __ldg(args.csr.col + k) * args.x_stride + column));
    if (args.weight != nullptr) {
      const int64_t at = args.weight_index != nullptr ? __ldg(args.weight_index + k) : k;
      message = product(widen(load_one(args.weight + at * args.heads + head)), message);
    }
    if (Contest<kMax, C>::beats(message, best.value)) best = {message, static_cast<int32_t>(k)};
  }
  return best;
}

template <typename T>
__device__ __forceinline__ void store_best(const SpmmArgs<T>& args, int32_t* arg, int64_t at, Best<Compute<T>> best) {
  args.out[at] = narrow<T>(best.value);
  arg[at] = best.slot >= 0 && args.csr.perm != nullptr ? __ldg(args.csr.perm + best.slot) : best.slot;
}

template <typename T, bool kMax>
__global__ void __launch_bounds__(kArgBlock, 1)
    arg_rows(const __grid_constant__ SpmmArgs<T> args, int32_t* arg, int lanes_log2) {
  using C = Compute<T>;
  using Rules = Contest<kMax, C>;
  __shared__ C value_of[kArgWarps][32];
  __shared__ int32_t slot_of[kArgWarps][32];
  const int lanes = 1 << lanes_log2;
  const int lane = threadIdx.x & (lanes - 1);
  const int warp = threadIdx.x >> 5;
  const int group = (threadIdx.x & 31) >> lanes_log2;
  const int groups = 32 >> lanes_log2;
  const int64_t width = args.heads * args.head_dim;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kArgWarps;

  const int64_t own = first_row + warp;
  if (own < args.csr.rows) {  // the same for the whole warp, as is the length
    const int64_t begin = __ldg(args.csr.rowptr + own), end = __ldg(args.csr.rowptr + own + 1);
    for (int64_t tile = 0; tile < width && end - begin <= kArgLongRow; tile += lanes) {
      const int64_t c = tile + lane;
      Best<C> best = Rules::start();
      if (c < width) best = search<kMax>(args, begin + group, end, groups, c);
      Rules::combine_groups(best, lanes);
      if (c < width && group == 0) store_best(args, arg, own * width + c, best);
    }
  }

  for (int64_t row = first_row; row < first_row + kArgWarps && row < args.csr.rows; ++row) {
    const int64_t begin = __ldg(args.csr.rowptr + row), end = __ldg(args.csr.rowptr + row + 1);
    if (end - begin <= kArgLongRow) continue;  // the same for the whole block
    for (int64_t tile = 0; tile < width; tile += lanes) {
      const int64_t c = tile + lane;
      Best<C> best = Rules::start();
      if (c < width) best = search<kMax>(args, begin + warp * groups + group, end, kArgWarps * groups, c);
      Rules::combine_groups(best, lanes);
      if (group == 0) {
        value_of[warp][lane] = best.value;
        slot_of[warp][lane] = best.slot;
      }
      __syncthreads();
      if (warp == 0 && group == 0) {
        for (int other = 1; other < kArgWarps; ++other) {
          Rules::combine(best, {value_of[other][lane], slot_of[other][lane]});
        }
        if (c < width) store_best(args, arg, row * width + c, best);
      }
      __syncthreads();  // before the next tile overwrites what warp 0 reads
    }
  }
}

}  // namespace

template <typename T>
cudaError_t spmm_arg(const SpmmArgs<T>& args, int32_t* arg, cudaStream_t stream) {
  const CsrView& csr = args.csr;
  const int64_t width = args.heads * args.head_dim;
  if (csr.rows < 0 || csr.rows > kMaxIndex || csr.edges < 0 || csr.edges > kMaxIndex || args.heads < 0 ||
      args.head_dim < 0 || (args.reduce != Reduce::Max && args.reduce != Reduce::Min)) {
    return cudaErrorInvalidValue;
  }
  if (csr.rows == 0 || width == 0) return cudaSuccess;
  int lanes_log2 = 0;
  while (lanes_log2 < 5 && int64_t{1} << lanes_log2 < width) ++lanes_log2;
  const auto blocks = static_cast<unsigned>(ceil_div(csr.rows, kArgWarps));
  const auto kernel = args.reduce == Reduce::Max ? arg_rows<T, true> : arg_rows<T, false>;
  return launch(kernel, blocks, kArgBlock, 0, stream, args, arg, lanes_log2);
}

template cudaError_t spmm_arg(const SpmmArgs<float>&, int32_t*, cudaStream_t);
template cudaError_t spmm_arg(const SpmmArgs<double>&, int32_t*, cudaStream_t);
template cudaError_t spmm_arg(const SpmmArgs<Float16>&, int32_t*, cudaStream_t);
template cudaError_t spmm_arg(const SpmmArgs<BFloat16>&, int32_t*, cudaStream_t);

}  // namespace gnna::cuda
