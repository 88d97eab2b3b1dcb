// Streams for code that is the same on every device: which one is current, and telling the allocator what it reads.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace gnna {

inline int64_t current_stream_id(at::Device device) {
  if (device.is_cpu()) return 0;
  return static_cast<int64_t>(c10::impl::VirtualGuardImpl(device.type()).getStream(device).id());
}

// The current stream reads what a cache holds: memory that the cache gives up meanwhile is not used again before then.
inline void record_use(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.is_cpu() || tensor.numel() == 0) return;
  const c10::impl::VirtualGuardImpl device(tensor.device().type());
  device.recordDataPtrOnStream(tensor.storage().data_ptr(), device.getStream(tensor.device()));
}

}  // namespace gnna
