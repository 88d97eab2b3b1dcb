// The row kernel for float sum and mean.
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template cudaError_t spmm_op<float, SumOp>(const SpmmArgs<float>&, const RowConfig&, const LongRows&, void*,
                                           cudaStream_t);

}  // namespace gnna::cuda
