// The data of the launch rules, which launch.cpp reads. It was fitted on an H100 and an H200, and one set serves both.
// Each entry names the table of docs/tuning.md that set it; "estimate" marks what was not timed.
#pragma once

#include <cstdint>

#include "gnna/decide.h"

namespace gnna {

struct LaunchTuning {
  // Average degree from which 2 and 4 neighbour groups share a row. Rows covered by more than `narrow_lanes` lanes
  // start with the second entry (T1).
  double group_degree[2] = {14, 28};
  int narrow_lanes = 4;

  // Warps per processor that hide the latency of memory. With fewer, more groups share a row, as long as each keeps
  // `busy_degree` edges (T2).
  int64_t busy_warps = 48;
  double busy_degree = 8;

  // Threads per block: in general, in small graphs if at least `small_block_lanes` lanes cover a row, and in tiny ones
  // (T3).
  int block = 64, small_block = 128, tiny_block = 256;
  int small_block_lanes = 16;

  // Edges below which a graph is small: in general, and for 4-byte features without weights (T3).
  int64_t small_edges = 200'000, small_plain_edges = 700'000;

  // A lane makes as many loads as leave `few_lanes` lanes to a row, at most `sparse_loads` below an average degree of
  // `sparse_degree` in graphs that keep `sparse_warps` warps per processor, at most `weighted_loads` if there are
  // weights, otherwise one. Below half of `sparse_degree`, rows of even length take a quarter of `few_lanes` (T4).
  int few_lanes = 8, sparse_loads = 4, weighted_loads = 2;
  double sparse_degree = 12;
  int64_t sparse_warps = 100;

  // Features are gathered in column tiles of `tile_bytes` if they exceed L2 and the average degree is at least
  // `tile_degree` (T5).
  int64_t tile_bytes = 256;
  double tile_degree = 6;

  // Rows with more edges than this multiple of the average degree are split, but none of up to `split_least` edges; in
  // small graphs rows with more than `split_small` are (T6).
  int64_t split_ratio = 2, split_least = 64, split_small = 16;

  // Edges per chunk of a split row, at least; larger if there would be more than so many chunks per processor, because
  // each takes memory for its partial result (estimate).
  int64_t chunk_edges = 256, chunks_per_processor = 64;

  // Rows of x are copied to whole loads from this width and this many edges per node on (T7).
  int64_t pad_width = 16, pad_degree = 4;

  // The group kernel: edges per neighbour group, and threads per block (T8).
  int group_size = 32, group_block = 256;
};

constexpr LaunchTuning kTuning{};

}  // namespace gnna
