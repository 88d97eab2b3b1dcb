// The row kernel for double min.
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template cudaError_t spmm_op<double, MinOp>(const SpmmArgs<double>&, const RowConfig&, const LongRows&, void*,
                                            cudaStream_t);

}  // namespace gnna::cuda
