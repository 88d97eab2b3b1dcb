// spmm as cuda_api.h promises it: picks the reduction's instantiation, each of which is compiled in a file of its own.
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template <typename T>
size_t spmm_scratch_bytes(int64_t long_items, int64_t width) {
  if (long_items <= 0 || width <= 0) return 0;
  const size_t counters = static_cast<size_t>(long_items) * static_cast<size_t>(ceil_div(width, kMinTile));
  return partials_bytes<T>(long_items, width) + counters * sizeof(int32_t);
}

template <typename T>
cudaError_t spmm(const SpmmArgs<T>& args, const RowConfig& config, const LongRows& long_rows, void* scratch,
                 cudaStream_t stream) {
  switch (args.reduce) {
    case Reduce::Sum:
    case Reduce::Mean:
      return spmm_op<T, SumOp>(args, config, long_rows, scratch, stream);
    case Reduce::Max:
      return spmm_op<T, MaxOp>(args, config, long_rows, scratch, stream);
    case Reduce::Min:
      return spmm_op<T, MinOp>(args, config, long_rows, scratch, stream);
  }
  return cudaErrorInvalidValue;
}

template size_t spmm_scratch_bytes<float>(int64_t, int64_t);
template size_t spmm_scratch_bytes<double>(int64_t, int64_t);
template size_t spmm_scratch_bytes<Float16>(int64_t, int64_t);
template size_t spmm_scratch_bytes<BFloat16>(int64_t, int64_t);
template cudaError_t spmm(const SpmmArgs<float>&, const RowConfig&, const LongRows&, void*, cudaStream_t);
template cudaError_t spmm(const SpmmArgs<double>&, const RowConfig&, const LongRows&, void*, cudaStream_t);
template cudaError_t spmm(const SpmmArgs<Float16>&, const RowConfig&, const LongRows&, void*, cudaStream_t);
template cudaError_t spmm(const SpmmArgs<BFloat16>&, const RowConfig&, const LongRows&, void*, cudaStream_t);

}  // namespace gnna::cuda
