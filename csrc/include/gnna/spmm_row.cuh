// Kernel `row`, the default SpMM on CUDA. A row is processed by `groups` neighbour groups of `lanes` threads inside one
// warp: the lanes of a group cover a tile of the width with V pieces of VW elements each, and the groups take the row's
// edges in turn. Partial sums stay in registers, groups are combined by shuffles, and the result is stored once, so
// there are no floating-point atomics. Rows with more than split_above edges are cut into chunks, which the first
// blocks of the grid process (spmm_chunks.cuh).
//
// Memory per edge: 4 bytes of column id, the weight, and one row tile of x. Memory per row: 16 bytes of rowptr, 4 of
// the order if the plan has one, and one tile of out.
#pragma once

#include "gnna/spmm_chunks.cuh"

namespace gnna::cuda {

template <typename T, int VW, int V, Weighting W, typename Op>
__global__ void __launch_bounds__(launch_bound(shape_of<T, VW, V, W>()), 2)
    spmm_row(const __grid_constant__ RowParams<T> p) {
  using Lane = RowLane<T, VW, V, W, Op>;
  using Piece = typename Lane::Piece;
  extern __shared__ __align__(kVectorBytes) unsigned char shared_bytes[];
  __shared__ bool is_last;

  const uint32_t lanes = 1u << p.lanes_log2;
  const int64_t tile = p.first_tile + blockIdx.y;
  const Lane lane(p, threadIdx.x & (lanes - 1), lanes, tile);
  const bool is_chunk = blockIdx.x < p.chunk_count;

  // The team of threads that shares an edge range: part of a warp for a row, the whole block for a chunk.
  const uint32_t team_log2 = p.lanes_log2 + p.groups_log2;
  const uint32_t stride = is_chunk ? blockDim.x >> p.lanes_log2 : 1u << p.groups_log2;
  uint32_t group = threadIdx.x >> p.lanes_log2;
  int64_t row = 0, begin = 0, end = 0;
  bool owns = true;
  if (is_chunk) {
    const RowChunk& chunk = p.chunks[blockIdx.x];
    begin = chunk.begin;
    end = chunk.end;
  } else {
    group &= stride - 1;
    const int64_t place =
        static_cast<int64_t>(blockIdx.x - p.chunk_count) * (blockDim.x >> team_log2) + (threadIdx.x >> team_log2);
    owns = place < p.rows;
    if (owns) {
      begin = __ldg(p.rowptr + place);
      end = __ldg(p.rowptr + place + 1);
      row = row_at(p.order, place);  // loaded early, so that the store does not wait for it
      owns = end - begin <= p.split_above;
    }
  }
  Piece acc[V];
  Lane::clear(acc);
  if (owns) lane.gather(static_cast<uint32_t>(begin) + group, static_cast<uint32_t>(end), stride, acc);
  if (is_chunk) {
    finish_chunk<T, VW, V, W, Op>(p, acc, reinterpret_cast<Piece*>(shared_bytes), is_last);
    return;
  }
  // The shuffles need every thread of the warp, including those whose row is past the end or split.
  Lane::combine_groups(lanes, 1u << team_log2, acc);
  if (owns && group == 0) lane.store_row(row, end - begin, acc);
}

}  // namespace gnna::cuda
