// Device building blocks that several kernels share: a piece of a feature row in registers (16 bytes of memory or one
// element) with its loads and stores, the three reductions with their identities, and the product whose rounding
// forward and backward must agree on.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "gnna/half.cuh"

namespace gnna::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kVectorBytes = 16;

// Returns the row whose neighbour list is stored at this place of a plan.
__device__ __forceinline__ int64_t row_at(const int32_t* order, int64_t place) {
  return order != nullptr ? __ldg(order + place) : place;
}

// Hides a value's origin from the optimizer, so that values derived from it need not stay in registers: they are
// recomputed from the result.
template <typename N>
__device__ __forceinline__ N hide_origin(N n) {
#ifdef __CUDACC__
  static_assert(sizeof(N) == 4);
  asm volatile("" : "+r"(n));
#endif
  return n;
}

// Elements in a 16-byte access.
template <typename T>
constexpr int kVectorWidth = kVectorBytes / static_cast<int>(sizeof(T));

// N consecutive elements of a feature row in the type that kernels compute in. Aligned, so that it is moved in accesses
// of up to 16 bytes.
template <typename T, int N>
struct alignas(sizeof(T) * N < kVectorBytes ? sizeof(T) * N : kVectorBytes) Pack {
  T v[N];
};

// Eight 16-bit elements as loaded, in four registers. Widened to float they need eight registers, so they are widened
// only when they are used.
struct alignas(kVectorBytes) Words {
  uint32_t v[4];
};

// N elements as they are in memory.
template <typename T, int N>
using Raw = std::conditional_t<sizeof(T) == 2 && N == 8, Words, Pack<T, N>>;

// Converts a raw piece to the type that kernels compute in.
template <typename T, int N>
__device__ __forceinline__ Pack<Compute<T>, N> widen_pack(const Raw<T, N>& raw) {
  if constexpr (std::is_same_v<Raw<T, N>, Words>) {
    Pack<Compute<T>, N> r;
#pragma unroll
    for (int i = 0; i < N; ++i) r.v[i] = widen(T{static_cast<uint16_t>(raw.v[i / 2] >> (i % 2 * 16))});
    return r;
  } else {
    static_assert(sizeof(T) > 2 || N == 1);
    Pack<Compute<T>, N> r;
#pragma unroll
    for (int i = 0; i < N; ++i) r.v[i] = widen(raw.v[i]);
    return r;
  }
}

// Loads a feature piece through the read-only path. The load instruction itself is predicated: the compiler turns an
// `if` around many loads into branches, and the loads are then no longer issued together. If `wanted` is false, the
// content of r is unspecified. The asm takes r as both input and output, so that one set of registers serves all
// batches of a thread.
#ifdef __CUDACC__
template <int N>
__device__ __forceinline__ void load_raw_if(bool wanted, const float* p, Pack<float, N>& r) {
  if constexpr (N == 4) {
    asm("{\n .reg .pred q;\n setp.ne.s32 q, %4, 0;\n @q ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%5];\n}"
        : "+f"(r.v[0]), "+f"(r.v[1]), "+f"(r.v[2]), "+f"(r.v[3])
        : "r"(static_cast<int>(wanted)), "l"(__cvta_generic_to_global(p)));
  } else {
    static_assert(N == 1);
    asm("{\n .reg .pred q;\n setp.ne.s32 q, %1, 0;\n @q ld.global.nc.f32 %0, [%2];\n}"
        : "+f"(r.v[0])
        : "r"(static_cast<int>(wanted)), "l"(__cvta_generic_to_global(p)));
  }
}

template <int N>
__device__ __forceinline__ void load_raw_if(bool wanted, const double* p, Pack<double, N>& r) {
  if constexpr (N == 2) {
    asm("{\n .reg .pred q;\n setp.ne.s32 q, %2, 0;\n @q ld.global.nc.v2.f64 {%0, %1}, [%3];\n}"
        : "+d"(r.v[0]), "+d"(r.v[1])
        : "r"(static_cast<int>(wanted)), "l"(__cvta_generic_to_global(p)));
  } else {
    static_assert(N == 1);
    asm("{\n .reg .pred q;\n setp.ne.s32 q, %1, 0;\n @q ld.global.nc.f64 %0, [%2];\n}"
        : "+d"(r.v[0])
        : "r"(static_cast<int>(wanted)), "l"(__cvta_generic_to_global(p)));
  }
}

