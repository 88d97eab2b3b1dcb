// What a block does with an item of a long row, in both kernels: its teams take the item's edges in turn and meet in
// shared memory; the block that finishes last among the parts of a row combines them in part order, whoever it is.
#pragma once

#include "gnna/spmm_lane.cuh"

namespace gnna::cuda {

// The whole block calls it, for item blockIdx.x, whose edges `acc` holds the sums of. shared: lanes * V pieces per
// warp; is_last is shared memory too. The gather itself is the kernel's, where one serves rows and items: inlined twice
// it costs every thread registers.
template <typename T, int VW, int V, Weighting W, typename Op>
__device__ __forceinline__ void finish_item(const RowLane<T, VW, V, W, Op>& lane, uint32_t lanes, int64_t tile,
                                            typename RowLane<T, VW, V, W, Op>::Piece (&acc)[V],
                                            typename RowLane<T, VW, V, W, Op>::Piece* shared, bool& is_last) {
  using Lane = RowLane<T, VW, V, W, Op>;
  const RowParams<T>& p = lane.p;
  const LongItem& item = p.items[blockIdx.x];
  const int32_t parts = item.parts;
  const uint32_t team = threadIdx.x >> p.lanes_log2, teams = blockDim.x >> p.lanes_log2;
  Lane::combine_block(lanes, shared, acc);
  if (parts > 1) {
    Compute<T>* partials = p.partials + static_cast<int64_t>(item.first) * p.partial_width + lane.column;
    if (threadIdx.x < lanes) {
      Compute<T>* mine = partials + item.part * p.partial_width;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (lane.active[v]) store_pack(mine + v * lane.step, acc[v]);
      }
      __threadfence();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      is_last = atomicAdd(p.counters + item.first * p.tiles + tile, 1) == parts - 1;
      __threadfence();
    }
    __syncthreads();
    if (!is_last) return;
    // Which block arrives here depends on timing; what it computes does not.
    Lane::clear(acc);
#pragma unroll(Lane::kUnroll)
    for (int32_t part = team; part < parts; part += teams) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (!lane.active[v]) continue;
        Lane::combine(acc[v], load_shared_by_blocks<VW>(partials + part * p.partial_width + v * lane.step));
      }
    }
    Lane::combine_block(lanes, shared, acc);
  }
  if (threadIdx.x >= lanes) return;
  const int64_t place = item.row;
  // Only a mean asks for more than that the row is not empty.
  const int64_t degree = p.mean ? __ldg(p.rowptr + place + 1) - __ldg(p.rowptr + place) : item.end - item.begin;
  lane.store_row(row_at(p.order, place), degree, acc);
}

}  // namespace gnna::cuda
