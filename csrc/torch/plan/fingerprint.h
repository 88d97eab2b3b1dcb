// Checksums of edge lists and weights that a cache relies on. They notice writes that autograd's version counter does
// not see: through .data, a NumPy alias, or an array that torch.from_numpy shares.
//
// On a CPU every use compares a part of the list, in turn: all of a list of up to 512 KiB, an eighth of a longer one.
// A list that was rewritten differs in every part and is noticed at once, a single edge within eight uses. On a GPU
// every 16th use compares all of it behind the caller's back, and the use after that raises.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <atomic>
#include <memory>
#include <vector>

namespace gnna {

// A comparison that a device carries out while the host goes on.
class DeviceChecksum {
 public:
  virtual ~DeviceChecksum() = default;
  virtual void compare(const at::Tensor& tensor) = 0;  // on the current stream, without waiting for it
  virtual bool differed() const = 0;                   // an earlier comparison did
};
using MakeDeviceChecksum = std::unique_ptr<DeviceChecksum> (*)(const at::Tensor& tensor);
void register_device_checksum(c10::DeviceType device, MakeDeviceChecksum make);

class Fingerprint {
 public:
  // Reads the whole tensor.
  static std::shared_ptr<Fingerprint> of(const at::Tensor& tensor, int64_t version);
  bool is_of(const at::Tensor& tensor, int64_t version) const;

  // Changed: the tensor was written to since. ChangedBefore: a comparison on a GPU found that out, and results since
  // may have used the old elements; said once, from then on it is Changed.
  enum class State { Holds, Changed, ChangedBefore };
  State state(const at::Tensor& tensor);

 private:
  Fingerprint(const at::Tensor& tensor, int64_t version);

  const void* data_;
  at::DimVector sizes_, strides_;
  int64_t version_;
  std::atomic<bool> changed_{false};
  std::vector<uint64_t> blocks_;  // CPU: of every block of the memory that the tensor spans
  std::atomic<size_t> next_{0};   // the block to compare next
  std::unique_ptr<DeviceChecksum> device_;
  std::atomic<int64_t> uses_{0};
};

// Raises RuntimeError for a tensor in state ChangedBefore.
[[noreturn]] void throw_changed_before(const at::Tensor& tensor);

// Whether all tensors are what their fingerprints, one each or none at all, were taken of.
template <typename Prints>
bool hold(const Prints& prints, at::ArrayRef<at::Tensor> tensors) {
  bool all = true;
  const at::Tensor* changed_before = nullptr;
  for (size_t i = 0; i < prints.size(); ++i) {
    if (!prints[i]) continue;
    const auto state = prints[i]->state(tensors[i]);
    all = all && state == Fingerprint::State::Holds;
    if (state == Fingerprint::State::ChangedBefore) changed_before = &tensors[i];
  }
  if (changed_before) throw_changed_before(*changed_before);
  return all;
}

}  // namespace gnna
