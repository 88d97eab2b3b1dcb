// Times a sample of a plan's launches on a GPU. Each timed launch is enclosed by two events. Later calls read the
// elapsed time once both have happened, so that the host never waits.
#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>

#include "plan/usage.h"

namespace gnna {

// Counts one launch and, if it is in the sample, times it: from construction to destruction, on `stream`. `usage` must
// outlive the timer. Measures nothing while a CUDA graph is captured.
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
