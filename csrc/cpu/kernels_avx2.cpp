// The row kernels for AVX2: the templates of row_kernels.inl, compiled for that instruction set by the pragma below.
// kernels.cpp uses this table only on a processor that supports it. Standard headers must come before the pragma.
// Otherwise their inline functions are compiled for AVX2, and the linker may use these copies in the whole library.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernel_table.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#define GNNA_VECTOR_BYTES 32
#define GNNA_ISA_NAMESPACE avx2
#include "row_kernels.inl"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace gnna::cpu {
const Kernels kAvx2Kernels = {"avx2", avx2::make_table<float>(), avx2::make_table<double>(),
                              avx2::make_table<Float16>(), avx2::make_table<BFloat16>()};
}  // namespace gnna::cpu
#endif
