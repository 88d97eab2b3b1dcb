// Instantiates kernels `row` and `group` for float min.
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template cudaError_t spmm_op<float, MinOp>(const SpmmArgs<float>&, const KernelConfig&, const Partition&, void*,
                                           cudaStream_t);

}  // namespace gnna::cuda
