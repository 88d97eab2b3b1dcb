// The row kernels for any processor, with 16-byte vectors of the compiler's vector extension.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernel_table.h"

#define GNNA_VECTOR_BYTES 16
#define GNNA_ISA_NAMESPACE generic
#include "row_kernels.inl"

namespace gnna::cpu {
const Kernels kGenericKernels = {"generic", generic::make_table<float>(), generic::make_table<double>(),
                                 generic::make_table<Float16>(), generic::make_table<BFloat16>()};
}  // namespace gnna::cpu
