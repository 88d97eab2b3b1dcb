// What a block does with a chunk of a split row, in both kernels: its teams take the chunk's edges in turn and meet in
// shared memory, and the partial results of a row are combined (combine_chunks.cuh).
#pragma once

#include "gnna/combine_chunks.cuh"
#include "gnna/spmm_lane.cuh"

namespace gnna::cuda {

// The whole block calls it, for chunk blockIdx.x, whose edges `acc` holds the sums of. shared: lanes * V pieces per
// warp; is_last is shared memory too. The gather itself is the kernel's, where one serves rows and chunks: inlined
// twice it costs every thread registers. So does what a thread knows of itself, if it lasts over the gather until here:
// it is found out again (left to the compiler, spills cost rows with weights per head 10 %).
template <typename T, int VW, int V, Weighting W, typename Op>
__device__ __forceinline__ void finish_chunk(const RowParams<T>& p, typename RowLane<T, VW, V, W, Op>::Piece (&acc)[V],
                                             typename RowLane<T, VW, V, W, Op>::Piece* shared, bool& is_last) {
  using Lane = RowLane<T, VW, V, W, Op>;
  const int lanes_log2 = found_again(p.lanes_log2);
  const uint32_t thread = found_again(threadIdx.x), lanes = 1u << lanes_log2;
  const int64_t tile = p.first_tile + found_again(blockIdx.y);
  const RowChunk& chunk = p.chunks[found_again(blockIdx.x)];
  const Lane lane(p, thread & (lanes - 1), lanes, tile);
  const auto team = static_cast<int32_t>(thread >> lanes_log2);
  const auto teams = static_cast<int32_t>(blockDim.x >> lanes_log2);
  Lane::combine_block(lanes, shared, acc);
  const auto partial = [&](int64_t place) {
    return p.partials + (chunk.first + place) * p.partial_width + lane.column;
  };
  const auto store = [&](int32_t place) {
    if (thread >= lanes) return;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (lane.active[v]) store_pack(partial(place) + v * lane.step, acc[v]);
    }
    __threadfence();
  };
  const auto gather = [&](int32_t place, int32_t step, int32_t members) {
    Lane::clear(acc);
#pragma unroll(Lane::kUnroll)
    for (int32_t member = team; member < members; member += teams) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (!lane.active[v]) continue;
        Lane::combine(acc[v], load_shared_by_blocks<VW>(partial(place + member * step) + v * lane.step));
      }
    }
    Lane::combine_block(lanes, shared, acc);
  };
  const auto counter = [&](int32_t place) { return p.counters + (chunk.first + place) * p.tiles + tile; };
  if (!combine_chunks(chunk, is_last, store, gather, counter)) return;
  if (thread >= lanes) return;
  const int64_t place = chunk.row;
  // Only a mean asks for more than that the row is not empty.
  const int64_t degree = p.mean ? __ldg(p.rowptr + place + 1) - __ldg(p.rowptr + place) : chunk.end - chunk.begin;
  lane.store_row(row_at(p.order, place), degree, acc);
}

}  // namespace gnna::cuda
