// Combines the partial results of a split row's chunks, each computed by one block, as a tree of bundles of kBundle
// chunks. The block that finishes last in its bundle combines the whole bundle, in an order that does not depend on
// which block it is, and represents the bundle on the next level, so the bits are the same on every run. A tree because
// one block would need 0.4 us for every few chunks of a row (docs/profile-h200.md).
#pragma once

#include "gnna/cuda_api.h"

namespace gnna::cuda {

constexpr int32_t kBundle = 32;

// Called by every thread of a block once the block has its chunk's partial result. Returns true in exactly one block of
// the row, which then holds the row's result. Results live where `store` and `gather` keep them: in registers, or in
// the places of memory, one per chunk of the row:
//   store(place)                   writes this block's result to its place and fences the write (may do nothing if the
//                                  result is already there)
//   gather(place, step, members)   combines the results at place, place + step, ..., by the whole block
//   counter(place)                 an arrival counter, zero at launch
// is_last: in shared memory.
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
        // Bundles of several members span more places than there are levels: the counters are all different ones.
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
