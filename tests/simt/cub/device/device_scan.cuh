// Replaces CUB's exclusive sum, in the form that the kernels' launchers use.
#pragma once

#include "cuda_runtime.h"

namespace cub {

struct DeviceScan {
  template <typename T>
  static cudaError_t ExclusiveSum(void* temporary, size_t& bytes, const T* in, T* out, int count, cudaStream_t) {
    constexpr size_t kWanted = 1000;
    if (temporary == nullptr) {
      bytes = kWanted;
      return cudaSuccess;
    }
    if (bytes < kWanted) return cudaErrorInvalidValue;
    std::memset(temporary, 0xab, kWanted);
    T sum = 0;
    for (int i = 0; i < count; ++i) {
      const T value = in[i];
      out[i] = sum;
      sum += value;
    }
    return cudaSuccess;
  }
};

}  // namespace cub
