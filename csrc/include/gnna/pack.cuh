// Device building blocks that several kernels share: a piece of a feature row held in registers (16 bytes or one
// element) with its loads and stores, the product whose rounding forward and backward must agree on, and the three
// reductions with their identities.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

namespace gnna::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kVectorBytes = 16;

template <typename T>
constexpr int kVectorWidth = kVectorBytes / static_cast<int>(sizeof(T));

// N consecutive elements of a feature row; aligned, so that it moves as one 16-byte access.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};

// Feature loads, through the read-only path and predicated in the instruction itself: the compiler turns an `if` around
// many loads into branches, and then they no longer leave together. Where `wanted` is false the result is undefined.
#ifdef __CUDACC__
template <int N>
__device__ __forceinline__ Pack<float, N> load_pack_if(bool wanted, const float* p) {
  Pack<float, N> r;
  if constexpr (N == 4) {
    asm("{\n .reg .pred q;\n setp.ne.s32 q, %4, 0;\n @q ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%5];\n}"
        : "=f"(r.v[0]), "=f"(r.v[1]), "=f"(r.v[2]), "=f"(r.v[3])
        : "r"(static_cast<int>(wanted)), "l"(__cvta_generic_to_global(p)));
  } else {
    static_assert(N == 1);
    asm("{\n .reg .pred q;\n setp.ne.s32 q, %1, 0;\n @q ld.global.nc.f32 %0, [%2];\n}"
        : "=f"(r.v[0])
        : "r"(static_cast<int>(wanted)), "l"(__cvta_generic_to_global(p)));
  }
  return r;
}

template <int N>
__device__ __forceinline__ Pack<double, N> load_pack_if(bool wanted, const double* p) {
  Pack<double, N> r;
  if constexpr (N == 2) {
    asm("{\n .reg .pred q;\n setp.ne.s32 q, %2, 0;\n @q ld.global.nc.v2.f64 {%0, %1}, [%3];\n}"
        : "=d"(r.v[0]), "=d"(r.v[1])
        : "r"(static_cast<int>(wanted)), "l"(__cvta_generic_to_global(p)));
  } else {
    static_assert(N == 1);
    asm("{\n .reg .pred q;\n setp.ne.s32 q, %1, 0;\n @q ld.global.nc.f64 %0, [%2];\n}"
        : "=d"(r.v[0])
        : "r"(static_cast<int>(wanted)), "l"(__cvta_generic_to_global(p)));
  }
  return r;
}
#else
// PTX means nothing to a host compiler; what is not wanted is filled with a value that no reduction would hide.
template <int N, typename T>
Pack<T, N> load_pack_if(bool wanted, const T* p) {
  Pack<T, N> r;
  for (int i = 0; i < N; ++i) r.v[i] = static_cast<T>(NAN);
  if (wanted) r = *reinterpret_cast<const Pack<T, N>*>(p);
  return r;
}
#endif

template <int N>
__device__ __forceinline__ Pack<float, N> load_pack(const float* p) {
  if constexpr (N == 4) {
    const float4 f = __ldg(reinterpret_cast<const float4*>(p));
    return {{f.x, f.y, f.z, f.w}};
  } else {
    return {{__ldg(p)}};
  }
}

template <int N>
__device__ __forceinline__ Pack<double, N> load_pack(const double* p) {
  if constexpr (N == 2) {
    const double2 f = __ldg(reinterpret_cast<const double2*>(p));
    return {{f.x, f.y}};
  } else {
    return {{__ldg(p)}};
  }
}

// Written by other blocks of the same launch: read from L2, where their fenced stores are.
template <int N>
__device__ __forceinline__ Pack<float, N> load_shared_by_blocks(const float* p) {
  if constexpr (N == 4) {
    const float4 f = __ldcg(reinterpret_cast<const float4*>(p));
    return {{f.x, f.y, f.z, f.w}};
  } else {
    return {{__ldcg(p)}};
  }
}

template <int N>
__device__ __forceinline__ Pack<double, N> load_shared_by_blocks(const double* p) {
  if constexpr (N == 2) {
    const double2 f = __ldcg(reinterpret_cast<const double2*>(p));
    return {{f.x, f.y}};
  } else {
    return {{__ldcg(p)}};
  }
}

template <typename T, int N>
__device__ __forceinline__ void store_pack(T* p, const Pack<T, N>& value) {
  *reinterpret_cast<Pack<T, N>*>(p) = value;
}

// weight * x rounded once and never contracted into an fma: the backward of max and min finds the winners by comparing
// this product with the forward result, bit for bit.
__device__ __forceinline__ float product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double product(double a, double b) { return __dmul_rn(a, b); }

struct SumOp {
  template <typename T>
  static __device__ __forceinline__ T identity() {
    return T(0);
  }
  template <typename T>
  static __device__ __forceinline__ T combine(T a, T b) {
    return a + b;
  }
  template <typename T>
  static __device__ __forceinline__ T weighted(T acc, T weight, T x) {
    return fma(weight, x, acc);
  }
};

// A NaN wins and stays: it beats every number (b != b), and no number is greater than it.
struct MaxOp {
  template <typename T>
  static __device__ __forceinline__ T identity() {
    return static_cast<T>(-INFINITY);
  }
  template <typename T>
  static __device__ __forceinline__ T combine(T a, T b) {
    return (b > a || b != b) ? b : a;
  }
  template <typename T>
  static __device__ __forceinline__ T weighted(T acc, T weight, T x) {
    return combine(acc, product(weight, x));
  }
};

struct MinOp {
  template <typename T>
  static __device__ __forceinline__ T identity() {
    return static_cast<T>(INFINITY);
  }
  template <typename T>
  static __device__ __forceinline__ T combine(T a, T b) {
    return (b < a || b != b) ? b : a;
  }
  template <typename T>
  static __device__ __forceinline__ T weighted(T acc, T weight, T x) {
    return combine(acc, product(weight, x));
  }
};

}  // namespace gnna::cuda
