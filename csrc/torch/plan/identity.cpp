// Finds the source of a tensor by its version counter, and that of an unwritten copy by its copy-on-write context.
#include "plan/identity.h"

#include <ATen/ops/_lazy_clone.h>
#include <c10/core/impl/COW.h>
#include <c10/util/hash.h>
#include <pthread.h>

#include <cstring>
#include <new>
#include <unordered_map>
#include <vector>

#include "plan/fingerprint.h"

namespace gnna {

std::recursive_mutex& recall_mutex() {
  // Never destroyed, like the caches that it guards, because CUDA shuts down before static destructors run.
  static auto* const mutex = [] {
    auto* made = new std::recursive_mutex;
    // Held over a fork, so that the child's copy of the caches is consistent. The child makes a new mutex, because its
    // thread has another id and cannot unlock the inherited one.
    pthread_atfork([] { recall_mutex().lock(); }, [] { recall_mutex().unlock(); },
                   [] { new (&recall_mutex()) std::recursive_mutex; });
    return made;
  }();
  return *mutex;
}

namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

// torch's interface gives a counter's value but not its identity, so this reads the pointer in the VariableVersion.
const void* counter_of(const c10::VariableVersion& version) {
  static_assert(sizeof(c10::VariableVersion) == sizeof(void*), "a VariableVersion is one pointer to its counter");
  const void* counter;
  std::memcpy(static_cast<void*>(&counter), static_cast<const void*>(&version), sizeof counter);  // NOLINT
  return counter;
}

const c10::VariableVersion& version_of(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->version_counter();
}

const void* copy_context(const c10::StorageImpl& storage) {
  const at::DataPtr& data = storage.data_ptr();
  return c10::impl::cow::is_cow_data_ptr(data) ? data.get_context() : nullptr;
}

}  // namespace

// Both tables hold sources weakly, and a source removes itself when it is destroyed. The caller holds the recall mutex.
class Sources {
 public:
  std::shared_ptr<Source> of(const at::Tensor& tensor) {
    auto& known = known_[place_of(version_of(tensor), tensor.storage().unsafeGetStorageImpl())];
    std::shared_ptr<Source> source = known.lock();
    if (!source) known = source = std::make_shared<Source>(tensor, false);
    return source;
  }

  // Returns the source of the original of which this storage is an unwritten copy, or nullptr.
  std::shared_ptr<Source> original_of(const c10::StorageImpl& storage) {
    const void* const context = copy_context(storage);
    if (context == nullptr) return nullptr;
    const auto found = originals_.find(context);
    if (found == originals_.end()) return nullptr;
    std::shared_ptr<Source> source = found->second.lock();
    if (!source) return nullptr;
    const auto original = source->storage_.lock();
    return original && copy_context(*original) == context ? source : nullptr;
  }

  void add_original(const std::shared_ptr<Source>& source, const at::Tensor& tensor) {
    source->copies_ = copy_context(*tensor.storage().unsafeGetStorageImpl());
    if (source->copies_ != nullptr) originals_[source->copies_] = source;
  }

  // Marks the source as constant and holds it while its tensor lives. Each call also checks a few of the sources held
  // and drops the dead ones, so that they do not accumulate.
  void keep_constant(std::shared_ptr<Source> source) {
    source->set_constant();
    for (int looked = 0; looked < 4 && !constants_.empty(); ++looked) {
      next_constant_ = (next_constant_ + 1) % constants_.size();
      if (constants_[next_constant_]->alive()) continue;
      const std::shared_ptr<Source> dead = std::move(constants_[next_constant_]);
      constants_[next_constant_] = std::move(constants_.back());
      constants_.pop_back();
    }
    constants_.push_back(std::move(source));
  }

  void forget(const Source& source) {
    const auto known = known_.find(place_of(source.counter_, source.storage_._unsafe_get_target()));
    if (known != known_.end() && known->second.expired()) known_.erase(known);
    const auto original = originals_.find(source.copies_);
    if (original != originals_.end() && original->second.expired()) originals_.erase(original);
  }

