// Instantiates kernels `row` and `group` for float16 min.
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template cudaError_t spmm_op<Float16, MinOp>(const SpmmArgs<Float16>&, const KernelConfig&, const Partition&, void*,
                                             cudaStream_t);

}  // namespace gnna::cuda
