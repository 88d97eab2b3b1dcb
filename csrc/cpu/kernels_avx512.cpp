// The row kernels for processors with AVX512: the same templates, compiled for that instruction set by the pragma
// below. Only kernels.cpp reaches this table, and only on a processor that has the instructions. Standard headers come
// before the pragma, so that no inline function of theirs is compiled for it and then picked by the linker for
// everyone.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <utility>

#include "kernel_table.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")
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
const Kernels kAvx512Kernels = {"avx512", avx512::make_table<float>(), avx512::make_table<double>()};
}  // namespace gnna::cpu
#endif