 private:
  // A counter and a storage. `t.data = other` changes the storage of a counter, and the index and value tensors of a
  // torch.sparse matrix share its counter.
  using Place = std::pair<const void*, const void*>;
  struct PlaceHash {
    size_t operator()(const Place& place) const { return c10::get_hash(place.first, place.second); }
  };
  static Place place_of(const c10::VariableVersion& version, const c10::StorageImpl* storage) {
    return {counter_of(version), storage};
  }

  std::unordered_map<Place, std::weak_ptr<Source>, PlaceHash> known_;
  std::unordered_map<const void*, std::weak_ptr<Source>> originals_;
  std::vector<std::shared_ptr<Source>> constants_;
  size_t next_constant_ = 0;
};

namespace {

Sources& sources() {
  static auto* const made = new Sources;
  return *made;
}

size_t place_hash(const void* data, at::IntArrayRef sizes) {
  return c10::get_hash(data, sizes.empty() ? 0 : sizes[0], sizes.size());
}

}  // namespace

Source::Source(const at::Tensor& tensor, bool constant)
    : storage_(tensor.storage().getWeakStorageImpl()),
      counter_(version_of(tensor)),
      storage_bytes_(static_cast<int64_t>(tensor.storage().nbytes())) {
  if (constant) set_constant();
}

Source::~Source() {
  const Lock lock(recall_mutex());
  sources().forget(*this);
}

TensorKey::TensorKey(std::shared_ptr<Source> source, const at::Tensor& tensor, int64_t version)
    : source_(std::move(source)),
      data_(tensor.const_data_ptr()),
      sizes_(tensor.sizes()),
      strides_(tensor.strides()),
      version_(version),
      dtype_(tensor.scalar_type()),
      hash_(place_hash(data_, sizes_)) {}

std::optional<TensorKey> TensorKey::of(const at::Tensor& tensor) {
  if (!tensor.has_storage()) return std::nullopt;
  const Lock lock(recall_mutex());
  if (auto original = sources().original_of(*tensor.storage().unsafeGetStorageImpl())) {
    const int64_t version = original->counter_.current_version();
    return TensorKey(std::move(original), tensor, version);
  }
  if (!version_of(tensor).enabled()) return std::nullopt;
  return TensorKey(sources().of(tensor), tensor, tensor._version());
}

std::shared_ptr<Fingerprint> TensorKey::fingerprint(const at::Tensor& tensor) const {
  if (constant()) return nullptr;
  {
    const Lock lock(recall_mutex());
    const auto known = source_->prints_.find(hash_);
    if (known != source_->prints_.end()) {
      auto print = known->second.lock();
      if (print && print->is_of(tensor, version_)) return print;
    }
  }
  auto print = Fingerprint::of(tensor, version_);
  const Lock lock(recall_mutex());
  // Slices that no cache uses any more have left expired pointers behind.
  if (source_->prints_.size() >= 64 && source_->prints_.size() >= 2 * source_->prints_.bucket_count() / 3) {
    for (auto it = source_->prints_.begin(); it != source_->prints_.end();)
      it = it->second.expired() ? source_->prints_.erase(it) : std::next(it);
  }
  source_->prints_[hash_] = print;
  return print;
}

Original::Original(at::Tensor tensor, std::shared_ptr<Source> source)
    : tensor_(std::move(tensor)), source_(std::move(source)) {}

std::optional<Original> Original::of(const at::Tensor& result) {
  const c10::StorageImpl& storage = *result.storage().unsafeGetStorageImpl();
  if (!c10::impl::cow::has_simple_data_ptr(storage) && copy_context(storage) == nullptr) return std::nullopt;
  // Detached, because freeing a tensor that has a Python object needs the interpreter's lock.
  const at::Tensor tensor = result.detach();
  at::_lazy_clone(tensor);  // makes the storage copy-on-write
  const Lock lock(recall_mutex());
  auto source = sources().of(tensor);
  source->set_constant();
  sources().add_original(source, tensor);
  return Original(tensor, std::move(source));
}

at::Tensor Original::copy() const { return at::_lazy_clone(tensor_); }

void mark_constant(const at::Tensor& tensor) {
  if (!tensor.has_storage() || !version_of(tensor).enabled()) return;
  const Lock lock(recall_mutex());
  sources().keep_constant(sources().of(tensor));
}

}  // namespace gnna
