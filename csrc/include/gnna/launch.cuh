// Helpers for host code that launches kernels: the launch itself, launch bounds, grid sizes, powers of two, alignment.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace gnna::cuda {

constexpr int64_t kMaxIndex = INT32_MAX;  // largest number of slots, rows or columns (int32 ids), and largest grid.x
constexpr int64_t kMaxGridY = 65535;

// Threads that a multiprocessor of this architecture can hold. The compiler ignores launch bounds that exceed it.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 750
constexpr int kResidentThreads = 1024;
#elif defined(__CUDA_ARCH__) && ((__CUDA_ARCH__ >= 860 && __CUDA_ARCH__ < 900) || __CUDA_ARCH__ >= 1100)
constexpr int kResidentThreads = 1536;
#else
constexpr int kResidentThreads = 2048;
#endif

// Returns the blocks per multiprocessor for a launch bound: `blocks`, or as many blocks of `threads` threads as fit.
constexpr int resident_blocks(int blocks, int threads) {
  return blocks * threads <= kResidentThreads ? blocks : kResidentThreads / threads;
}

// Exactly<T>::Type is T but takes no part in template argument deduction (std::type_identity of C++20).
template <typename T>
struct Exactly {
  using Type = T;
};

// Launches a kernel and returns the launch's error. The arguments are converted to the kernel's parameter types. This
// spells out the runtime call behind <<<...>>>, so that a host compiler can compile these sources for tests/simt, which
// runs them on a CPU.
template <typename... P>
cudaError_t launch(void (*kernel)(P...), dim3 grid, unsigned block, size_t shared, cudaStream_t stream,
                   typename Exactly<P>::Type... arguments) {
  void* pointers[] = {&arguments...};
  cudaLaunchKernel(kernel, grid, dim3(block), pointers, shared, stream);
  return cudaGetLastError();
}

// Apply a macro to all element types, or to all pairs of an element type and an id type, for explicit instantiations.
#define GNNA_FOR_EACH_TYPE(INSTANTIATE) \
  INSTANTIATE(float);                   \
  INSTANTIATE(double);                  \
  INSTANTIATE(Float16);                 \
  INSTANTIATE(BFloat16)
#define GNNA_FOR_EACH_TYPE_AND_ID(INSTANTIATE) \
  INSTANTIATE(float, int32_t);                 \
  INSTANTIATE(float, int64_t);                 \
  INSTANTIATE(double, int32_t);                \
  INSTANTIATE(double, int64_t);                \
  INSTANTIATE(Float16, int32_t);               \
  INSTANTIATE(Float16, int64_t);               \
  INSTANTIATE(BFloat16, int32_t);              \
  INSTANTIATE(BFloat16, int64_t)

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline bool is_power_of_two(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

inline int log2_of(int64_t power_of_two) {
  int bits = 0;
  while ((int64_t{1} << bits) < power_of_two) ++bits;
  return bits;
}

inline bool is_aligned(const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

// Returns the grid size for a grid-stride loop over n elements: at least one block, at most `most`.
inline unsigned stride_blocks(int64_t n, int64_t per_block, int64_t most) {
  const int64_t blocks = ceil_div(n, per_block);
  return static_cast<unsigned>(blocks < 1 ? 1 : (blocks > most ? most : blocks));
}

// Returns how many threads (a power of two, at most 32) share `pieces` loads: one load per thread for up to 8 pieces,
// at most two for up to 64.
inline int lanes_for(int64_t pieces) {
  int lanes = 1;
  while (lanes < 32 && lanes < (pieces > 8 ? (pieces + 1) / 2 : pieces)) lanes *= 2;
  return lanes;
}

}  // namespace gnna::cuda
