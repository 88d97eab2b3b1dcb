// Checksums of tensors on CUDA devices (plan/fingerprint.h). A kernel compares them and writes the result to pinned
// memory, so that the host never waits.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "common/streams.h"
#include "gnna/cuda_api.h"
#include "plan/fingerprint.h"

namespace gnna {
namespace {

class CudaChecksum final : public DeviceChecksum {
 public:
  explicit CudaChecksum(const at::Tensor& tensor)
      : state_(at::zeros({static_cast<int64_t>(sizeof(cuda::ChecksumState))}, tensor.options().dtype(at::kByte))),
        differs_(at::zeros({1}, at::TensorOptions().dtype(at::kInt).pinned_memory(true))),
        stream_id_(current_stream_id(tensor.device())) {
    run(tensor, nullptr);
  }

  void compare(const at::Tensor& tensor) override {
    // A ChecksumState may be used on one stream only, so calls on other streams are not compared.
    if (current_stream_id(tensor.device()) == stream_id_) run(tensor, differs_.mutable_data_ptr<int>());
  }

  bool differed() const override { return *static_cast<const volatile int*>(differs_.const_data_ptr<int>()) != 0; }

 private:
  // Stores the checksum in state_ if differs is nullptr, otherwise compares with it.
  void run(const at::Tensor& tensor, int* differs) {
    const c10::cuda::CUDAGuard guard(tensor.device());
    const bool one_dimensional = tensor.dim() == 1;
    const at::Tensor list = one_dimensional || tensor.is_contiguous() ? tensor : tensor.contiguous();
    const int64_t stride = one_dimensional ? list.stride(0) : 1;
    switch (list.element_size()) {
      case 8:
        return run_as<int64_t>(list, stride, differs);
      case 4:
        return run_as<int32_t>(list, stride, differs);
      case 2:
        return run_as<int16_t>(list, stride, differs);
    }
  }

  // Reads the elements, whatever their type, as integers of their size.
  template <typename Integer>
  void run_as(const at::Tensor& list, int64_t stride, int* differs) {
    C10_CUDA_CHECK(cuda::checksum(static_cast<const Integer*>(list.const_data_ptr()), list.numel(), stride,
                                  static_cast<cuda::ChecksumState*>(state_.mutable_data_ptr()), differs,
                                  c10::cuda::getCurrentCUDAStream()));
  }

  at::Tensor state_, differs_;
  int64_t stream_id_;
};

const bool registered = (register_device_checksum(c10::DeviceType::CUDA,
                                                  [](const at::Tensor& tensor) -> std::unique_ptr<DeviceChecksum> {
                                                    return std::make_unique<CudaChecksum>(tensor);
                                                  }),
                         true);

}  // namespace
}  // namespace gnna
