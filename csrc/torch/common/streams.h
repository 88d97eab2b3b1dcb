// The current stream, for code that is the same on every device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace gnna {

// 0 on a CPU.
inline int64_t current_stream_id(at::Device device) {
  if (device.is_cpu()) return 0;
  return static_cast<int64_t>(c10::impl::VirtualGuardImpl(device.type()).getStream(device).id());
}

// Tells torch's allocator that the current stream reads a tensor that a cache holds. If the cache drops the tensor, its
// memory is not reused before the work queued on the stream is done.
inline void record_use(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.is_cpu() || tensor.numel() == 0) return;
  const c10::impl::VirtualGuardImpl device(tensor.device().type());
  device.recordDataPtrOnStream(tensor.storage().data_ptr(), device.getStream(tensor.device()));
}

}  // namespace gnna
