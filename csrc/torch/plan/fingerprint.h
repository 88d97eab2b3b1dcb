// Checksums of edge lists and weights that a cache relies on. They detect writes that autograd's version counter does
// not count: through .data, a NumPy alias, or an array that torch.from_numpy shares.
//
// On a CPU, each use compares the next part of the tensor: all of up to 512 KiB, otherwise an eighth. A tensor that was
// rewritten differs in every part, so the next use detects it. A single changed element is detected within eight uses.
// On a GPU, every 16th use compares the whole tensor asynchronously, and a later use raises. A captured CUDA graph
// compares the tensors that its results depend on at every replay, and the next replay raises.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <atomic>
#include <memory>
#include <vector>

namespace gnna {

// A checksum that is computed and compared on a device, asynchronously to the host.
class DeviceChecksum {
 public:
  virtual ~DeviceChecksum() = default;
  virtual void compare(const at::Tensor& tensor) = 0;  // on the current stream; does not wait
  virtual bool differed() const = 0;                   // an earlier comparison found a difference
  // Adds a comparison to the CUDA graph that is being captured, unless it has one. Replays that find a difference set
  // the flag below.
  virtual void compare_at_replay(const at::Tensor& tensor) = 0;
};
using MakeDeviceChecksum = std::unique_ptr<DeviceChecksum> (*)(const at::Tensor& tensor);
void register_device_checksum(c10::DeviceType device, MakeDeviceChecksum make);
// Registers the flag in pinned memory that replays set.
void register_replay_flag(volatile int* flag);

class Fingerprint {
 public:
  // Reads the whole tensor.
  static std::shared_ptr<Fingerprint> of(const at::Tensor& tensor, int64_t version);
  // Returns whether this was taken of the same memory, shape, strides and version. Does not compare elements.
  bool is_of(const at::Tensor& tensor, int64_t version) const;

  // Holds: this use found no difference. Changed: the tensor was written to after the fingerprint was taken.
  // ChangedBefore: an earlier comparison on a GPU found the difference, so that earlier results may have used the old
  // elements. It is returned once, then Changed.
  enum class State { Holds, Changed, ChangedBefore };
  // Counts a use of the tensor and compares its part of the elements.
  State state(const at::Tensor& tensor);

 private:
  Fingerprint(const at::Tensor& tensor, int64_t version);

  const void* data_;
  at::DimVector sizes_, strides_;
  int64_t version_;
  std::atomic<bool> changed_{false};
  std::vector<uint64_t> blocks_;  // CPU: checksum of each block of the memory that the tensor spans
  std::atomic<size_t> next_{0};   // first block of the next comparison
  std::unique_ptr<DeviceChecksum> device_;
  std::atomic<int64_t> uses_{0};
};

// Raises RuntimeError for a tensor whose state is ChangedBefore.
[[noreturn]] void throw_changed_before(const at::Tensor& tensor);

// Returns whether no tensor has changed since its fingerprint was taken. prints: one per tensor, or empty. Raises
// RuntimeError if the state of a tensor is ChangedBefore.
template <typename Prints>
bool unchanged(const Prints& prints, at::ArrayRef<at::Tensor> tensors) {
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
