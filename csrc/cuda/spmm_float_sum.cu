// Instantiates kernels `row` and `group` for float sum and mean.
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template cudaError_t spmm_op<float, SumOp>(const SpmmArgs<float>&, const KernelConfig&, const Partition&, void*,
                                           cudaStream_t);

}  // namespace gnna::cuda
