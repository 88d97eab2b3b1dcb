// CudaTimer, with a pool of CUDA events for each device. Nothing here raises: a missing time is not worth an error, and
// the error of a kernel is reported by its own launch.
#include "device/cuda_timer.h"

#include <c10/cuda/CUDAGraphsC10Utils.h>

#include <deque>
#include <map>
#include <mutex>
#include <vector>

namespace gnna {
namespace {

// Two events cost some microseconds of host time, so only a sample is timed: all calls of a kind up to number kAllUpTo,
// then one in kOneIn.
constexpr int64_t kAllUpTo = 24, kOneIn = 16;
constexpr size_t kMostPending = 64;  // times not read back yet; at this number no new ones are started

struct Pending {
  std::weak_ptr<Usage> usage;
  Usage::Kind kind;
  cudaEvent_t start, end;
  c10::DeviceIndex device;
};

struct State {
  std::mutex mutex;
  std::deque<Pending> pending;
  std::map<c10::DeviceIndex, std::vector<cudaEvent_t>> free;
};

State& state() {
  static State* made = new State;  // never destroyed: CUDA is gone before static destructors run
  return *made;
}

cudaEvent_t take_event(State& s, c10::DeviceIndex device) {
  auto& free = s.free[device];
  cudaEvent_t event = nullptr;
  if (!free.empty()) {
    event = free.back();
    free.pop_back();
  } else if (cudaEventCreate(&event) != cudaSuccess) {
    (void)cudaGetLastError();
  }
  return event;
}

// Reports the times of finished launches to their plans, oldest first, up to the first launch that is not finished.
void collect(State& s) {
  while (!s.pending.empty()) {
    const Pending& first = s.pending.front();
    const cudaError_t status = cudaEventQuery(first.end);
    if (status == cudaErrorNotReady) {
      (void)cudaGetLastError();
      return;
    }
    float milliseconds = 0;
    if (status == cudaSuccess && cudaEventElapsedTime(&milliseconds, first.start, first.end) == cudaSuccess) {
      if (const auto usage = first.usage.lock()) usage->time(first.kind, milliseconds * 1e-3);
    } else {
      (void)cudaGetLastError();
    }
    auto& free = s.free[first.device];
    free.push_back(first.start);
    free.push_back(first.end);
    s.pending.pop_front();
  }
}

}  // namespace

CudaTimer::CudaTimer(const std::shared_ptr<Usage>& usage, Usage::Kind kind, c10::cuda::CUDAStream stream)
    : usage_(usage), kind_(kind), stream_(stream) {
  const int64_t number = usage->count(kind);
  if (number == 0 || (number > kAllUpTo && number % kOneIn != 0)) return;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream, &status) != cudaSuccess || status != cudaStreamCaptureStatusNone) return;
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  // In the default mode, event queries would invalidate a capture in progress on another thread.
  const c10::cuda::CUDAStreamCaptureModeGuard relaxed{cudaStreamCaptureModeRelaxed};
  collect(s);
  if (s.pending.size() >= kMostPending) return;
  start_ = take_event(s, stream.device_index());
  if (start_ && cudaEventRecord(start_, stream) != cudaSuccess) {
    (void)cudaGetLastError();
    s.free[stream.device_index()].push_back(start_);
    start_ = nullptr;
  }
}

CudaTimer::~CudaTimer() {
  if (!start_) return;
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  const c10::cuda::CUDAStreamCaptureModeGuard relaxed{cudaStreamCaptureModeRelaxed};
  cudaEvent_t end = take_event(s, stream_.device_index());
  if (end && cudaEventRecord(end, stream_) == cudaSuccess) {
    s.pending.push_back({usage_, kind_, start_, end, stream_.device_index()});
    return;
  }
  (void)cudaGetLastError();
  for (cudaEvent_t event : {start_, end})
    if (event) s.free[stream_.device_index()].push_back(event);
}

}  // namespace gnna
