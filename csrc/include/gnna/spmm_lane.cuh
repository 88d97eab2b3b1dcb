// The work of one thread in kernels `row` and `group` (spmm_row.cuh, spmm_group.cuh): it owns V pieces of VW elements
// of a feature row, gathers them over a range of edges, combines them with threads that took other edges, and stores
// the result.
#pragma once

#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

// PerEdge: one weight for the whole row of x, so one weight load per edge. PerHead: one weight load per edge and piece
// of a lane.
enum class Weighting { None, PerEdge, PerHead };

template <typename T>
struct RowParams {
  const int64_t* rowptr;
  const int32_t* col;
  const int32_t* order;  // place -> row, or nullptr
  const T* x;
  const T* weight;
  const int32_t* weight_index;
  T* out;
  const RowChunk* chunks;
  Compute<T>* partials;  // [chunk_count, partial_width]
  int32_t* counters;     // [chunk_count, tiles], zero at launch
  int64_t rows;
  int64_t width;
  int64_t partial_width;  // elements in a row of partials: the width rounded up to whole packs
  int64_t x_stride;
  int64_t heads;
  int64_t head_dim;
  int64_t split_above;
  int64_t tiles;       // column tiles over the whole width
  int64_t first_tile;  // first tile of this launch, which covers gridDim.y tiles
  uint32_t chunk_count;
  int lanes_log2;
  int groups_log2;
  bool mean;
  bool whole_packs;  // out can be written in packs, otherwise element by element
};

// How many edges a thread gathers at a time, and its register budget. A gather is limited by the number of loads in
// flight: the loads of one thread times the number of threads that registers leave room for. two_blocks_of gives the
// register budget as a launch bound, the largest block of which a multiprocessor holds two: 768 threads leave 40
// registers each, 640 48, 576 56, 512 64, 448 72, 384 80.
// The pairs used without weights were the fastest on average of 90 (1 to 8 neighbours, 32 to 96 registers): 2.0 %
// slower than the best pair of each case (H200; docs/profile-h200.md, Registers). Those with weights were chosen from
// 28 pairs. Single elements and double were not tuned.
struct LaneShape {
  uint32_t neighbours;
  int two_blocks_of;
  bool weights_ahead = false;  // load weight positions a batch ahead (kWeightsAhead); set if registers allow it
};

template <typename T, int VW, int V, Weighting W>
constexpr LaneShape shape_of() {
  constexpr bool none = W == Weighting::None, heads = W == Weighting::PerHead;
  if (VW == 1) return {4, most_threads(Kernel::Row)};
  if (sizeof(T) == 2) {
    if (V == 1) return none ? LaneShape{4, 640} : heads ? LaneShape{4, 512, true} : LaneShape{3, 576};
    if (V == 2) return heads ? LaneShape{2, 448, true} : LaneShape{2, 576};
    return {1, none ? 512 : heads ? 384 : 448, true};
  }
  constexpr bool wide = sizeof(T) == 8;
  constexpr int fewer = wide ? 64 : 0;  // fewer threads, so that weights of twice the size are not spilled
  if (V == 1) return none ? LaneShape{3, 768 - fewer} : LaneShape{4, (heads ? 576 : 640) - fewer, heads && !wide};
  if (V == 2) return {2, (none ? 640 : heads ? 512 : 576) - fewer, !wide};
  return {1, (heads ? 512 : 576) - fewer, !wide};
}

// Returns two_blocks_of as a launch bound, limited to a block of which this architecture can hold two.
constexpr int launch_bound(LaneShape shape) {
  return shape.two_blocks_of < kResidentThreads / 2 ? shape.two_blocks_of : kResidentThreads / 2;
}

// The part of a row that one thread owns: V pieces of VW elements. The pieces are `step` elements apart, so that the
// lanes of a group read contiguous memory for each piece.
template <typename T, int VW, int V, Weighting W, typename Op>
struct RowLane {
  static constexpr int kWeights = W == Weighting::PerHead ? V : 1;
  using C = Compute<T>;
  using Piece = Pack<C, VW>;
  static constexpr uint32_t kUnroll = shape_of<T, VW, V, W>().neighbours;
  // Load the ids of the next batch before this batch's features arrive, so that a batch waits for memory once.
  static constexpr bool kAhead = VW > 1;
  static constexpr bool kWeightsAhead = W != Weighting::None && shape_of<T, VW, V, W>().weights_ahead;
  static_assert(kAhead || !kWeightsAhead);

