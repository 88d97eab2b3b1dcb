// A row kernel for operations other than SpMM: a Task reduces the edges of a row to one Found per piece of the width
// (softmax totals, max with its winning edge, gradients of max and min).
// A team, which is a warp or a part of one, takes a row. Its threads form groups of `lanes` threads: the lanes of a
// group cover the width in pieces, the groups take the row's edges in turn, and their results are combined by shuffles.
// A split row is cut into chunks, one block each, whose results are combined (combine_chunks.cuh). Results need no
// atomics, so every run gives the same bits.
//
// A Task object is constructed for one piece of one row. A Task has
//   Args                         the kernel's parameter, with the members csr and width()
//   kPiece                       elements of the width in a piece
//   kBlocks                      blocks per multiprocessor; limits a thread to 512 / kBlocks registers
//   Found                        partial result of a piece: plain data made of whole 32-bit words
//   Task(args, row, column)      loads what it needs of the row
//   Found start()                the result of no edges
//   void add<N>(Found&, slot, stride)   adds N edges, at slot, slot + stride, ...
//   kBatch                       the largest N: a task that loads several operands per edge has several edges in flight
//   static void combine(Found&, const Found&)
//   void finish(const Found&)    stores the row's result
#pragma once

#include <cstring>

#include "gnna/combine_chunks.cuh"
#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

constexpr int kTaskBlock = 128, kTaskWarps = kTaskBlock / 32;
// Blocks per multiprocessor for most tasks: 64 warps of 32 registers, each thread with one edge in flight. They were
// faster than four edges in 48 to 68 registers, a softmax for instance by 5 to 20 % (H200, float; docs/profile-h200.md,
// Registers). Pieces of eight 16-bit elements need more than 32 registers. Those pieces and double were not measured.
template <typename T, int VW>
constexpr int kTaskBlocks = sizeof(T) == 2 && VW > 1 ? 8 : 16;
// Edges per group of a row of average degree: teams are enlarged, up to a warp, until a group has at most kTaskEdges. 8
// edges were up to 25 % faster than 4 (H200). With at most kTaskFewRows rows (an estimate) a group takes one edge,
// because the device then has idle lanes.
constexpr int64_t kTaskEdges = 8, kTaskFewRows = 8192;

// A Found as 32-bit words, for shuffles and for loads from L2.
template <typename Found>
struct WordsOf {
  static_assert(sizeof(Found) % sizeof(int32_t) == 0);
  static constexpr int kCount = sizeof(Found) / sizeof(int32_t);
  int32_t word[kCount];
};

template <typename Found>
__device__ __forceinline__ Found shuffle_xor(const Found& found, int offset) {
  WordsOf<Found> words;
  std::memcpy(&words, &found, sizeof words);
#pragma unroll
  for (int32_t& word : words.word) word = __shfl_xor_sync(kFullWarp, word, offset);
  Found other;
  std::memcpy(&other, &words, sizeof words);
  return other;
}

// Loads a Found that another block of the same launch wrote. It is read from L2, where that block's fenced stores are
// visible.
template <typename Found>
__device__ __forceinline__ Found load_found_from_l2(const Found* p) {
  WordsOf<Found> words;
#pragma unroll
  for (int i = 0; i < WordsOf<Found>::kCount; ++i) words.word[i] = __ldcg(reinterpret_cast<const int32_t*>(p) + i);
  Found found;
  std::memcpy(&found, &words, sizeof words);
  return found;
}

template <typename Task>
struct TaskParams {
  typename Task::Args args;
  const RowChunk* chunks;
  typename Task::Found* partials;  // [chunk_count, pieces]
  int32_t* counters;               // [chunk_count], zero at launch
  uint32_t chunk_count;
  int64_t split_above;
  int lanes_log2, team_log2;
};

// Combines the partial results of the row of chunk blockIdx.x and stores the row's result, once this block's partial
// results are in p.partials. The row's last block stores.
template <typename Task>
__device__ __forceinline__ void finish_chunks(const TaskParams<Task>& p, bool& is_last) {
  using Found = typename Task::Found;
  const RowChunk& chunk = p.chunks[hide_origin(blockIdx.x)];
  if (chunk.count == 1) return;
  const uint32_t thread = hide_origin(threadIdx.x);
  const auto pieces = static_cast<uint32_t>((p.args.width() + Task::kPiece - 1) / Task::kPiece);
  const auto partial = [&](int32_t place, uint32_t piece) {
    return p.partials + static_cast<int64_t>(chunk.first + place) * pieces + piece;
  };
  const auto stored = [](int32_t) {};  // run_task and gather have already stored
  const auto gather = [&](int32_t place, int32_t step, int32_t members) {
    const int32_t end = place + members * step;
    for (uint32_t piece = thread; piece < pieces; piece += kTaskBlock) {
      Found found = load_found_from_l2(partial(place, piece));
#pragma unroll 1  // unrolling would raise the register count of the whole kernel
      for (int32_t other = place + step; other < end; other += step) {
        Task::combine(found, load_found_from_l2(partial(other, piece)));
      }
      *partial(place, piece) = found;
      __threadfence();
    }
  };
  const auto counter = [&](int32_t place) { return p.counters + chunk.first + place; };
  if (!combine_chunks(chunk, is_last, stored, gather, counter)) return;
  const int64_t row = row_at(p.args.csr.order, chunk.row);
  for (uint32_t piece = thread; piece < pieces; piece += kTaskBlock) {
    Task(p.args, row, int64_t{piece} * Task::kPiece).finish(*partial(0, piece));
  }
}

