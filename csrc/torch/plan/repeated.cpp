// Counts how often an edge list was used, because results cached for a graph that is used once do not pay. Lists are
// distinguished by a hash of a few elements. A collision affects performance only, never results.
#include <ATen/core/Tensor.h>
#include <c10/util/hash.h>
#include <torch/library.h>

#include <array>
#include <atomic>

namespace gnna {
namespace {

constexpr int64_t kSamples = 8;
constexpr uint32_t kCallsOfOnePass = 8;  // more than the layers of a usual model make

struct Counter {
  std::atomic<size_t> list{0};
  std::atomic<uint32_t> calls{0};
};

template <typename Id>
size_t sample(const at::Tensor& list) {
  const Id* const first = list.const_data_ptr<Id>();
  const int64_t columns = list.size(-1), step = list.stride(-1);
  size_t hash = c10::get_hash(columns);
  for (int64_t row = 0; row < (list.dim() == 2 ? list.size(0) : 1); ++row) {
    const Id* const from = first + (list.dim() == 2 ? row * list.stride(0) : 0);
    for (int64_t i = 0; i < kSamples; ++i)
      hash = c10::hash_combine(hash, static_cast<size_t>(from[(columns - 1) * i / (kSamples - 1) * step]));
  }
  return hash;
}

// Returns nullptr for a tensor that is not an edge list on the CPU. Such a tensor counts as repeated.
Counter* counter_of(const at::Tensor& list) {
  static auto* const counters = new std::array<Counter, 8192>;
  const auto type = list.scalar_type();
  const bool counted = list.is_cpu() && (list.dim() == 1 || list.dim() == 2) && list.numel() > 0 &&
                       list.has_storage() && (type == at::kLong || type == at::kInt);
  if (!counted) return nullptr;
  const size_t hash = type == at::kLong ? sample<int64_t>(list) : sample<int32_t>(list);
  Counter& counter = (*counters)[hash % counters->size()];
  if (counter.list.exchange(hash, std::memory_order_relaxed) != hash) counter.calls = 0;
  return &counter;
}

// Counts a call with this edge list, [2, E] or [E]. Returns whether this is more calls than one pass of a model
// makes, so that the list is used repeatedly.
bool is_repeated(const at::Tensor& list) {
  Counter* const counter = counter_of(list);
  return counter == nullptr || counter->calls.fetch_add(1, std::memory_order_relaxed) >= kCallsOfOnePass;
}

// Makes is_repeated() return true for this list, so that explain() can show how a graph is treated in the long run.
void set_repeated(const at::Tensor& list) {
  if (Counter* const counter = counter_of(list)) counter->calls = kCallsOfOnePass;
}

TORCH_LIBRARY_IMPL(gnna, CompositeImplicitAutograd, m) {
  m.impl("is_repeated", &is_repeated);
  m.impl("set_repeated", &set_repeated);
}

}  // namespace
}  // namespace gnna
