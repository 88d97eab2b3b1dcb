// Building and keeping the partitions of plans on the GPU.
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

int64_t last_of(const at::Tensor& first) { return first[first.numel() - 1].item<int64_t>(); }

KeptPartition build(const Plan& plan, const PartitionKey& key, cudaStream_t stream) {
  KeptPartition kept;
  kept.key = key;
  const int64_t* rowptr = plan.rowptr.const_data_ptr<int64_t>();
  const at::Tensor scan = bytes_on(plan.rowptr, cuda::partition_scan_bytes(plan.rows));
  const auto scan_bytes = static_cast<size_t>(scan.numel());
  const auto starts = [&] { return at::empty({plan.rows + 1}, plan.rowptr.options()); };
  if (plan.max_degree > key.long_row) {
    const at::Tensor first = starts();
    C10_CUDA_CHECK(cuda::count_items(rowptr, plan.rows, key.long_row, key.item_edges, first.mutable_data_ptr<int64_t>(),
                                     scan.mutable_data_ptr(), scan_bytes, stream));
    kept.item_count = last_of(first);
    kept.items_meet = plan.max_degree > key.item_edges;
    kept.items = bytes_on(plan.rowptr, sizeof(cuda::LongItem) * kept.item_count);
    C10_CUDA_CHECK(cuda::list_items(rowptr, plan.rows, key.long_row, key.item_edges, first.const_data_ptr<int64_t>(),
                                    static_cast<cuda::LongItem*>(kept.items.mutable_data_ptr()), stream));
  }
  if (key.ngs > 0) {
    kept.group_first = starts();
    C10_CUDA_CHECK(cuda::count_groups(rowptr, plan.rows, key.ngs, key.long_row,
                                      kept.group_first.mutable_data_ptr<int64_t>(), scan.mutable_data_ptr(), scan_bytes,
                                      stream));
    kept.group_count = last_of(kept.group_first);
    kept.group_row = at::empty({kept.group_count}, plan.rowptr.options().dtype(at::kInt));
    C10_CUDA_CHECK(cuda::list_groups(kept.group_first.const_data_ptr<int64_t>(), plan.rows,
                                     kept.group_row.mutable_data_ptr<int32_t>(), stream));
  }
  // Reading the counts back has waited for most of this; waiting for the rest makes it safe on every stream.
  C10_CUDA_CHECK(cudaStreamSynchronize(stream));
  return kept;
}

PartitionKey key_of(const KernelConfig& config) {
  return {config.long_row, config.item_edges, config.kernel == Kernel::Groups ? config.ngs : 0};
}

bool needs_none(const Plan& plan, const KernelConfig& config) {
  return config.kernel == Kernel::Rows && plan.max_degree <= config.long_row;
}

}  // namespace

bool is_dealt_out(const Plan& plan, const KernelConfig& config) {
  return needs_none(plan, config) || plan.partitions.find(key_of(config)) != nullptr;
}

std::shared_ptr<const KeptPartition> partition_for(const Plan& plan, const KernelConfig& config,
                                                   c10::cuda::CUDAStream stream) {
  static const auto none = std::make_shared<const KeptPartition>();
  if (needs_none(plan, config)) return none;
  const PartitionKey key = key_of(config);
  const bool captured = capturing();
  auto kept = plan.partitions.find(key);
  if (!kept) {
    TORCH_CHECK(!captured,
                "gnna: rows cannot be dealt out while a CUDA graph is captured; run one forward and backward step with "
                "the same settings before capturing");
    const c10::InferenceMode normal(false);
    KeptPartition built = build(plan, key, stream);
    built.stream_id = static_cast<int64_t>(stream.id());
    kept = plan.partitions.keep(std::move(built));
  }
  if (captured) hold_for_captures({kept->items, kept->group_first, kept->group_row});
  for (const at::Tensor* t : {&kept->items, &kept->group_first, &kept->group_row})
    use_tensor_on(*t, kept->stream_id, stream);
  return kept;
}

void deal_out_alike(const Plan& before, const Plan& plan, c10::cuda::CUDAStream stream) {
  for (const PartitionKey& key : before.partitions.keys()) {
    KeptPartition built = build(plan, key, stream);
    built.stream_id = static_cast<int64_t>(stream.id());
    plan.partitions.keep(std::move(built));
  }
}

cuda::Partition view_of(const KeptPartition& kept) {
  cuda::Partition view;
  if (kept.item_count > 0) {
    view.long_rows = {static_cast<const cuda::LongItem*>(kept.items.const_data_ptr()), kept.item_count,
                      kept.key.long_row, kept.items_meet};
  }
  if (kept.group_count > 0) {
    view.groups = {kept.group_first.const_data_ptr<int64_t>(), kept.group_row.const_data_ptr<int32_t>(),
                   kept.group_count};
  }
  return view;
}

}  // namespace gnna
