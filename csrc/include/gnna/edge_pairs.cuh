// Edge-parallel reduction over the width: out[e, h] = sum over d of term(source row, destination row), for SDDMM and
// for the weight gradient of max and min. A few lanes share one (edge, head) pair, so that consecutive pairs read and
// write side by side; the lanes' partial sums meet by shuffles in a fixed order. Per pair: two ids, and head_dim
// elements of every operand that the term reads.
#pragma once

#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

constexpr int kPairBlock = 256;

// Term::add<VW>(acc, source offset, destination offset, pair) -> acc plus VW elements' worth.
template <typename T, int VW, typename Id, typename Term>
__global__ void __launch_bounds__(kPairBlock, 1) edge_pairs(const Id* src, const Id* dst, int64_t pairs, int64_t heads,
                                                            int64_t head_dim, T* out, int lanes_log2, Term term) {
  const int lanes = 1 << lanes_log2;
  const int lane = threadIdx.x & (lanes - 1);
  const int per_block = kPairBlock >> lanes_log2;
  const bool small = pairs <= UINT32_MAX;  // 64-bit division is an order of magnitude slower
  const int64_t width = heads * head_dim;
  for (int64_t base = static_cast<int64_t>(blockIdx.x) * per_block; base < pairs;
       base += static_cast<int64_t>(gridDim.x) * per_block) {
    const int64_t pair = base + (threadIdx.x >> lanes_log2);
    const bool valid = pair < pairs;
    Compute<T> acc = 0;
    if (valid) {
      int64_t edge = pair, head = 0;
      if (heads > 1) {
        edge = small ? static_cast<uint32_t>(pair) / static_cast<uint32_t>(heads) : pair / heads;
        head = pair - edge * heads;
      }
      const int64_t s = static_cast<int64_t>(__ldg(src + edge)) * width + head * head_dim;
      const int64_t d = static_cast<int64_t>(__ldg(dst + edge)) * width + head * head_dim;
#pragma unroll 2
      for (int64_t c = lane * VW; c < head_dim; c += lanes * VW) acc = term.template add<VW>(acc, s + c, d + c, pair);
    }
    __syncwarp();
    for (int offset = 1; offset < lanes; offset *= 2) acc += __shfl_xor_sync(kFullWarp, acc, offset);
    if (valid && lane == 0) out[pair] = narrow<T>(acc);
  }
}

template <typename T, int VW, typename Id, typename Term>
cudaError_t launch_edge_pairs(const Id* src, const Id* dst, int64_t edges, int64_t heads, int64_t head_dim, T* out,
                              const Term& term, cudaStream_t stream) {
  const int lanes = lanes_for(ceil_div(head_dim, VW));
  const int64_t pairs = edges * heads;
  const unsigned blocks = stride_blocks(pairs, kPairBlock / lanes, kMaxIndex);
  return launch(edge_pairs<T, VW, Id, Term>, blocks, kPairBlock, 0, stream, src, dst, pairs, heads, head_dim, out,
                log2_of(lanes), term);
}

}  // namespace gnna::cuda
