// Feature gradient of a max or min aggregation, in two passes over rows: first every destination's gradient is divided
// by the number of messages that reached its result (share), then every source collects the shares of the messages it
// won. A warp per row: `lanes` threads cover the width, the other lanes take other edges, and they meet by shuffles, so
// no atomics are needed and the bits do not change from run to run. Per edge: the column id, its place in the user's
// list and weight if there is one, and one row of x (share) or one row each of out and share (grad_x).
#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

namespace {

constexpr int kRowBlock = 128;

template <typename T>
struct RowEdge {
  int64_t other;  // first element of the row at the edge's other end
  Compute<T> weight;
};

template <typename T>
__device__ __forceinline__ RowEdge<T> load_edge(const CsrView& csr, const ExtremumArgs<T>& args, int64_t slot,
                                                int64_t width, int64_t head) {
  RowEdge<T> edge{__ldg(csr.col + slot) * width, Compute<T>(1)};
  if (args.weight != nullptr) {
    const int64_t at = csr.perm != nullptr ? __ldg(csr.perm + slot) : slot;
    edge.weight = widen(load_one(args.weight + at * args.heads + head));
  }
  return edge;
}

template <typename V>
__device__ __forceinline__ V sum_over_groups(V value, int lanes) {
  for (int offset = lanes; offset < 32; offset *= 2) value += __shfl_xor_sync(kFullWarp, value, offset);
  return value;
}

template <typename T, int VW>
__global__ void __launch_bounds__(kRowBlock, 1)
    share_rows(const __grid_constant__ CsrView csr, const __grid_constant__ ExtremumArgs<T> args, int lanes_log2) {
  using C = Compute<T>;
  const int lanes = 1 << lanes_log2;
  const int lane = threadIdx.x & (lanes - 1);
  const int group = (threadIdx.x & 31) >> lanes_log2;
  const int groups = 32 >> lanes_log2;
  const int64_t width = args.heads * args.head_dim;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kRowBlock / 32) + (threadIdx.x >> 5);
  if (row >= csr.rows) return;  // the whole warp
  const int64_t begin = __ldg(csr.rowptr + row), end = __ldg(csr.rowptr + row + 1);
  for (int64_t tile = 0; tile < width; tile += lanes * VW) {
    const int64_t c = tile + lane * VW;
    const bool active = c < width;
    int sharers[VW] = {};
    Pack<C, VW> best{};
    if (active) {
      best = load_pack<VW>(args.out + row * width + c);
      const int64_t head = args.weight != nullptr ? c / args.head_dim : 0;
#pragma unroll 4
      for (int64_t slot = begin + group; slot < end; slot += groups) {
        const RowEdge<T> edge = load_edge(csr, args, slot, width, head);
        const Pack<C, VW> x = load_pack<VW>(args.x + edge.other + c);
#pragma unroll
        for (int i = 0; i < VW; ++i) sharers[i] += rounded_to<T>(product(edge.weight, x.v[i])) == best.v[i];
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < VW; ++i) sharers[i] = sum_over_groups(sharers[i], lanes);
    if (!active || group != 0) continue;
    // torch.scatter_reduce counts the zero it starts from as one more candidate.
    Pack<C, VW> share = load_pack<VW>(args.grad + row * width + c);
#pragma unroll
    for (int i = 0; i < VW; ++i) share.v[i] /= static_cast<C>(sharers[i] + (best.v[i] == C(0)));
    store_pack(args.share + row * width + c, share);
  }
}

template <typename T, int VW>
__global__ void __launch_bounds__(kRowBlock, 1)
    grad_x_rows(const __grid_constant__ CsrView csr, const __grid_constant__ ExtremumArgs<T> args, int lanes_log2) {
  using C = Compute<T>;
  const int lanes = 1 << lanes_log2;
  const int lane = threadIdx.x & (lanes - 1);
  const int group = (threadIdx.x & 31) >> lanes_log2;
  const int groups = 32 >> lanes_log2;
  const int64_t width = args.heads * args.head_dim;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kRowBlock / 32) + (threadIdx.x >> 5);
  if (row >= csr.rows) return;  // the whole warp
  const int64_t begin = __ldg(csr.rowptr + row), end = __ldg(csr.rowptr + row + 1);
  for (int64_t tile = 0; tile < width; tile += lanes * VW) {
    const int64_t c = tile + lane * VW;
    const bool active = c < width;
    Pack<C, VW> acc{};
    if (active) {
      const Pack<C, VW> x = load_pack<VW>(args.x + row * width + c);
      const int64_t head = args.weight != nullptr ? c / args.head_dim : 0;
#pragma unroll 4
      for (int64_t slot = begin + group; slot < end; slot += groups) {
        const RowEdge<T> edge = load_edge(csr, args, slot, width, head);
        const Pack<C, VW> best = load_pack<VW>(args.out + edge.other + c);
        const Pack<C, VW> part = load_pack<VW>(args.share + edge.other + c);
#pragma unroll
        for (int i = 0; i < VW; ++i) {
          // The mask multiplies, as in torch: an infinite or NaN share reaches the messages that lost, too.
          const C mask = rounded_to<T>(product(edge.weight, x.v[i])) == best.v[i] ? C(1) : C(0);
          acc.v[i] = fma(mask * part.v[i], edge.weight, acc.v[i]);
        }
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < VW; ++i) acc.v[i] = sum_over_groups(acc.v[i], lanes);
    if (active && group == 0) store_pack(args.grad_x + row * width + c, acc);
  }
}

// 16-byte loads need rows that start on 16 bytes, and a piece whose elements share a weight.
template <typename T>
bool can_vectorise(const ExtremumArgs<T>& args) {
  const int64_t unit = args.weight != nullptr ? args.head_dim : args.heads * args.head_dim;
  const void* const rows[] = {args.grad, args.x, args.out, args.share, args.grad_x};
  bool aligned = unit % kVectorWidth<T> == 0;
  for (const void* p : rows) aligned = aligned && is_aligned(p, kVectorBytes);
  return aligned;
}

template <typename T>
cudaError_t check(const CsrView& csr, const ExtremumArgs<T>& args) {
  const bool fits = csr.rows >= 0 && csr.rows <= kMaxIndex && csr.edges >= 0 && csr.edges <= kMaxIndex &&
                    args.heads >= 0 && args.head_dim >= 0;
  return fits ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

template <typename T>
cudaError_t extremum_share(const CsrView& forward, const ExtremumArgs<T>& args, cudaStream_t stream) {
  const cudaError_t error = check(forward, args);
  const int64_t width = args.heads * args.head_dim;
  if (error != cudaSuccess || forward.rows == 0 || width == 0) return error;
  const unsigned blocks = static_cast<unsigned>(ceil_div(forward.rows, kRowBlock / 32));
  if (can_vectorise(args)) {
    const int lanes = lanes_for(width / kVectorWidth<T>);
    return launch(share_rows<T, kVectorWidth<T>>, blocks, kRowBlock, 0, stream, forward, args, log2_of(lanes));
  }
  return launch(share_rows<T, 1>, blocks, kRowBlock, 0, stream, forward, args, log2_of(lanes_for(width)));
}

template <typename T>
cudaError_t extremum_grad_x(const CsrView& transposed, const ExtremumArgs<T>& args, cudaStream_t stream) {
  const cudaError_t error = check(transposed, args);
  const int64_t width = args.heads * args.head_dim;
  if (error != cudaSuccess || transposed.rows == 0 || width == 0) return error;
  const unsigned blocks = static_cast<unsigned>(ceil_div(transposed.rows, kRowBlock / 32));
  if (can_vectorise(args)) {
    const int lanes = lanes_for(width / kVectorWidth<T>);
    return launch(grad_x_rows<T, kVectorWidth<T>>, blocks, kRowBlock, 0, stream, transposed, args, log2_of(lanes));
  }
  return launch(grad_x_rows<T, 1>, blocks, kRowBlock, 0, stream, transposed, args, log2_of(lanes_for(width)));
}

template cudaError_t extremum_share(const CsrView&, const ExtremumArgs<float>&, cudaStream_t);
template cudaError_t extremum_share(const CsrView&, const ExtremumArgs<double>&, cudaStream_t);
template cudaError_t extremum_share(const CsrView&, const ExtremumArgs<Float16>&, cudaStream_t);
template cudaError_t extremum_share(const CsrView&, const ExtremumArgs<BFloat16>&, cudaStream_t);
template cudaError_t extremum_grad_x(const CsrView&, const ExtremumArgs<float>&, cudaStream_t);
template cudaError_t extremum_grad_x(const CsrView&, const ExtremumArgs<double>&, cudaStream_t);
template cudaError_t extremum_grad_x(const CsrView&, const ExtremumArgs<Float16>&, cudaStream_t);
template cudaError_t extremum_grad_x(const CsrView&, const ExtremumArgs<BFloat16>&, cudaStream_t);

}  // namespace gnna::cuda
