// How the parts of a cut row, an item and a block each, come together: as a tree. Of up to kBundle parts the block that
// finishes last combines what all have left in memory, in an order that does not depend on who it is, and goes on as
// one part of the next level: the bits are always the same. A row of up to kBundle parts has one level. With one level
// for all, the last block took 0.4 us for every few parts: a row of 3 M edges, 12 thousand parts, half of the kernel's
// time (H200).
#pragma once

#include "gnna/cuda_api.h"

namespace gnna::cuda {

constexpr int32_t kBundle = 32;

// The whole block calls it with its part's result; in one block of the row it returns true, with the row's result. The
// results are where store and gather keep them: in registers, or in the first of the places that they stand for. Of the
// row's places in memory, numbered as its parts are,
//   store(place)                   writes what this block has now, and fences it, unless it stands there already
//   gather(place, step, members)   has the block combine what place, place + step, ... hold
//   counter(place)                 is an arrival counter, zero at launch
// is_last is shared memory.
template <typename Store, typename Gather, typename Counter>
__device__ __forceinline__ bool come_together(const LongItem& item, bool& is_last, const Store& store,
                                              const Gather& gather, const Counter& counter) {
  int32_t index = item.part, count = item.parts, step = 1;
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