template <int N, typename T, typename = std::enable_if_t<sizeof(T) == 2>>
__device__ __forceinline__ void load_raw_if(bool wanted, const T* p, Raw<T, N>& r) {
  if constexpr (N == 8) {
    asm("{\n .reg .pred q;\n setp.ne.s32 q, %4, 0;\n @q ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%5];\n}"
        : "+r"(r.v[0]), "+r"(r.v[1]), "+r"(r.v[2]), "+r"(r.v[3])
        : "r"(static_cast<int>(wanted)), "l"(__cvta_generic_to_global(p)));
  } else {
    static_assert(N == 1);
    asm("{\n .reg .pred q;\n setp.ne.s32 q, %1, 0;\n @q ld.global.nc.b16 %0, [%2];\n}"
        : "+h"(r.v[0].bits)
        : "r"(static_cast<int>(wanted)), "l"(__cvta_generic_to_global(p)));
  }
}
#else
// A host compiler cannot compile PTX. Unwanted pieces are filled with NaN here, so that a reduction that uses one by
// mistake shows it.
template <int N, typename T>
void load_raw_if(bool wanted, const T* p, Raw<T, N>& r) {
  std::memset(&r, 0xff, sizeof r);
  if (wanted) r = *reinterpret_cast<const Raw<T, N>*>(p);
}
#endif

// Loads one element through the read-only path, without widening it.
__device__ __forceinline__ float load_one(const float* p) { return __ldg(p); }
__device__ __forceinline__ double load_one(const double* p) { return __ldg(p); }
__device__ __forceinline__ Float16 load_one(const Float16* p) { return {__ldg(&p->bits)}; }
__device__ __forceinline__ BFloat16 load_one(const BFloat16* p) { return {__ldg(&p->bits)}; }

// Loads N elements through the read-only path and widens them. Every load is 16 bytes, except for N = 1. Eight floats,
// which go with a 16-bit piece, take two loads.
template <int N, typename T>
__device__ __forceinline__ Pack<Compute<T>, N> load_pack(const T* p) {
  Pack<Compute<T>, N> r;
  if constexpr (N == 1) {
    r.v[0] = widen(load_one(p));
  } else if constexpr (std::is_same_v<T, double>) {
    const double2 f = __ldg(reinterpret_cast<const double2*>(p));
    r = {{f.x, f.y}};
  } else if constexpr (std::is_same_v<T, float>) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 f = __ldg(reinterpret_cast<const float4*>(p + i));
      r.v[i] = f.x, r.v[i + 1] = f.y, r.v[i + 2] = f.z, r.v[i + 3] = f.w;
    }
  } else {
    const uint4 w = __ldg(reinterpret_cast<const uint4*>(p));
    r = widen_pack<T, N>(Words{{w.x, w.y, w.z, w.w}});
  }
  return r;
}

// Loads a piece that another block of the same launch wrote. It is read from L2, where that block's fenced stores are
// visible.
template <int N>
__device__ __forceinline__ Pack<float, N> load_from_l2(const float* p) {
  Pack<float, N> r;
  if constexpr (N == 1) {
    r.v[0] = __ldcg(p);
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 f = __ldcg(reinterpret_cast<const float4*>(p + i));
      r.v[i] = f.x, r.v[i + 1] = f.y, r.v[i + 2] = f.z, r.v[i + 3] = f.w;
    }
  }
  return r;
}

template <int N>
__device__ __forceinline__ Pack<double, N> load_from_l2(const double* p) {
  if constexpr (N == 2) {
    const double2 f = __ldcg(reinterpret_cast<const double2*>(p));
    return {{f.x, f.y}};
  } else {
    return {{__ldcg(p)}};
  }
}

// Stores a piece, rounded to T.
template <typename T, typename C, int N>
__device__ __forceinline__ void store_pack(T* p, const Pack<C, N>& value) {
  static_assert(std::is_same_v<C, Compute<T>>);
  Raw<T, N> raw;
  if constexpr (std::is_same_v<Raw<T, N>, Words>) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t high = narrow<T>(value.v[2 * i + 1]).bits;
      raw.v[i] = high << 16 | narrow<T>(value.v[2 * i]).bits;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) raw.v[i] = narrow<T>(value.v[i]);
  }
  *reinterpret_cast<Raw<T, N>*>(p) = raw;
}

// Returns a * b rounded once and never contracted into an fma. The backward of max and min finds the winners by
// comparing weight * x with the forward result bit for bit.
__device__ __forceinline__ float product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double product(double a, double b) { return __dmul_rn(a, b); }

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

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

// Return the larger and the smaller of two values. The result is NaN if one of them is: b != b lets a NaN replace any
// number, and no comparison lets a number replace a NaN.
template <typename T>
__device__ __forceinline__ T larger(T a, T b) {
  return (b > a || b != b) ? b : a;
}
template <typename T>
__device__ __forceinline__ T smaller(T a, T b) {
  return (b < a || b != b) ? b : a;
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800  // one instruction instead of four
__device__ __forceinline__ float larger(float a, float b) {
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
__device__ __forceinline__ float smaller(float a, float b) {
  float r;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
#endif

struct MaxOp {
  template <typename T>
  static __device__ __forceinline__ T identity() {
    return static_cast<T>(-INFINITY);
  }
  template <typename T>
  static __device__ __forceinline__ T combine(T a, T b) {
    return larger(a, b);
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
    return smaller(a, b);
  }
  template <typename T>
  static __device__ __forceinline__ T weighted(T acc, T weight, T x) {
    return combine(acc, product(weight, x));
  }
};

}  // namespace gnna::cuda
