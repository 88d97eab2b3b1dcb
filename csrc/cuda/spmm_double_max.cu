// Instantiates kernels `row` and `group` for double max.
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template cudaError_t spmm_op<double, MaxOp>(const SpmmArgs<double>&, const KernelConfig&, const Partition&, void*,
                                            cudaStream_t);

}  // namespace gnna::cuda
