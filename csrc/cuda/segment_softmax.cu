// Softmax over the edges of a row, and its gradient, without atomics. A team of lanes owns a row: `heads` lanes (a
// power of two) take one head each, the team's other lanes other edges, and they meet by shuffles; a row that is long
// is shared by the block. Forward, the maximum and the sum of exponentials come from one pass over the row's scores,
// and a second pass writes. Per edge and pass: its place in the user's list and one score, or one each of out and grad.
#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

namespace {

constexpr int kSoftmaxBlock = 128, kSoftmaxWarps = kSoftmaxBlock / 32;
constexpr int64_t kSoftmaxLongRow = 512;  // edges, an estimate

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

// What lies in the user's order: the first head of the slot's edge.
__device__ __forceinline__ int64_t scores_at(const CsrView& csr, int64_t slot, int64_t heads) {
  return (csr.perm != nullptr ? __ldg(csr.perm + slot) : slot) * heads;
}

// The largest score so far and the sum of exp(score - most): of some edges of a row, and one head.
template <typename T>
struct SoftmaxTotal {
  using C = Compute<T>;
  C most, sum;

  static __device__ __forceinline__ SoftmaxTotal start() { return {static_cast<C>(-INFINITY), C(0)}; }

  // By what a sum relative to `most` is multiplied when `next` takes its place. Equals need no exponential, which would
  // make NaN of minus infinity; of infinity it should.
  static __device__ __forceinline__ C rescale(C most, C next) {
    return most == next && most != static_cast<C>(INFINITY) ? C(1) : exponential(most - next);
  }

  __device__ __forceinline__ void add(SoftmaxTotal other) {
    const C larger = other.most > most ? other.most : most;
    sum = sum * rescale(most, larger) + other.sum * rescale(other.most, larger);
    most = larger;
  }

  // A NaN never becomes `most`, but stays in the sum.
  __device__ __forceinline__ void add_edge(const SegmentSoftmaxArgs<T>& args, int64_t at) {
    const C score = widen(load_one(args.scores + at));
    if (score > most) {
      sum = sum * rescale(most, score) + rescale(score, score);
      most = score;
    } else {
      sum += rescale(score, most);
    }
  }

  __device__ __forceinline__ void write(const SegmentSoftmaxArgs<T>& args, int64_t at) const {
    args.out[at] = narrow<T>(exponential(widen(load_one(args.scores + at)) - most) / sum);
  }

  __device__ __forceinline__ SoftmaxTotal from_lane(int offset) const {
    return {__shfl_xor_sync(kFullWarp, most, offset), __shfl_xor_sync(kFullWarp, sum, offset)};
  }
};

// The sum of out * grad.
template <typename T>
struct GradientTotal {
  using C = Compute<T>;
  C sum;

  static __device__ __forceinline__ GradientTotal start() { return {C(0)}; }

  __device__ __forceinline__ void add(GradientTotal other) { sum += other.sum; }

  __device__ __forceinline__ void add_edge(const SegmentSoftmaxBackwardArgs<T>& args, int64_t at) {
    sum = fma(widen(load_one(args.out + at)), widen(load_one(args.grad + at)), sum);
  }

  __device__ __forceinline__ void write(const SegmentSoftmaxBackwardArgs<T>& args, int64_t at) const {
    args.grad_scores[at] = narrow<T>(widen(load_one(args.out + at)) * (widen(load_one(args.grad + at)) - sum));
  }

