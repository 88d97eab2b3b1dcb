// Kernel `group`, the neighbour-group kernel of GNNAdvisor (OSDI 2021: Coarse-grained Neighbor Partitioning, Warp-aware
// Memory Customization). A row's edges are cut into groups of at most group_size. A team of `lanes` threads (the
// dimension workers, dw) takes one group, so that the work of two teams differs by less than group_size edges, whatever
// the degrees.
// A row of one group is stored from registers. If a row has several groups, they write their partial results to shared
// memory, and the team of the row's first group (the leader) combines them in order and stores the row once.
// The paper's kernel adds to the output atomically if a row's groups fall into several blocks. Here a block takes all
// groups of the rows that start in its share of the list, so it works on less than twice its share. A row with more
// groups than a block has teams is cut into chunks (spmm_chunks.cuh). A row's result therefore has the same bits on
// every run, whatever the neighbouring rows are.
//
// Memory per group: 4 bytes of row id, 32 of group and row pointers, and one tile of the width in shared memory. Memory
// per edge: as in kernel `row`.
#pragma once

#include "gnna/spmm_chunks.cuh"

namespace gnna::cuda {

template <typename T>
struct GroupParams : RowParams<T> {
  NeighbourGroups groups;
  int group_size;
};

// Returns the first position in the group list, from g on, at which a row's groups start (or groups.count).
__device__ __forceinline__ int64_t row_start(const NeighbourGroups& groups, int64_t g) {
  if (g >= groups.count) return groups.count;
  const int64_t row = __ldg(groups.row + g);
  const int64_t first = __ldg(groups.first + row);
  return first == g ? g : __ldg(groups.first + row + 1);
}

// The launch bound lets two of the largest blocks share a multiprocessor, with 64 registers per thread. At most 24
// registers are spilled.
template <typename T, int VW, int V, Weighting W, typename Op>
__global__ void __launch_bounds__(most_threads(Kernel::Group), 2) spmm_group(const __grid_constant__ GroupParams<T> p) {
  using Lane = RowLane<T, VW, V, W, Op>;
  using Piece = typename Lane::Piece;
  extern __shared__ __align__(kVectorBytes) unsigned char shared_bytes[];
  __shared__ bool is_last;
  Piece* const shared = reinterpret_cast<Piece*>(shared_bytes);

  const uint32_t lanes = 1u << p.lanes_log2;
  const uint32_t in_team = threadIdx.x & (lanes - 1);
  const int64_t tile = p.first_tile + blockIdx.y;
  const Lane lane(p, in_team, lanes, tile);
  const bool is_chunk = blockIdx.x < p.chunk_count;
  const uint32_t team = threadIdx.x >> p.lanes_log2, teams = blockDim.x >> p.lanes_log2;
  int64_t start = 0, stop = teams;  // positions in the group list; for a chunk, one iteration per team
  if (!is_chunk) {
    const int64_t share = static_cast<int64_t>(blockIdx.x - p.chunk_count) * teams;
    start = row_start(p.groups, share);
    stop = row_start(p.groups, share + teams);
  }
  const auto result_of = [&](int64_t g, int v) -> Piece& { return shared[((g - start) * V + v) * lanes + in_team]; };

  Piece acc[V];
  bool leads = false;
  for (int64_t g = start + team; g < stop; g += teams) {
    int64_t place = 0, first = g, next = 0, degree = 0, begin, end;
    if (is_chunk) {
      const RowChunk& chunk = p.chunks[blockIdx.x];
      begin = chunk.begin + team;
      end = chunk.end;
    } else {
      place = __ldg(p.groups.row + g);
      first = __ldg(p.groups.first + place);
      next = __ldg(p.groups.first + place + 1);
      begin = __ldg(p.rowptr + place);
      end = __ldg(p.rowptr + place + 1);
      degree = end - begin;
      if (degree > p.split_above) continue;
      begin += (g - first) * p.group_size;
      end = begin + p.group_size < end ? begin + p.group_size : end;
    }
    Lane::clear(acc);
    lane.gather(static_cast<uint32_t>(begin), static_cast<uint32_t>(end), is_chunk ? teams : 1, acc);
    if (is_chunk) break;
    if (next - first == 1) {
      lane.store_row(row_at(p.order, place), degree, acc);
      continue;
    }
#pragma unroll
    for (int v = 0; v < V; ++v) result_of(g, v) = acc[v];
    leads = leads || g == first;
  }
  if (is_chunk) {
    finish_chunk<T, VW, V, W, Op>(p, acc, shared, is_last);
    return;
  }
  __syncthreads();
  if (!leads) return;
  for (int64_t g = start + team; g < stop; g += teams) {
    const int64_t place = __ldg(p.groups.row + g);
    const int64_t first = __ldg(p.groups.first + place), next = __ldg(p.groups.first + place + 1);
    if (g != first || next - first == 1) continue;
#pragma unroll
    for (int v = 0; v < V; ++v) acc[v] = result_of(g, v);
    for (int64_t other = g + 1; other < next; ++other) {
#pragma unroll
      for (int v = 0; v < V; ++v) Lane::combine(acc[v], result_of(other, v));
    }
    lane.store_row(row_at(p.order, place), __ldg(p.rowptr + place + 1) - __ldg(p.rowptr + place), acc);
  }
}

}  // namespace gnna::cuda
