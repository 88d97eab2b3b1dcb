// The row kernels for processors with AVX512: the same templates, compiled for that instruction set by the pragma
// below. Only kernels.cpp reaches this table, and only on a processor that has the instructions. Standard headers come
// before the pragma, so that no inline function of theirs is compiled for it and then picked by the linker for
// everyone.
#if defined(__x86_64__)
#include <immintrin.h>

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

// GCC's own header leaves the merge operand of some intrinsics undefined on purpose, and then warns of it.
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