  struct Batch {
    int32_t id[kAhead ? kUnroll : 1];         // columns
    int32_t at[kWeightsAhead ? kUnroll : 1];  // positions of the weights, as rows of p.weight
  };

  const RowParams<T>& p;
  uint32_t column;  // first element of the first piece
  uint32_t step;
  bool active[V];  // the piece starts inside the width
  int32_t head[kWeights];

  __device__ __forceinline__ RowLane(const RowParams<T>& params, uint32_t lane, uint32_t lanes, int64_t tile)
      : p(params) {
    column = (static_cast<uint32_t>(tile) * V * lanes + lane) * VW;
    step = lanes * VW;
#pragma unroll
    for (int v = 0; v < V; ++v) active[v] = column + v * step < p.width;
    if constexpr (W == Weighting::PerHead) {
#pragma unroll
      for (int v = 0; v < V; ++v) head[v] = active[v] ? static_cast<int32_t>((column + v * step) / p.head_dim) : 0;
    }
  }

  // Returns the slot of edge u of the batch that starts at slot k, or k if that slot is not below `end`.
  template <bool kFull>
  static __device__ __forceinline__ uint32_t slot_of(uint32_t u, uint32_t k, uint32_t end, uint32_t stride) {
    return kFull || k + u * stride < end ? k + u * stride : k;
  }

  // Computes the positions of a batch's weights.
  template <bool kFull, uint32_t kCount>
  __device__ __forceinline__ void find_weights(uint32_t k, uint32_t end, uint32_t stride, int32_t (&at)[kCount]) const {
#pragma unroll
    for (uint32_t u = 0; u < kCount; ++u) at[u] = static_cast<int32_t>(slot_of<kFull>(u, k, end, stride));
    if (p.weight_index == nullptr) return;
#pragma unroll
    for (uint32_t u = 0; u < kCount; ++u) at[u] = __ldg(p.weight_index + at[u]);
  }

  // Loads a batch's column ids and, with kWeightsAhead, the positions of its weights.
  __device__ __forceinline__ void look_ahead(uint32_t k, uint32_t end, uint32_t stride, Batch& batch) const {
    if (k >= end) return;
#pragma unroll
    for (uint32_t u = 0; u < kUnroll; ++u) batch.id[u] = __ldg(p.col + slot_of<false>(u, k, end, stride));
    if constexpr (kWeightsAhead) find_weights<false>(k, end, stride, batch.at);
  }

  // Adds slots k, k + stride, ... of one batch. All column ids are loaded first, then all features, so that the batch
  // waits for memory at most twice, not twice per edge. In the last batch (kFull = false) some slots may not be below
  // `end`. They read the ids and weights of slot k again and add nothing. Inactive pieces accumulate garbage, which is
  // never stored.
  template <bool kFull>
  __device__ __forceinline__ void add_batch(uint32_t k, uint32_t end, uint32_t stride, Batch& batch,
                                            Raw<T, VW> (&piece)[kUnroll][V], Piece (&acc)[V]) const {
    constexpr uint32_t kCount = kFull ? kUnroll : kUnroll - 1;
    bool valid[kCount];
    const T* row[kCount];
    T weight[kCount][kWeights];
#pragma unroll
    for (uint32_t u = 0; u < kCount; ++u) {
      valid[u] = kFull || k + u * stride < end;
      const int32_t id = kAhead ? batch.id[kAhead ? u : 0] : __ldg(p.col + slot_of<kFull>(u, k, end, stride));
      row[u] = p.x + column + static_cast<int64_t>(id) * p.x_stride;
    }
    if constexpr (W != Weighting::None) {
      int32_t at[kCount];
      if constexpr (!kWeightsAhead) find_weights<kFull>(k, end, stride, at);
#pragma unroll
      for (uint32_t u = 0; u < kCount; ++u) {
        if constexpr (kWeightsAhead) at[u] = batch.at[u];
        if constexpr (W == Weighting::PerEdge) {
          weight[u][0] = load_one(p.weight + at[u]);
        } else {
#pragma unroll
          for (int v = 0; v < V; ++v) weight[u][v] = load_one(p.weight + at[u] * p.heads + head[v]);
        }
      }
    }
#pragma unroll
    for (uint32_t u = 0; u < kCount; ++u) {
#pragma unroll
      for (int v = 0; v < V; ++v) load_raw_if<VW>(valid[u] && active[v], row[u] + v * step, piece[u][v]);
    }
    if constexpr (kAhead && kFull) look_ahead(k + kUnroll * stride, end, stride, batch);
#pragma unroll
    for (uint32_t u = 0; u < kCount; ++u) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const Piece message = widen_pack<T, VW>(piece[u][v]);
#pragma unroll
        for (int i = 0; i < VW; ++i) {
          C& a = acc[v].v[i];
          C next;
          if constexpr (W == Weighting::None) {
            next = Op::combine(a, message.v[i]);
          } else {
            next = Op::weighted(a, widen(weight[u][W == Weighting::PerHead ? v : 0]), message.v[i]);
          }
          a = valid[u] ? next : a;
        }
      }
    }
  }

  // Adds slots k, k + stride, ... below `end`. 32-bit sums cannot overflow, because slots are below 2^31 and the stride
  // is at most the size of a block.
  __device__ __forceinline__ void gather(uint32_t k, uint32_t end, uint32_t stride, Piece (&acc)[V]) const {
    Batch batch;
    Raw<T, VW> piece[kUnroll][V]{};
    if constexpr (kAhead) look_ahead(k, end, stride, batch);
    for (; k + (kUnroll - 1) * stride < end; k += kUnroll * stride) add_batch<true>(k, end, stride, batch, piece, acc);
    if constexpr (kUnroll > 1) {
      if (k < end) add_batch<false>(k, end, stride, batch, piece, acc);
    }
  }

  static __device__ __forceinline__ void clear(Piece (&acc)[V]) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
