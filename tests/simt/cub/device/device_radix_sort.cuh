// Replaces CUB's stable sort of pairs, in the form that build_csr uses. Like CUB's it compares only the given bits of
// the keys, needs a workspace, and may leave the result in either of the two buffers. Here the buffer depends on the
// schedule.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "cuda_runtime.h"

namespace cub {

template <typename T>
struct DoubleBuffer {
  T* d_buffers[2] = {nullptr, nullptr};
  int selector = 0;

  DoubleBuffer() = default;
  DoubleBuffer(T* current, T* alternate) : d_buffers{current, alternate} {}
  T* Current() const { return d_buffers[selector]; }
  T* Alternate() const { return d_buffers[selector ^ 1]; }
};

struct DeviceRadixSort {
  template <typename Key, typename Value>
  static cudaError_t SortPairs(void* temporary, size_t& bytes, DoubleBuffer<Key>& keys, DoubleBuffer<Value>& values,
                               int count, int first_bit, int last_bit, cudaStream_t) {
    constexpr size_t kWanted = 1000;
    if (temporary == nullptr) {
      bytes = kWanted;
      return cudaSuccess;
    }
    if (bytes < kWanted) return cudaErrorInvalidValue;
    std::memset(temporary, 0xab, kWanted);
    const auto bits_of = [&](int i) {
      return static_cast<uint64_t>(keys.Current()[i]) >> first_bit & ((uint64_t{1} << (last_bit - first_bit)) - 1);
    };
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return bits_of(a) < bits_of(b); });
    for (int i = 0; i < count; ++i) {
      keys.Alternate()[i] = keys.Current()[order[i]];
      values.Alternate()[i] = values.Current()[order[i]];
    }
    const bool stay = simt::schedule() % 2 == 0;
    for (int i = 0; i < count && stay; ++i) {
      std::swap(keys.Current()[i], keys.Alternate()[i]);
      std::swap(values.Current()[i], values.Alternate()[i]);
    }
    keys.selector ^= !stay;
    values.selector ^= !stay;
    return cudaSuccess;
  }
};

}  // namespace cub
