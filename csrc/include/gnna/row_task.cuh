// A row kernel for tasks other than sums: something is found out about every element of a row from the row's edges.
// A team, a warp or a part of one, takes a row: `lanes` threads cover the width in pieces, the team's other lanes take
// other edges, and they meet by shuffles. A split row is cut into chunks, one block each, whose results are combined
// (combine_chunks.cuh). So there are no atomics on results, and the bits do not change from run to run.
//
// A Task is made for one piece of one row; it has
//   Args                         what the launch is given: its kernel parameter
//   kPiece                       elements of the width in a piece
//   kBlocks                      that share a multiprocessor, which holds a thread to 512 / kBlocks registers
//   Found                        what is known of a piece so far: plain data of whole 32-bit words
//   Task(args, row, column)      reads what it needs of the row
//   Found start()                nothing yet
//   void add(Found&, slot)       takes in one edge
//   static void combine(Found&, const Found&)
//   void finish(const Found&)    stores the result
// Args has csr and width().
#pragma once

#include <cstring>

#include "gnna/combine_chunks.cuh"
#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

constexpr int kTaskBlock = 128, kTaskWarps = kTaskBlock / 32;
// What most tasks want: 64 warps of 32 registers, a thread with one edge under way, were faster on an H200 than four
// edges in 48 to 68 registers: max with its edge 19 to 26 %, its sharers 56 to 64 %, a softmax 5 to 20 % (float, five
// graphs, widths 16 to 128). Pieces of eight 16-bit elements need more than 32 registers; they and double were not
// timed.
template <typename T, int VW>
constexpr int kTaskBlocks = sizeof(T) == 2 && VW > 1 ? 8 : 16;
// Edges that a lane of a team takes of a row of average degree. 8 were up to 25 % faster than 4; with few rows every
// lane counts: 1 was 30 % faster on cora (H200). What are few is an estimate.
constexpr int64_t kTaskEdges = 8, kTaskFewRows = 8192;

// The words of plain data, for shuffles and for loads that other blocks' stores must be seen by.
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

template <typename Found>
__device__ __forceinline__ Found load_found_by_blocks(const Found* p) {
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

// What is left for the block of chunk blockIdx.x once its results are in p.partials.
template <typename Task>
__device__ __forceinline__ void finish_chunks(const TaskParams<Task>& p, bool& is_last) {
  using Found = typename Task::Found;
  const RowChunk& chunk = p.chunks[found_again(blockIdx.x)];
  if (chunk.count == 1) return;
  const uint32_t thread = found_again(threadIdx.x);
  const auto pieces = static_cast<uint32_t>((p.args.width() + Task::kPiece - 1) / Task::kPiece);
  const auto partial = [&](int32_t place, uint32_t piece) {
    return p.partials + static_cast<int64_t>(chunk.first + place) * pieces + piece;
  };
  const auto stored = [](int32_t) {};  // before, and by gather
  const auto gather = [&](int32_t place, int32_t step, int32_t members) {
    const int32_t end = place + members * step;
    for (uint32_t piece = thread; piece < pieces; piece += kTaskBlock) {
      Found found = load_found_by_blocks(partial(place, piece));
#pragma unroll 1  // more cost every edge of every row registers
      for (int32_t other = place + step; other < end; other += step) {
        Task::combine(found, load_found_by_blocks(partial(other, piece)));
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

  // The threads that share an edge range: a team for a row, the block for a chunk, whose warps are the teams then.
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
    if (!owns) place = csr.rows - 1;  // somebody else's; the shuffles below name the whole warp, so nobody leaves
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
#pragma unroll 1
      for (int64_t slot = begin + group; slot < end; slot += stride) task.add(found, slot);
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
    __syncthreads();  // before the next tile overwrites what the first warp reads
  }
  if (is_chunk) finish_chunks(p, is_last);
}

// scratch: task_scratch_bytes of T for these chunks and this width.
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