#pragma unroll
      for (int i = 0; i < VW; ++i) acc[v].v[i] = Op::template identity<C>();
    }
  }

  static __device__ __forceinline__ void combine(Piece& acc, const Piece& other) {
#pragma unroll
    for (int i = 0; i < VW; ++i) acc.v[i] = Op::combine(acc.v[i], other.v[i]);
  }

  // Combines, by shuffles, the pieces of threads that are a multiple of `lanes` apart, among each `spread` neighbouring
  // threads. All threads of the warp must call it.
  static __device__ __forceinline__ void combine_groups(uint32_t lanes, uint32_t spread, Piece (&acc)[V]) {
    __syncwarp();
    for (uint32_t offset = lanes; offset < spread; offset *= 2) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        Piece other;
#pragma unroll
        for (int i = 0; i < VW; ++i) other.v[i] = __shfl_xor_sync(kFullWarp, acc[v].v[i], offset);
        combine(acc[v], other);
      }
    }
  }

  // Combines the pieces of all groups of a block. The threads below `lanes` hold the result. `shared` holds lanes * V
  // pieces per warp. The whole block must call it.
  static __device__ __forceinline__ void combine_block(uint32_t lanes, Piece* shared, Piece (&acc)[V]) {
    combine_groups(lanes, 32, acc);
    const uint32_t in_warp = threadIdx.x & 31;
    const uint32_t warp_pieces = V * lanes;
    if (in_warp < lanes) {
#pragma unroll
      for (int v = 0; v < V; ++v) shared[(threadIdx.x >> 5) * warp_pieces + v * lanes + in_warp] = acc[v];
    }
    __syncthreads();
    if (threadIdx.x < lanes) {
      for (uint32_t warp = 1; warp < blockDim.x >> 5; ++warp) {
#pragma unroll
        for (int v = 0; v < V; ++v) combine(acc[v], shared[warp * warp_pieces + v * lanes + in_warp]);
      }
    }
  }

  // Stores the thread's pieces of a row: zeros if the degree is 0, for a mean the sums divided by the degree.
  __device__ __forceinline__ void store_row(int64_t row, int64_t degree, Piece (&acc)[V]) const {
    T* out = p.out + row * p.width + column;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (!active[v]) continue;
#pragma unroll
      for (int i = 0; i < VW; ++i) {
        C& a = acc[v].v[i];
        if (degree == 0) {
          a = C(0);
        } else if (p.mean) {
          a /= static_cast<C>(degree);
        }
      }
      if (p.whole_packs) {
        store_pack(out + v * step, acc[v]);
        continue;
      }
#pragma unroll
      for (int i = 0; i < VW; ++i) {
        if (column + v * step + i < p.width) out[v * step + i] = narrow<T>(acc[v].v[i]);
      }
    }
  }
};

}  // namespace gnna::cuda
