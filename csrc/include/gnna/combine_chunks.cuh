// Combines the partial results of a split row's chunks, each computed by one block, as a tree of bundles of kBundle
// chunks. The block that finishes last in its bundle combines the whole bundle and represents it on the next level. The
// order of the operands does not depend on which block finishes last, so every run gives the same bits. A tree is used
// because the time of a single combining block grows with the number of chunks (docs/profile-h200.md, Registers).
#pragma once

#include "gnna/cuda_api.h"

namespace gnna::cuda {

constexpr int32_t kBundle = 32;

// Called by every thread of a block once the block has its chunk's partial result. Returns true in exactly one block of
// the row, which then holds the row's result. Each chunk of the row has a place, numbered from 0, and a bundle has the
// place of its first chunk. `store` and `gather` decide whether results are kept in registers or in memory, at their
// place.
//   store(place)                   writes this block's result to its place and fences the write; may do nothing if the
//                                  result is already there
//   gather(place, step, members)   combines the results at place, place + step, ..., using the whole block
//   counter(place)                 returns a pointer to the place's arrival counter, zero at launch
// is_last must be in shared memory.
template <typename Store, typename Gather, typename Counter>
__device__ __forceinline__ bool combine_chunks(const RowChunk& chunk, bool& is_last, const Store& store,
                                               const Gather& gather, const Counter& counter) {
  int32_t index = chunk.index, count = chunk.count, step = 1;
  for (int32_t level = 0; count > 1; ++level, step *= kBundle) {
    const int32_t bundle = index / kBundle, head = bundle * kBundle;
    const int32_t members = count - head < kBundle ? count - head : kBundle;
    store(index * step);
    if (members > 1) {
      __syncthreads();
      if (threadIdx.x == 0) {
        __threadfence();
        // Adding the level keeps the counters of different levels distinct. The sum stays within the row's places,
        // because a bundle with several members spans more places than its level.
        is_last = atomicAdd(counter(head * step + level), 1) == members - 1;
        __threadfence();
      }
      __syncthreads();
      if (!is_last) return false;
      gather(head * step, step, members);
    }
    index = bundle;
    count = (count + kBundle - 1) / kBundle;
  }
  return true;
}

}  // namespace gnna::cuda
