// The storages that captured CUDA graphs read, each held once.
#include "plan/captures.h"

#include <torch/library.h>

#include <atomic>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace gnna {
namespace {

struct Held {
  std::mutex mutex;
  std::unordered_map<const c10::StorageImpl*, c10::Storage> storages;
  std::atomic<bool> any{false};
};

Held& held() {
  static auto* const made = new Held;  // never destroyed, because CUDA shuts down before static destructors run
  return *made;
}

// Returns the number of storages held and their bytes.
std::vector<int64_t> captures() {
  const std::lock_guard<std::mutex> lock(held().mutex);
  int64_t bytes = 0;
  for (const auto& [key, storage] : held().storages) bytes += static_cast<int64_t>(storage.nbytes());
  return {static_cast<int64_t>(held().storages.size()), bytes};
}

void release_captures() {
  decltype(Held::storages) released;
  {
    const std::lock_guard<std::mutex> lock(held().mutex);
    held().storages.swap(released);
    held().any = false;
  }
  released.clear();  // outside the lock, because a deleter may run other code
}

TORCH_LIBRARY_IMPL(gnna, CompositeImplicitAutograd, m) {
  m.impl("captures", &captures);
  m.impl("release_captures", &release_captures);
}

}  // namespace

void hold_for_captures(at::ArrayRef<at::Tensor> tensors) {
  const std::lock_guard<std::mutex> lock(held().mutex);
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    const c10::Storage& storage = tensor.storage();
    held().storages.try_emplace(storage.unsafeGetStorageImpl(), storage);
    held().any = true;
  }
}

bool is_held_for_captures(const at::Tensor& tensor) {
  if (!held().any || !tensor.defined()) return false;
  const std::lock_guard<std::mutex> lock(held().mutex);
  return held().storages.count(tensor.storage().unsafeGetStorageImpl()) > 0;
}

}  // namespace gnna
