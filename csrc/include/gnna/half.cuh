// Conversions of the 16-bit types on the device. widen converts to float. narrow rounds a float once, to nearest even:
// NaN stays NaN, overflow gives infinity, and subnormals are kept. Both are the identity for types that kernels compute
// in. nvcc uses the toolkit's conversions. A host compiler (tests/simt) has none and uses equivalent bit arithmetic.
#pragma once

#include <cuda_runtime.h>
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include <cstring>
#endif

#include <type_traits>

#include "gnna/types.h"

namespace gnna::cuda {

#ifndef __CUDACC__
inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
#endif

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }

__device__ __forceinline__ float widen(BFloat16 value) {
#ifdef __CUDACC__
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
#else
  return bits_to_float(static_cast<uint32_t>(value.bits) << 16);
#endif
}

__device__ __forceinline__ float widen(Float16 value) {
#ifdef __CUDACC__
  return __half2float(__ushort_as_half(value.bits));
#else
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16, rest = value.bits & 0x7fff;
  if (rest >= 0x7c00) return bits_to_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);  // infinity, NaN
  if (rest >= 0x400) return bits_to_float(sign | ((rest << 13) + (112u << 23)));  // rebias the exponent by 127 - 15
  const float magnitude = static_cast<float>(rest) * 0x1p-24f;                    // subnormal
  return sign ? -magnitude : magnitude;
#endif
}

template <typename T>
__device__ __forceinline__ T narrow(Compute<T> value) {
  if constexpr (std::is_same_v<T, Compute<T>>) {
    return value;
  } else if constexpr (std::is_same_v<T, BFloat16>) {
#ifdef __CUDACC__
    return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
    const uint32_t bits = float_to_bits(value);
    if (value != value) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
#endif
  } else {
#ifdef __CUDACC__
    return {__half_as_ushort(__float2half_rn(value))};
#else
    const uint32_t bits = float_to_bits(value), magnitude = bits & 0x7fffffff;
    const uint32_t sign = bits >> 16 & 0x8000;
    if (value != value) return {static_cast<uint16_t>(sign | 0x7e00)};
    if (magnitude >= 0x477ff000) return {static_cast<uint16_t>(sign | 0x7c00)};  // from 65520 up: infinity
    if (magnitude >= 0x38800000) {                                               // from 2^-14 up: normal
      const uint32_t rebased = magnitude - (112u << 23);
      return {static_cast<uint16_t>(sign | (rebased + 0xfff + (rebased >> 13 & 1)) >> 13)};
    }
    // Subnormal: adding 0.5 makes the floating-point unit round at 2^-24 and leaves the significand in the lowest bits.
    return {static_cast<uint16_t>(sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000))};
#endif
  }
}

// Rounds a value, such as weight * x, to the type of stored results. The backward of max and min compares the rounded
// product with the forward result. Rounding is monotonic, so rounding the largest product gives the largest of the
// rounded products.
template <typename T>
__device__ __forceinline__ Compute<T> rounded_to(Compute<T> value) {
  return widen(narrow<T>(value));
}

}  // namespace gnna::cuda
