// Instantiates kernels `row` and `group` for double sum and mean.
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template cudaError_t spmm_op<double, SumOp>(const SpmmArgs<double>&, const KernelConfig&, const Partition&, void*,
                                            cudaStream_t);

}  // namespace gnna::cuda