  __device__ __forceinline__ GradientTotal from_lane(int offset) const {
    return {__shfl_xor_sync(kFullWarp, sum, offset)};
  }
};

// Lanes of one team that hold the same head, 2^heads_log2 apart, all get the total of all; the whole warp takes part.
template <typename Total>
__device__ __forceinline__ void combine_lanes(Total& total, int heads_log2, int team_log2) {
  __syncwarp();
  for (int offset = 1 << heads_log2; offset < 1 << team_log2; offset *= 2) total.add(total.from_lane(offset));
}

template <typename Total, typename Args>
__global__ void __launch_bounds__(kSoftmaxBlock, 1)
    softmax_rows(const __grid_constant__ Args args, int heads_log2, int team_log2) {
  __shared__ Total of_warp[kSoftmaxWarps][32];
  const CsrView& csr = args.csr;
  const int head_lane = threadIdx.x & ((1 << heads_log2) - 1);
  const int rows_per_block = kSoftmaxBlock >> team_log2;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * rows_per_block;

  const int64_t own = first_row + (threadIdx.x >> team_log2);
  int64_t begin = 0, end = 0;
  if (own < csr.rows) {
    begin = __ldg(csr.rowptr + own);
    end = __ldg(csr.rowptr + own + 1);
    if (end - begin > kSoftmaxLongRow) end = begin;
  }
  const int64_t start = begin + ((threadIdx.x & ((1 << team_log2) - 1)) >> heads_log2);
  const int step = 1 << (team_log2 - heads_log2);
  for (int64_t tile = 0; tile < args.heads; tile += int64_t{1} << heads_log2) {
    const int64_t head = tile + head_lane;
    const bool active = head < args.heads;
    Total total = Total::start();
    for (int64_t slot = start; active && slot < end; slot += step)
      total.add_edge(args, scores_at(csr, slot, args.heads) + head);
    combine_lanes(total, heads_log2, team_log2);
    for (int64_t slot = start; active && slot < end; slot += step)
      total.write(args, scores_at(csr, slot, args.heads) + head);
  }

  for (int64_t row = first_row; row < first_row + rows_per_block && row < csr.rows; ++row) {
    begin = __ldg(csr.rowptr + row);
    end = __ldg(csr.rowptr + row + 1);
    if (end - begin <= kSoftmaxLongRow) continue;  // the same for the whole block
    const int64_t first = begin + (threadIdx.x >> heads_log2);
    for (int64_t tile = 0; tile < args.heads; tile += int64_t{1} << heads_log2) {
      const int64_t head = tile + head_lane;
      const bool active = head < args.heads;
      Total total = Total::start();
      for (int64_t slot = first; active && slot < end; slot += kSoftmaxBlock >> heads_log2)
        total.add_edge(args, scores_at(csr, slot, args.heads) + head);
      combine_lanes(total, heads_log2, 5);
      of_warp[threadIdx.x >> 5][threadIdx.x & 31] = total;
      __syncthreads();
      total = of_warp[0][head_lane];
      for (int warp = 1; warp < kSoftmaxWarps; ++warp) total.add(of_warp[warp][head_lane]);
      for (int64_t slot = first; active && slot < end; slot += kSoftmaxBlock >> heads_log2)
        total.write(args, scores_at(csr, slot, args.heads) + head);
      __syncthreads();  // before the next tile overwrites what others read
    }
  }
}

template <typename Total, typename Args>
cudaError_t launch_softmax(const Args& args, cudaStream_t stream) {
  const CsrView& csr = args.csr;
  if (csr.rows < 0 || csr.rows > kMaxIndex || csr.edges < 0 || csr.edges > kMaxIndex || args.heads < 0) {
    return cudaErrorInvalidValue;
  }
  if (csr.edges == 0 || args.heads == 0) return cudaSuccess;
  int heads_log2 = 0;
  while (heads_log2 < 5 && int64_t{1} << heads_log2 < args.heads) ++heads_log2;
  int team_log2 = heads_log2;
  while (team_log2 < 5 && csr.rows << (team_log2 - heads_log2) < csr.edges) ++team_log2;
  const auto blocks = static_cast<unsigned>(ceil_div(csr.rows, kSoftmaxBlock >> team_log2));
  return launch(softmax_rows<Total, Args>, blocks, kSoftmaxBlock, 0, stream, args, heads_log2, team_log2);
}

}  // namespace

template <typename T>
cudaError_t segment_softmax(const SegmentSoftmaxArgs<T>& args, cudaStream_t stream) {
  return launch_softmax<SoftmaxTotal<T>>(args, stream);
}

template <typename T>
cudaError_t segment_softmax_backward(const SegmentSoftmaxBackwardArgs<T>& args, cudaStream_t stream) {
  return launch_softmax<GradientTotal<T>>(args, stream);
}

template cudaError_t segment_softmax(const SegmentSoftmaxArgs<float>&, cudaStream_t);
template cudaError_t segment_softmax(const SegmentSoftmaxArgs<double>&, cudaStream_t);
template cudaError_t segment_softmax(const SegmentSoftmaxArgs<Float16>&, cudaStream_t);
template cudaError_t segment_softmax(const SegmentSoftmaxArgs<BFloat16>&, cudaStream_t);
template cudaError_t segment_softmax_backward(const SegmentSoftmaxBackwardArgs<float>&, cudaStream_t);
template cudaError_t segment_softmax_backward(const SegmentSoftmaxBackwardArgs<double>&, cudaStream_t);
template cudaError_t segment_softmax_backward(const SegmentSoftmaxBackwardArgs<Float16>&, cudaStream_t);
template cudaError_t segment_softmax_backward(const SegmentSoftmaxBackwardArgs<BFloat16>&, cudaStream_t);

}  // namespace gnna::cuda
