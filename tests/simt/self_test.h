// Runs one of the kernels in self_test.cpp, which test the emulation, and returns its result.
#pragma once

#include <cstdint>

namespace simt {
int64_t self_test(int64_t which);
}
