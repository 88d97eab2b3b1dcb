// Builds partitions of plans on the GPU and keeps them in the plans.
#include "device/cuda_partition.h"

#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>

#include "plan/captures.h"

namespace gnna {

bool capturing() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  C10_CUDA_CHECK(cudaStreamIsCapturing(c10::cuda::getCurrentCUDAStream(), &status));
  return status != cudaStreamCaptureStatusNone;
}

at::Tensor bytes_on(const at::Tensor& like, size_t bytes) {
  return at::empty({static_cast<int64_t>(bytes)}, like.options().dtype(at::kByte));
}

void use_tensor_on(const at::Tensor& tensor, int64_t stream_id, c10::cuda::CUDAStream stream) {
  if (stream_id == static_cast<int64_t>(stream.id()) || !tensor.defined() || tensor.numel() == 0) return;
  c10::cuda::CUDACachingAllocator::recordStream(tensor.storage().data_ptr(), stream);
}

namespace {

// The total of a list of starts. Waits for the stream.
int64_t last_of(const at::Tensor& first) { return first[first.numel() - 1].item<int64_t>(); }

KeptPartition build(const Plan& plan, const PartitionKey& key, cudaStream_t stream) {
  KeptPartition kept;
  kept.key = key;
  const int64_t* rowptr = plan.rowptr.const_data_ptr<int64_t>();
  const at::Tensor scan = bytes_on(plan.rowptr, cuda::partition_scan_bytes(plan.rows));
  const auto scan_bytes = static_cast<size_t>(scan.numel());
  const auto starts = [&] { return at::empty({plan.rows + 1}, plan.rowptr.options()); };
  if (plan.max_degree > key.split_above) {
    const at::Tensor first = starts();
    C10_CUDA_CHECK(cuda::count_chunks(rowptr, plan.rows, key.split_above, key.chunk_edges,
                                      first.mutable_data_ptr<int64_t>(), scan.mutable_data_ptr(), scan_bytes, stream));
    kept.chunk_count = last_of(first);
    kept.needs_combining = plan.max_degree > key.chunk_edges;
    kept.chunks = bytes_on(plan.rowptr, sizeof(cuda::RowChunk) * kept.chunk_count);
    C10_CUDA_CHECK(cuda::list_chunks(rowptr, plan.rows, key.split_above, key.chunk_edges,
                                     first.const_data_ptr<int64_t>(),
                                     static_cast<cuda::RowChunk*>(kept.chunks.mutable_data_ptr()), stream));
  }
  if (key.group_size > 0) {
    kept.group_first = starts();
    C10_CUDA_CHECK(cuda::count_groups(rowptr, plan.rows, key.group_size, key.split_above,
                                      kept.group_first.mutable_data_ptr<int64_t>(), scan.mutable_data_ptr(), scan_bytes,
                                      stream));
    kept.group_count = last_of(kept.group_first);
    kept.group_row = at::empty({kept.group_count}, plan.rowptr.options().dtype(at::kInt));
    C10_CUDA_CHECK(cuda::list_groups(kept.group_first.const_data_ptr<int64_t>(), plan.rows,
                                     kept.group_row.mutable_data_ptr<int32_t>(), stream));
  }
  // Makes the partition safe to read on every stream. This adds little waiting, because reading the counts back has
  // already waited for most of the work.
  C10_CUDA_CHECK(cudaStreamSynchronize(stream));
  return kept;
}

PartitionKey key_of(const KernelConfig& config) {
  return {config.split_above, config.chunk_edges, config.kernel == Kernel::Group ? config.group_size : 0};
}

bool needs_no_partition(const Plan& plan, const KernelConfig& config) {
  return config.kernel == Kernel::Row && plan.max_degree <= config.split_above;
}

}  // namespace

bool has_partition(const Plan& plan, const KernelConfig& config) {
  return needs_no_partition(plan, config) || plan.partitions.find(key_of(config)) != nullptr;
}

std::shared_ptr<const KeptPartition> partition_for(const Plan& plan, const KernelConfig& config,
                                                   c10::cuda::CUDAStream stream) {
  static const auto none = std::make_shared<const KeptPartition>();
  if (needs_no_partition(plan, config)) return none;
  const PartitionKey key = key_of(config);
  const bool captured = capturing();
  auto kept = plan.partitions.find(key);
  if (!kept) {
    TORCH_CHECK(!captured,
                "gnna: the rows of a graph cannot be partitioned while a CUDA graph is captured; run one forward and "
                "backward step with the same settings before capturing");
    const c10::InferenceMode normal(false);
    KeptPartition built = build(plan, key, stream);
    built.stream_id = static_cast<int64_t>(stream.id());
    kept = plan.partitions.keep(std::move(built));
  }
  if (captured) hold_for_captures({kept->chunks, kept->group_first, kept->group_row});
  for (const at::Tensor* t : {&kept->chunks, &kept->group_first, &kept->group_row})
    use_tensor_on(*t, kept->stream_id, stream);
  return kept;
}

void build_same_partitions(const Plan& before, const Plan& plan, c10::cuda::CUDAStream stream) {
  for (const PartitionKey& key : before.partitions.keys()) {
    KeptPartition built = build(plan, key, stream);
    built.stream_id = static_cast<int64_t>(stream.id());
    plan.partitions.keep(std::move(built));
  }
}

cuda::Partition view_of(const KeptPartition& kept) {
  cuda::Partition view;
  if (kept.chunk_count > 0) {
    view.split_rows = {static_cast<const cuda::RowChunk*>(kept.chunks.const_data_ptr()), kept.chunk_count,
                       kept.key.split_above, kept.needs_combining};
  }
  if (kept.group_count > 0) {
    view.groups = {kept.group_first.const_data_ptr<int64_t>(), kept.group_row.const_data_ptr<int32_t>(),
                   kept.group_count};
  }
  return view;
}

}  // namespace gnna
