// Instantiates kernels `row` and `group` for bfloat16 max.
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template cudaError_t spmm_op<BFloat16, MaxOp>(const SpmmArgs<BFloat16>&, const KernelConfig&, const Partition&, void*,
                                              cudaStream_t);

}  // namespace gnna::cuda
