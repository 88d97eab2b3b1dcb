// Decides which part of a tensor each use compares, and computes checksums on the CPU.
#include "plan/fingerprint.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <array>

#include "common/cpu_executor.h"
#include "plan/builder.h"

namespace gnna {
namespace {

constexpr size_t kBlock = size_t{64} << 10;      // bytes
constexpr size_t kBlocksAlways = 8, kShare = 8;  // a use compares 1/kShare of the blocks, at least kBlocksAlways
constexpr size_t kBlocksPerTask = 16;            // a second thread pays from 1 MiB on
constexpr int64_t kUsesPerComparison = 16;       // on a GPU
constexpr int64_t kMostSpan = 4;                 // a view that spans more than this times its own size is copied first

std::array<MakeDeviceChecksum, static_cast<size_t>(c10::COMPILE_TIME_MAX_DEVICE_TYPES)>& makers() {
  static std::array<MakeDeviceChecksum, static_cast<size_t>(c10::COMPILE_TIME_MAX_DEVICE_TYPES)> table{};
  return table;
}

std::atomic<volatile int*> replay_flag{nullptr};

// Returns whether a replay found that a tensor had changed since its CUDA graph was captured, and forgets it.
bool changed_before_replay() {
  volatile int* const flag = replay_flag;
  if (flag == nullptr || *flag == 0) return false;
  *flag = 0;
  return true;
}

TORCH_LIBRARY_IMPL(gnna, CompositeImplicitAutograd, m) { m.impl("changed_before_replay", &changed_before_replay); }

// The memory from a tensor's first element to its last, or a contiguous copy of a view that skips most of that memory.
struct Span {
  at::Tensor holder;
  const char* data;
  size_t bytes;

  explicit Span(const at::Tensor& tensor) : holder(tensor) {
    int64_t last = 0;
    for (int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
    const int64_t elements = tensor.numel() == 0 ? 0 : last + 1;
    if (elements > kMostSpan * tensor.numel()) holder = tensor.contiguous();
    data = static_cast<const char*>(holder.const_data_ptr());
    bytes = static_cast<size_t>(std::min(elements, kMostSpan * tensor.numel()) * tensor.element_size());
    if (!holder.is_same(tensor)) bytes = holder.nbytes();
  }

  size_t blocks() const { return (bytes + kBlock - 1) / kBlock; }
  uint64_t checksum(size_t block) const {
    const size_t begin = block * kBlock;
    return cpu::checksum(data + begin, std::min(kBlock, bytes - begin));
  }
};

// Calls body(block) for every block of [0, count), on several threads if there are many.
template <typename Body>
void for_blocks(size_t count, const Body& body) {
  const size_t tasks = count / kBlocksPerTask;
  const cpu::Executor executor = cpu_executor();
  if (tasks < 2 || executor.threads < 2) {
    for (size_t block = 0; block < count; ++block) body(block);
    return;
  }
  executor.run(static_cast<int64_t>(tasks), [&](int64_t task) {
    const auto t = static_cast<size_t>(task);
    for (size_t block = count * t / tasks; block < count * (t + 1) / tasks; ++block) body(block);
  });
}

}  // namespace

void register_device_checksum(c10::DeviceType device, MakeDeviceChecksum make) {
  makers()[static_cast<size_t>(device)] = make;
}

void register_replay_flag(volatile int* flag) { replay_flag = flag; }

Fingerprint::Fingerprint(const at::Tensor& tensor, int64_t version)
    : data_(tensor.const_data_ptr()), sizes_(tensor.sizes()), strides_(tensor.strides()), version_(version) {}

std::shared_ptr<Fingerprint> Fingerprint::of(const at::Tensor& tensor, int64_t version) {
  const std::shared_ptr<Fingerprint> made(new Fingerprint(tensor, version));
  if (tensor.is_cpu()) {
    const Span span(tensor);
    made->blocks_.resize(span.blocks());
    for_blocks(span.blocks(), [&](size_t block) { made->blocks_[block] = span.checksum(block); });
  } else if (const auto make = makers()[static_cast<size_t>(tensor.device().type())]) {
    made->device_ = make(tensor);
  }
  return made;
}

bool Fingerprint::is_of(const at::Tensor& tensor, int64_t version) const {
  return !changed_ && version_ == version && data_ == tensor.const_data_ptr() && tensor.sizes() == sizes_ &&
         tensor.strides() == strides_;
}

Fingerprint::State Fingerprint::state(const at::Tensor& tensor) {
  if (changed_) return State::Changed;
  if (device_) {
    if (device_->differed()) {
      changed_ = true;
      return State::ChangedBefore;
    }
    if (capturing_on(tensor.device())) {
      device_->compare_at_replay(tensor);
    } else if (uses_.fetch_add(1, std::memory_order_relaxed) % kUsesPerComparison == 0) {
      device_->compare(tensor);
    }
    return State::Holds;
  }
  if (blocks_.empty()) return State::Holds;
  const Span span(tensor);
  const size_t count = std::min(blocks_.size(), std::max(kBlocksAlways, blocks_.size() / kShare));
  const size_t first = next_.fetch_add(count, std::memory_order_relaxed);
  for_blocks(count, [&](size_t i) {
    const size_t block = (first + i) % blocks_.size();
    if (span.checksum(block) != blocks_[block]) changed_ = true;
  });
  return changed_ ? State::Changed : State::Holds;
}

void throw_changed_before(const at::Tensor& tensor) {
  TORCH_CHECK(
      false, "an edge list or edge weight on ", tensor.device(),
      " was changed in a way that autograd does not see (through .data, or memory shared with other code); "
      "results since that change may have used the old values. Change it with in-place operations on the tensor "
      "itself, or pass a new tensor");
}

}  // namespace gnna