template <typename Task>
__global__ void __launch_bounds__(kTaskBlock, resident_blocks(Task::kBlocks, kTaskBlock))
    run_task(const __grid_constant__ TaskParams<Task> p) {
  using Found = typename Task::Found;
  __shared__ Found met[kTaskWarps][32];
  __shared__ bool is_last;
  const CsrView& csr = p.args.csr;
  const int lanes = 1 << p.lanes_log2;
  const int lane = threadIdx.x & (lanes - 1), warp = threadIdx.x >> 5;
  const int64_t width = p.args.width(), pieces = (width + Task::kPiece - 1) / Task::kPiece;
  const bool is_chunk = blockIdx.x < p.chunk_count;

  // The threads that share an edge range: a team for a row, the whole block for a chunk. The teams of a chunk's block
  // are its warps.
  const int team_log2 = is_chunk ? 5 : p.team_log2;
  const int groups = 1 << (team_log2 - p.lanes_log2);
  const int64_t stride = is_chunk ? kTaskWarps * groups : groups;
  int64_t group = (threadIdx.x & ((1 << team_log2) - 1)) >> p.lanes_log2;
  int64_t place, begin, end;  // place of the row in the plan's order
  bool owns = true;
  if (is_chunk) {
    const RowChunk& chunk = p.chunks[blockIdx.x];
    group += warp * groups;
    place = chunk.row;
    begin = chunk.begin;
    end = chunk.end;
  } else {
    place = static_cast<int64_t>(blockIdx.x - p.chunk_count) * (kTaskBlock >> team_log2) + (threadIdx.x >> team_log2);
    owns = place < csr.rows;
    if (!owns) place = csr.rows - 1;  // any valid place: the shuffles below need every thread of the warp
    begin = __ldg(csr.rowptr + place);
    end = __ldg(csr.rowptr + place + 1);
    owns = owns && end - begin <= p.split_above;
    if (!owns) end = begin;
  }
  const int64_t row = row_at(csr.order, place);

  for (int64_t tile = 0; tile < pieces; tile += lanes) {
    const int64_t piece = tile + lane;
    const bool active = piece < pieces;
    Task task(p.args, row, active ? piece * Task::kPiece : 0);
    Found found = task.start();
    if (active) {
      int64_t slot = begin + group;
      if constexpr (Task::kBatch > 1) {
#pragma unroll 1
        for (; slot + (Task::kBatch - 1) * stride < end; slot += Task::kBatch * stride) {
          task.template add<Task::kBatch>(found, slot, stride);
        }
      }
#pragma unroll 1
      for (; slot < end; slot += stride) task.template add<1>(found, slot, stride);
    }
    __syncwarp();
    for (int offset = lanes; offset < 1 << team_log2; offset *= 2) Task::combine(found, shuffle_xor(found, offset));
    if (!is_chunk) {
      if (owns && active && group == 0) task.finish(found);
      continue;
    }
    if ((threadIdx.x & 31) < lanes) met[warp][lane] = found;
    __syncthreads();
    if (threadIdx.x < lanes && active) {
      for (int other = 1; other < kTaskWarps; ++other) Task::combine(found, met[other][lane]);
      const RowChunk& chunk = p.chunks[blockIdx.x];
      if (chunk.count == 1) {
        task.finish(found);
      } else {
        p.partials[(static_cast<int64_t>(chunk.first) + chunk.index) * pieces + piece] = found;
        __threadfence();
      }
    }
    __syncthreads();  // the next tile overwrites `met`, which the first warp reads
  }
  if (is_chunk) finish_chunks(p, is_last);
}

// Launches a Task on all rows of args.csr. scratch has task_scratch_bytes<T>(split_rows, args.width()) bytes.
template <typename T, typename Task>
cudaError_t launch_task(const typename Task::Args& args, const SplitRows& split_rows, void* scratch,
                        cudaStream_t stream) {
  const int64_t width = args.width();
  if (args.csr.rows == 0 || width == 0) return cudaSuccess;
  TaskParams<Task> params{};
  params.args = args;
  params.split_above = INT64_MAX;
  const int64_t pieces = ceil_div(width, Task::kPiece);
  static_assert(sizeof(typename Task::Found) <= kTaskBytes<T> * Task::kPiece);
  if (split_rows.count > 0) {
    if (split_rows.chunks == nullptr) return cudaErrorInvalidValue;
    params.chunks = split_rows.chunks;
    params.chunk_count = static_cast<uint32_t>(split_rows.count);
    params.split_above = split_rows.split_above;
  }
  if (split_rows.needs_combining) {
    if (scratch == nullptr || !is_aligned(scratch, kVectorBytes)) return cudaErrorInvalidValue;
    params.counters = static_cast<int32_t*>(scratch);
    const size_t counters = task_counter_bytes(split_rows.count);
    params.partials = reinterpret_cast<typename Task::Found*>(static_cast<unsigned char*>(scratch) + counters);
    const cudaError_t error = cudaMemsetAsync(scratch, 0, counters, stream);
    if (error != cudaSuccess) return error;
  }
  params.lanes_log2 = params.team_log2 = log2_of(lanes_for(pieces));
  const int64_t of_a_lane = args.csr.rows * (args.csr.rows <= kTaskFewRows ? 1 : kTaskEdges);
  while (params.team_log2 < 5 && of_a_lane << (params.team_log2 - params.lanes_log2) < args.csr.edges) {
    ++params.team_log2;
  }
  const int64_t blocks = split_rows.count + ceil_div(args.csr.rows, kTaskBlock >> params.team_log2);
  if (blocks > kMaxIndex) return cudaErrorInvalidValue;
  return launch(run_task<Task>, static_cast<unsigned>(blocks), kTaskBlock, 0, stream, params);
}

}  // namespace gnna::cuda
