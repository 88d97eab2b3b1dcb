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

  // False if the tensor is known to have been written to. Raises RuntimeError if a comparison on a GPU found that out:
  // results since then may have used the old edges.
  bool holds(const at::Tensor& tensor);

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

// Whether all tensors hold what their fingerprints, one each or none at all, were taken of.
template <typename Prints>
bool hold(const Prints& prints, at::ArrayRef<at::Tensor> tensors) {
  bool all = true;
  for (size_t i = 0; i < prints.size(); ++i) all = (!prints[i] || prints[i]->holds(tensors[i])) && all;
  return all;
}

}  // namespace gnna
