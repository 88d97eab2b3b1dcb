// Replaces the CUDA toolkit's header of this name, so that g++ compiles the kernels as C++. Defines the keywords and
// functions of CUDA that the kernels use, on top of the scheduler in simt.h. Add others when a kernel needs them.
#pragma once

#include <math.h>  // not cmath: device code calls fma without std::, in all its overloads

#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

#include "simt.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ thread_local

#define threadIdx (simt::here.thread)
#define blockIdx (simt::here.block)
#define blockDim (simt::here.block_size)
#define gridDim (simt::here.grid)

// ---- host side ----------------------------------------------------------------------------------------------------

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice = 3 };
using cudaStream_t = void*;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace simt {
inline thread_local cudaError_t last_error = cudaSuccess;

template <typename... P, size_t... I>
void call(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<P*>(arguments[I])...);
}
}  // namespace simt

inline cudaError_t cudaGetLastError() { return std::exchange(simt::last_error, cudaSuccess); }

template <typename... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t) {
  const bool fits = simt::launch({grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared,
                                 [&] { simt::call(kernel, arguments, std::index_sequence_for<P...>{}); });
  return fits ? cudaSuccess : simt::last_error = cudaErrorInvalidConfiguration;
}

inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

// ---- memory -------------------------------------------------------------------------------------------------------

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};

template <typename T>
T __ldg(const T* p) {
  return *p;
}
template <typename T>
T __ldcg(const T* p) {
  return *p;
}

template <typename T>
T __ldcs(const T* p) {
  return *p;
}
template <typename T>
void __stcs(T* p, T value) {
  *p = value;
}

inline void __threadfence() { simt::preempt(16); }

namespace simt {
template <typename T, typename F>
T atomic(T* p, F update) {
  preempt(1);
  const T old = *p;
  *p = update(old);
  preempt(1);
  return old;
}
}  // namespace simt

template <typename T>
T atomicAdd(T* p, T value) {
  return simt::atomic(p, [&](T old) { return old + value; });
}
template <typename T>
T atomicMin(T* p, T value) {
  return simt::atomic(p, [&](T old) { return value < old ? value : old; });
}
template <typename T>
T atomicMax(T* p, T value) {
  return simt::atomic(p, [&](T old) { return value > old ? value : old; });
}

// ---- barriers and warp operations ---------------------------------------------------------------------------------

inline void __syncthreads() { simt::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { simt::warp_exchange("__syncwarp", mask, 0, simt::lane()); }

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const unsigned source = simt::lane() ^ static_cast<unsigned>(lane_mask);
  bits = simt::warp_exchange(sizeof(T) == 4 ? "__shfl_xor_sync" : "__shfl_xor_sync of 8 bytes", mask, bits, source);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

inline int __any_sync(unsigned mask, int predicate) {
  return simt::warp_exchange("__any_sync", mask, predicate != 0, simt::kBallot) != 0;
}

// ---- arithmetic: not contracted, because the emulation is compiled with -ffp-contract=off --------------------------

inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dmul_rn(double a, double b) { return a * b; }
