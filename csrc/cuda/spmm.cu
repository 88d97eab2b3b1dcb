// spmm (cuda_api.h): selects the instantiation for the reduction. Each instantiation is compiled in its own file
// (spmm_<type>_<reduction>.cu).
#include "gnna/spmm_launch.cuh"

namespace gnna::cuda {

template <typename T>
size_t spmm_scratch_bytes(const SpmmArgs<T>& args, const KernelConfig& config, const SplitRows& rows) {
  const int64_t width = args.heads * args.head_dim;
  if (!rows.needs_combining || width <= 0) return 0;
  const auto counters = static_cast<size_t>(rows.count) * static_cast<size_t>(tiles_of(config, width));
  return partials_bytes<T>(rows.count, whole_packs_of(width, config)) + counters * sizeof(int32_t);
}

template <typename T>
cudaError_t spmm(const SpmmArgs<T>& args, const KernelConfig& config, const Partition& partition, void* scratch,
                 cudaStream_t stream) {
  switch (args.reduce) {
    case Reduce::Sum:
    case Reduce::Mean:
      return spmm_op<T, SumOp>(args, config, partition, scratch, stream);
    case Reduce::Max:
      return spmm_op<T, MaxOp>(args, config, partition, scratch, stream);
    case Reduce::Min:
      return spmm_op<T, MinOp>(args, config, partition, scratch, stream);
  }
  return cudaErrorInvalidValue;
}

#define GNNA_INSTANTIATE(T)                                                                      \
  template size_t spmm_scratch_bytes(const SpmmArgs<T>&, const KernelConfig&, const SplitRows&); \
  template cudaError_t spmm(const SpmmArgs<T>&, const KernelConfig&, const Partition&, void*, cudaStream_t)
GNNA_FOR_EACH_TYPE(GNNA_INSTANTIATE);
#undef GNNA_INSTANTIATE

}  // namespace gnna::cuda
