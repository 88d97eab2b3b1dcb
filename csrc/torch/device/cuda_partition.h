// How a plan's rows are dealt out on the GPU under one configuration: built with the first launch that needs it, kept
// in the plan for the next (Plan::partitions).
#pragma once

#include <c10/cuda/CUDAStream.h>

#include "gnna/cuda_api.h"
#include "plan/plan.h"

namespace gnna {

// Whether a CUDA graph is being captured on the current stream.
bool capturing();

at::Tensor bytes_on(const at::Tensor& like, size_t bytes);

// Raises RuntimeError where it would have to be built while a CUDA graph is captured.
std::shared_ptr<const KeptPartition> partition_for(const Plan& plan, const KernelConfig& config,
                                                   c10::cuda::CUDAStream stream);

// Whether partition_for has nothing to build.
bool has_partition(const Plan& plan, const KernelConfig& config);

// Deals out a plan's rows in the ways in which another one's have been, so that no capture that was prepared with that
// one has to.
void build_same_partitions(const Plan& before, const Plan& plan, c10::cuda::CUDAStream stream);

cuda::Partition view_of(const KeptPartition& kept);

// A plan may be evicted while a kernel on another stream still reads it: the allocator has to know of that stream.
void use_tensor_on(const at::Tensor& tensor, int64_t stream_id, c10::cuda::CUDAStream stream);

}  // namespace gnna
