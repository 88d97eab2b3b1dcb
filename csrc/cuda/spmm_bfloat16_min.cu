// Instantiates kernels `row` and `group` for bfloat16 min.
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template cudaError_t spmm_op<BFloat16, MinOp>(const SpmmArgs<BFloat16>&, const KernelConfig&, const Partition&, void*,
                                              cudaStream_t);

}  // namespace gnna::cuda
