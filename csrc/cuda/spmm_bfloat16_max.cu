// The row kernel for bfloat16 max.
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template cudaError_t spmm_op<BFloat16, MaxOp>(const SpmmArgs<BFloat16>&, const RowConfig&, const LongRows&, void*,
                                              cudaStream_t);

}  // namespace gnna::cuda
