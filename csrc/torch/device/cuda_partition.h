// Partitions of a plan's rows on the GPU: the chunks of split rows and the neighbour groups of one launch
// configuration. The first launch that needs a partition builds it, and the plan keeps it for later launches
// (Plan::partitions).
#pragma once

#include <c10/cuda/CUDAStream.h>

#include "gnna/cuda_api.h"
#include "plan/plan.h"

namespace gnna {

// Whether a CUDA graph is being captured on the current stream.
bool capturing();

// An uninitialised byte tensor on the device of `like`.
at::Tensor bytes_on(const at::Tensor& like, size_t bytes);

// Returns the plan's partition for this configuration, and builds it if the plan has none. It is empty if the
// configuration needs no partition. Building waits for the stream. Raises RuntimeError if it would have to be built
// while a CUDA graph is captured.
std::shared_ptr<const KeptPartition> partition_for(const Plan& plan, const KernelConfig& config,
                                                   c10::cuda::CUDAStream stream);

// Whether partition_for would return without building anything.
bool has_partition(const Plan& plan, const KernelConfig& config);

// Builds every partition that `before` has, so that a capture that was warmed up with `before` can use `plan`.
void build_same_partitions(const Plan& before, const Plan& plan, c10::cuda::CUDAStream stream);

// The partition as kernels take it. Valid while `kept` lives.
cuda::Partition view_of(const KeptPartition& kept);

// Tells the allocator that `stream` reads a plan's tensor, unless the tensor was made on that stream (stream_id). The
// plan may be evicted while a kernel still reads it.
void use_tensor_on(const at::Tensor& tensor, int64_t stream_id, c10::cuda::CUDAStream stream);

}  // namespace gnna
