// Finishes a chunk of a split row, for both kernels: combines the results of the block's groups in shared memory, then
// the partial results of the row's chunks (combine_chunks.cuh).
#pragma once

#include "gnna/combine_chunks.cuh"
#include "gnna/spmm_lane.cuh"

namespace gnna::cuda {

// Combines the results of chunk blockIdx.x across the block, then with the row's other chunks. The row's last block
// stores the row. The whole block calls it, after its threads have gathered the chunk's edges into `acc`. `shared`
// holds lanes * V pieces per warp, and is_last is in shared memory, too.
//
// The kernel itself gathers, with the same code for rows and chunks, because inlining the gather twice costs every
// thread registers. For the same reason the thread's indices are recomputed here through hide_origin. If they stayed in
// registers over the gather, spills would slow down rows with weights per head by 10 %.
template <typename T, int VW, int V, Weighting W, typename Op>
__device__ __forceinline__ void finish_chunk(const RowParams<T>& p, typename RowLane<T, VW, V, W, Op>::Piece (&acc)[V],
                                             typename RowLane<T, VW, V, W, Op>::Piece* shared, bool& is_last) {
  using Lane = RowLane<T, VW, V, W, Op>;
  const int lanes_log2 = hide_origin(p.lanes_log2);
  const uint32_t thread = hide_origin(threadIdx.x), lanes = 1u << lanes_log2;
  const int64_t tile = p.first_tile + hide_origin(blockIdx.y);
  const RowChunk& chunk = p.chunks[hide_origin(blockIdx.x)];
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
        Lane::combine(acc[v], load_from_l2<VW>(partial(place + member * step) + v * lane.step));
      }
    }
    Lane::combine_block(lanes, shared, acc);
  };
  const auto counter = [&](int32_t place) { return p.counters + (chunk.first + place) * p.tiles + tile; };
  if (!combine_chunks(chunk, is_last, store, gather, counter)) return;
  if (thread >= lanes) return;
  const int64_t place = chunk.row;
  // store_row needs the exact degree for a mean only. Otherwise any number above 0 will do.
  const int64_t degree = p.mean ? __ldg(p.rowptr + place + 1) - __ldg(p.rowptr + place) : chunk.end - chunk.begin;
  lane.store_row(row_at(p.order, place), degree, acc);
}

}  // namespace gnna::cuda
