// The row kernel for float min.
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template cudaError_t spmm_op<float, MinOp>(const SpmmArgs<float>&, const RowConfig&, const LongRows&, void*,
                                           cudaStream_t);

}  // namespace gnna::cuda
