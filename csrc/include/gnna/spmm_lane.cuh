// What one thread does in both kernels (spmm_row.cuh, spmm_group.cuh): it owns V pieces of VW elements of a feature
// row, gathers them over a range of edges, combines them with the threads that took other edges, and stores the result.
#pragma once

#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

// PerEdge: one weight for the whole row of x, so one load per edge. PerHead: one for each piece of a lane.
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
  int64_t partial_width;  // of a row of partial results: of whole packs
  int64_t x_stride;
  int64_t heads;
  int64_t head_dim;
  int64_t split_above;
  int64_t tiles;       // column tiles of the whole width
  int64_t first_tile;  // of this launch, which covers gridDim.y tiles
  uint32_t chunk_count;
  int lanes_log2;
  int groups_log2;
  bool mean;
  bool whole_packs;  // out can be written by packs; otherwise by elements
};

// How many loads wait at the same time is what limits a gather: those of a thread, in `neighbours` edges of a group,
// times the threads that registers leave room for, said as the largest block of which a multiprocessor holds two: 768
// threads leave each 40 registers, 640 48, 576 56, 512 64, 448 72, 384 80. Of 90 pairs (1 to 8 neighbours, 32 to 96
// registers) those without weights were the fastest on seven graphs of degree 2 to 26 at widths 16 to 128 (H200), 2.0 %
// behind the best of each case. With weights, of 28 pairs and nine graphs at widths 16 to 256, the pairs that the
// decider takes are 1.3 % behind for float32 with one weight per edge in slot order, 3.5 % in the user's order and 2.5
// % per head, 1.4 to 3.2 % for bfloat16. Single elements and double were not tuned.
struct LaneShape {
  uint32_t neighbours;
  int two_blocks_of;
  bool weights_ahead = false;  // as RowLane::kAhead, where that leaves registers enough
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
  constexpr int fewer = wide ? 64 : 0;  // so that weights of twice the size are not spilled
  if (V == 1) return none ? LaneShape{3, 768 - fewer} : LaneShape{4, (heads ? 576 : 640) - fewer, heads && !wide};
  if (V == 2) return {2, (none ? 640 : heads ? 512 : 576) - fewer, !wide};
  return {1, (heads ? 512 : 576) - fewer, !wide};
}

// The same as a launch bound, of which every architecture can hold two.
constexpr int launch_bound(LaneShape shape) {
  return shape.two_blocks_of < kResidentThreads / 2 ? shape.two_blocks_of : kResidentThreads / 2;
}

// What one thread owns of a row: pieces of VW elements, `step` elements apart, so that the lanes of a group read one
// contiguous run per piece.
template <typename T, int VW, int V, Weighting W, typename Op>
struct RowLane {
  static constexpr int kWeights = W == Weighting::PerHead ? V : 1;
  using C = Compute<T>;
  using Piece = Pack<C, VW>;
  static constexpr uint32_t kUnroll = shape_of<T, VW, V, W>().neighbours;
  // The ids of the next batch are asked for before this one's features are there: a batch then waits for memory once.
  static constexpr bool kAhead = VW > 1;
  static constexpr bool kWeightsAhead = W != Weighting::None && shape_of<T, VW, V, W>().weights_ahead;
  static_assert(kAhead || !kWeightsAhead);

  struct Batch {
    int32_t id[kAhead ? kUnroll : 1];         // columns
    int32_t at[kWeightsAhead ? kUnroll : 1];  // positions of the weights
  };

  const RowParams<T>& p;
  uint32_t column;  // of the first piece
  uint32_t step;
  bool active[V];  // the piece lies inside the width
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

  // Slot u of the batch that starts at k; where it is missing, k again.
  template <bool kFull>
  static __device__ __forceinline__ uint32_t slot_of(uint32_t u, uint32_t k, uint32_t end, uint32_t stride) {
    return kFull || k + u * stride < end ? k + u * stride : k;
  }

  // Where the batch's weights are.
  template <bool kFull, uint32_t kCount>
  __device__ __forceinline__ void find_weights(uint32_t k, uint32_t end, uint32_t stride, int32_t (&at)[kCount]) const {
#pragma unroll
    for (uint32_t u = 0; u < kCount; ++u) at[u] = static_cast<int32_t>(slot_of<kFull>(u, k, end, stride));
    if (p.weight_index == nullptr) return;
#pragma unroll
    for (uint32_t u = 0; u < kCount; ++u) at[u] = __ldg(p.weight_index + at[u]);
  }

  // What to know of a batch before its features can be asked for.
  __device__ __forceinline__ void look_ahead(uint32_t k, uint32_t end, uint32_t stride, Batch& batch) const {
    if (k >= end) return;
#pragma unroll
    for (uint32_t u = 0; u < kUnroll; ++u) batch.id[u] = __ldg(p.col + slot_of<false>(u, k, end, stride));
    if constexpr (kWeightsAhead) find_weights<false>(k, end, stride, batch.at);
  }

  // Adds slots k, k + stride, ... of one batch. All column ids are asked for first, then all features, so that the
  // batch waits for memory twice at most and not twice per edge. A batch that is not full ends before `end`: what is
  // missing reads the ids and weights of slot k again and adds nothing. Pieces that are not active hold garbage, which
  // nobody stores.
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

  // Slots k, k + stride, ... below end. Slots are below 2^31 and the stride at most a block: no sum here
  // overflows.
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

  // Threads a multiple of `lanes` apart, up to `spread`, combine what they hold. The whole warp calls it.
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

  // Every group of the block combines; the threads below `lanes` end with the result. shared: lanes * V pieces per
  // warp.
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
