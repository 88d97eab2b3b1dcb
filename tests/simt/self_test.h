// Kernels with the mistakes that the emulation must notice; see self_test.cpp.
#pragma once

#include <cstdint>

namespace simt {
int64_t self_test(int64_t which);
}
