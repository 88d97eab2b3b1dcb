// Checksums of tensors on CUDA devices (plan/fingerprint.h). A kernel compares them and writes the result to pinned
// memory, so that the host never waits.
#include <ATen/ops/clone.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <atomic>
#include <deque>
#include <mutex>

#include "common/streams.h"
#include "gnna/cuda_api.h"
#include "plan/captures.h"
#include "plan/fingerprint.h"

namespace gnna {
namespace {

// Flags in pinned memory. A kernel may still write to a flag after its owner has gone, so their memory is never freed,
// and of the flags given back the oldest is used again, when many are.
class Flags {
 public:
  volatile int* take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.size() <= kResting) add();
    volatile int* const flag = free_.front();
    free_.pop_front();
    *flag = 0;
    return flag;
  }
  void give_back(volatile int* flag) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(flag);
  }

 private:
  static constexpr size_t kResting = 1024;

  void add() {
    const auto options = at::TensorOptions().dtype(at::kInt).pinned_memory(true);
    int* const memory = (new at::Tensor(at::empty({2 * kResting}, options)))->mutable_data_ptr<int>();
    for (size_t i = 0; i < 2 * kResting; ++i) free_.push_back(memory + i);
  }

  std::mutex mutex_;
  std::deque<volatile int*> free_;
};

Flags& flags() {
  static auto* const made = new Flags;
  return *made;
}

// The flag that replays set.
volatile int* replay_flag() {
  static volatile int* const flag = [] {
    volatile int* const made = flags().take();
    register_replay_flag(made);
    return made;
  }();
  return flag;
}

// Identifies the capture on the current stream among all captures of the process.
unsigned long long capture_id() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  unsigned long long id = 0;
  C10_CUDA_CHECK(cudaStreamGetCaptureInfo(c10::cuda::getCurrentCUDAStream(), &status, &id));
  return id;
}

class CudaChecksum final : public DeviceChecksum {
 public:
  explicit CudaChecksum(const at::Tensor& tensor)
      : state_(at::empty({static_cast<int64_t>(sizeof(cuda::ChecksumState))}, tensor.options().dtype(at::kByte))),
        differs_(flags().take()),
        stream_id_(current_stream_id(tensor.device())) {
    replay_flag();  // no pinned memory can be allocated during a capture
    const c10::cuda::CUDAGuard guard(tensor.device());
    C10_CUDA_CHECK(
        cudaMemsetAsync(state_.mutable_data_ptr(), 0, sizeof(cuda::ChecksumState), c10::cuda::getCurrentCUDAStream()));
    run(tensor, state_, nullptr);
  }

  CudaChecksum(const CudaChecksum&) = delete;
  CudaChecksum& operator=(const CudaChecksum&) = delete;
  ~CudaChecksum() override { flags().give_back(differs_); }

  void compare(const at::Tensor& tensor) override {
    // A ChecksumState may be used on one stream only, so calls on other streams are not compared.
    if (current_stream_id(tensor.device()) == stream_id_) run(tensor, state_, differs_);
  }

  void compare_at_replay(const at::Tensor& tensor) override {
    const unsigned long long capture = capture_id();
    if (last_capture_.exchange(capture) == capture) return;
    // Graphs may be replayed on several streams at once, so each has a state of its own.
    const at::Tensor state = state_.clone();
    hold_for_captures({tensor, state_, state});
    run(tensor, state, replay_flag());
  }

  bool differed() const override { return *differs_ != 0; }

 private:
  // Stores the checksum in `state` if differs is nullptr, otherwise compares with it.
  static void run(const at::Tensor& tensor, const at::Tensor& state, volatile int* differs) {
    const c10::cuda::CUDAGuard guard(tensor.device());
    const bool one_dimensional = tensor.dim() == 1;
    const at::Tensor list = one_dimensional || tensor.is_contiguous() ? tensor : tensor.contiguous();
    const int64_t stride = one_dimensional ? list.stride(0) : 1;
    switch (list.element_size()) {
      case 8:
        return run_as<int64_t>(list, stride, state, differs);
      case 4:
        return run_as<int32_t>(list, stride, state, differs);
      case 2:
        return run_as<int16_t>(list, stride, state, differs);
    }
  }

  // Reads the elements, whatever their type, as integers of their size.
  template <typename Integer>
  static void run_as(const at::Tensor& list, int64_t stride, const at::Tensor& state, volatile int* differs) {
    C10_CUDA_CHECK(cuda::checksum(static_cast<const Integer*>(list.const_data_ptr()), list.numel(), stride,
                                  static_cast<cuda::ChecksumState*>(state.mutable_data_ptr()),
                                  const_cast<int*>(differs), c10::cuda::getCurrentCUDAStream()));
  }

  at::Tensor state_;
  volatile int* differs_;
  int64_t stream_id_;
  std::atomic<unsigned long long> last_capture_{0};
};

const bool registered = (register_device_checksum(c10::DeviceType::CUDA,
                                                  [](const at::Tensor& tensor) -> std::unique_ptr<DeviceChecksum> {
                                                    return std::make_unique<CudaChecksum>(tensor);
                                                  }),
                         true);

}  // namespace
}  // namespace gnna
