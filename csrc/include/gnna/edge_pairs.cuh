// Edge-parallel reduction over the width: out[e, h] = sum over d of term(source row, destination row). Used by SDDMM
// and by the weight gradient of max and min. A team of a few lanes shares one (edge, head) pair, and neighbouring teams
// take neighbouring pairs, so that reads of ids and writes of results are contiguous. The lanes' partial sums are
// combined by shuffles in a fixed order.
// Memory per pair: two ids (streaming loads), head_dim elements of every operand that the term reads, and the result.
#pragma once

#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

constexpr int kPairBlock = 128;

// Term::add<VW>(acc, source offset, destination offset, edge, column) returns acc plus the contribution of VW elements,
// which begin at `column` of their rows. Each lane takes V pieces of VW elements per step. V is a template parameter so
// that the loads of all V pieces are issued together. Term::kBlocks is the number of blocks per multiprocessor for the
// launch bound; it limits a thread to 65536 / (kBlocks * 128) registers.
template <typename T, int VW, int V, typename Id, typename Term>
__global__ void __launch_bounds__(kPairBlock, resident_blocks(Term::kBlocks, kPairBlock))
    edge_pairs(const Id* src, const Id* dst, int64_t pairs, int heads, int head_dim, T* out, int lanes_log2,
               Term term) {
  const int lanes = 1 << lanes_log2;
  const int lane = threadIdx.x & (lanes - 1);
  const int64_t mine = static_cast<int64_t>(blockIdx.x) * (kPairBlock >> lanes_log2) + (threadIdx.x >> lanes_log2);
  const int64_t pair = mine < pairs ? mine : pairs - 1;  // the shuffles need every thread of the warp
  int64_t edge = pair;
  int column = lane * VW;
  if (heads > 1) {  // 64-bit division is about ten times slower than 32-bit
    edge = pairs <= UINT32_MAX ? static_cast<uint32_t>(pair) / static_cast<uint32_t>(heads) : pair / heads;
    column += static_cast<int>(pair - edge * heads) * head_dim;
  }
  // Ids and widths fit in 31 bits, so their 64-bit product takes a single instruction.
  const auto row_start = [&](Id id) { return static_cast<int64_t>(static_cast<int>(id)) * (heads * head_dim); };
  const int64_t source = row_start(__ldcs(src + edge)) + column;
  const int64_t destination = row_start(__ldcs(dst + edge)) + column;
  const int step = lanes * VW;
  Compute<T> acc = 0;
  int tile = 0;
  for (; tile + V * step <= head_dim; tile += V * step) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int at = tile + v * step;
      acc = term.template add<VW>(acc, source + at, destination + at, edge, column + at);
    }
  }
  for (; tile + lane * VW < head_dim; tile += step) {
    acc = term.template add<VW>(acc, source + tile, destination + tile, edge, column + tile);
  }
  __syncwarp();
  for (int offset = 1; offset < lanes; offset *= 2) acc += __shfl_xor_sync(kFullWarp, acc, offset);
  if (mine < pairs && lane == 0) out[pair] = narrow<T>(acc);
}

// The lanes of a team together load 64 bytes of a row at a time: 128 if the row has at least 512 bytes, half of the row
// if it has fewer than 128. Each lane loads two pieces of a row before it uses them, if the row has so many. This shape
// was within 2 % of the fastest of 155 (lanes, pieces, pairs at once and registers) on five graphs at widths 16 to 128
// (H200, float).
template <typename T, int VW, typename Id, typename Term>
cudaError_t launch_edge_pairs(const Id* src, const Id* dst, int64_t edges, int64_t heads, int64_t head_dim, T* out,
                              const Term& term, cudaStream_t stream) {
  const int64_t row_bytes = head_dim * sizeof(T), load_bytes = VW * sizeof(T);
  const int64_t at_once = row_bytes >= 512 ? 128 : row_bytes >= 128 ? 64 : row_bytes / 2;
  int lanes = 1;
  while (lanes < 32 && 2 * lanes * load_bytes <= at_once) lanes *= 2;
  const int64_t pairs = edges * heads, blocks = ceil_div(pairs, kPairBlock / lanes);
  if (blocks > kMaxIndex || heads * head_dim > kMaxIndex) return cudaErrorInvalidValue;
  const auto run = [&](auto* kernel) {
    return launch(kernel, static_cast<unsigned>(blocks), kPairBlock, 0, stream, src, dst, pairs,
                  static_cast<int>(heads), static_cast<int>(head_dim), out, log2_of(lanes), term);
  };
  const int64_t pieces = head_dim / (lanes * VW);
  return pieces >= 2 ? run(edge_pairs<T, VW, 2, Id, Term>) : run(edge_pairs<T, VW, 1, Id, Term>);
}

}  // namespace gnna::cuda
