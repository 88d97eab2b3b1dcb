// The row kernels for AVX512: the templates of row_kernels.inl, compiled for that instruction set by the pragma below.
// kernels.cpp uses this table only on a processor that supports it. Standard headers must come before the pragma.
// Otherwise their inline functions are compiled for AVX512, and the linker may use these copies in the whole library.
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
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,f16c")
#endif

// GCC's header leaves the merge operand of some intrinsics undefined on purpose, and GCC then warns about it.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define GNNA_VECTOR_BYTES 64
#define GNNA_ISA_NAMESPACE avx512
#include "row_kernels.inl"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace gnna::cpu {
const Kernels kAvx512Kernels = {"avx512", avx512::make_table<float>(), avx512::make_table<double>(),
                                avx512::make_table<Float16>(), avx512::make_table<BFloat16>()};
}  // namespace gnna::cpu
#endif
