// Times of a plan's calls on a GPU, read back without waiting: two events around a sample of the launches, whose
// distance later calls collect once both have happened.
#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>

#include "plan/usage.h"

namespace gnna {

// Around one launch: constructed before it, destroyed after it, both on the plan's stream. Does nothing while a CUDA
// graph is captured.
class CudaTimer {
 public:
  CudaTimer(const std::shared_ptr<Usage>& usage, Usage::Kind kind, c10::cuda::CUDAStream stream);
  ~CudaTimer();
  CudaTimer(const CudaTimer&) = delete;
  CudaTimer& operator=(const CudaTimer&) = delete;

 private:
  const std::shared_ptr<Usage>& usage_;
  Usage::Kind kind_;
  c10::cuda::CUDAStream stream_;
  cudaEvent_t start_ = nullptr;
};

}  // namespace gnna
