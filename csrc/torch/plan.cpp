// The plan cache: a least-recently-used list under one lock, bounded by bytes, whose entries die with the edge lists
// they belong to.
#include "plan.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <c10/util/hash.h>

#include <array>
#include <list>
#include <unordered_map>
#include <vector>

#include "csr_form.h"

namespace gnna {

TensorKey::TensorKey(const at::Tensor& tensor, int64_t version)
    : storage_(tensor.storage().getWeakStorageImpl()),
      data_(tensor.const_data_ptr()),
      sizes_(tensor.sizes()),
      strides_(tensor.strides()),
      version_(version),
      dtype_(tensor.scalar_type()),
      device_(tensor.device()) {}

std::optional<TensorKey> TensorKey::of(const at::Tensor& tensor) {
  if (tensor.is_inference() || !tensor.has_storage()) return std::nullopt;
  return TensorKey(tensor, tensor._version());
}

bool TensorKey::operator==(const TensorKey& other) const {
  return data_ == other.data_ && sizes_ == other.sizes_ && strides_ == other.strides_ && version_ == other.version_ &&
         dtype_ == other.dtype_ && device_ == other.device_ &&
         storage_._unsafe_get_target() == other.storage_._unsafe_get_target() && !storage_.expired();
}

size_t TensorKey::hash() const { return c10::get_hash(data_, sizes_.empty() ? 0 : sizes_[0], version_); }

CsrView Plan::view() const {
  return {rows,
          cols,
          edges,
          rowptr.const_data_ptr<int64_t>(),
          col.const_data_ptr<int32_t>(),
          perm.defined() ? perm.const_data_ptr<int32_t>() : nullptr};
}

int64_t Plan::bytes() const {
  int64_t total = 0;
  for (const at::Tensor* t : {&rowptr, &col, &perm})
    if (t->defined()) total += static_cast<int64_t>(t->nbytes());
  // A static weight will be kept in slot order beside them; counted ahead, so that an entry's size never changes.
  return perm.defined() ? total + edges * 4 : total;
}

at::Tensor Plan::slot_ordered(const at::Tensor& weight) const {
  // A weight that is trained changes every step, sometimes through .data, which a key cannot see.
  if (!perm.defined() || weight.requires_grad()) return {};
  const auto key = TensorKey::of(weight);
  if (!key) return {};
  const std::lock_guard<std::mutex> lock(weight_mutex_);
  if (weight_key_ && *weight_key_ == *key) {
    if (!weight_in_slot_order_.defined()) {
      const c10::InferenceMode normal(false);
      weight_in_slot_order_ = at::index_select(weight.detach(), 0, perm);
    }
    return weight_in_slot_order_;
  }
  weight_key_ = key;
  weight_in_slot_order_.reset();
  return {};
}

namespace {

struct Entry {
  TensorKey row, col;
  int64_t rows, cols;
  std::shared_ptr<const Plan> plan;
  size_t hash;

  bool matches(const TensorKey& r, const TensorKey& c, int64_t n_rows, int64_t n_cols) const {
    return rows == n_rows && cols == n_cols && row == r && col == c;
  }
};

class PlanCache {
 public:
  std::shared_ptr<const Plan> find(const TensorKey& row, const TensorKey& col, int64_t rows, int64_t cols, bool pin) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto range = index_.equal_range(hash(row, col));
    for (auto it = range.first; it != range.second; ++it) {
      if (!it->second->matches(row, col, rows, cols)) continue;
      entries_.splice(entries_.begin(), entries_, it->second);
      ++hits_;
      // A captured graph holds raw pointers into the plan and may be replayed for as long as the process lives.
      if (pin) pinned_.push_back(it->second->plan);
      return it->second->plan;
    }
    ++misses_;
    return nullptr;
  }

  void insert(const TensorKey& row, const TensorKey& col, int64_t rows, int64_t cols,
              std::shared_ptr<const Plan> plan) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // Edge lists made afresh in every forward pass leave dead entries behind; without this sweep they would pile up.
    for (auto it = entries_.begin(); it != entries_.end();) {
      const auto next = std::next(it);
      if (it->row.expired() || it->col.expired()) erase(it);
      it = next;
    }
    if (plan->bytes() > max_bytes_) return;
    bytes_ += plan->bytes();
    entries_.push_front({row, col, rows, cols, std::move(plan), hash(row, col)});
    index_.emplace(entries_.front().hash, entries_.begin());
    shrink();
  }

  void clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    entries_.clear();
    index_.clear();
    bytes_ = 0;
  }

  void set_max_bytes(int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    max_bytes_ = bytes;
    shrink();
  }

  CacheInfo info() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {static_cast<int64_t>(entries_.size()), bytes_, hits_, misses_, max_bytes_};
  }

 private:
  using Iterator = std::list<Entry>::iterator;

  static size_t hash(const TensorKey& row, const TensorKey& col) { return c10::get_hash(row.hash(), col.hash()); }

  void erase(Iterator it) {
    const auto range = index_.equal_range(it->hash);
    for (auto slot = range.first; slot != range.second; ++slot) {
      if (slot->second == it) {
        index_.erase(slot);
        break;
      }
    }
    bytes_ -= it->plan->bytes();
    entries_.erase(it);
  }

  void shrink() {
    while (bytes_ > max_bytes_ && !entries_.empty()) erase(std::prev(entries_.end()));
  }

  std::mutex mutex_;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_multimap<size_t, Iterator> index_;
  std::vector<std::shared_ptr<const Plan>> pinned_;
  int64_t bytes_ = 0, hits_ = 0, misses_ = 0;
  int64_t max_bytes_ = int64_t{4} << 30;
};

PlanCache& plan_cache() {
  static PlanCache* cache = new PlanCache;  // never destroyed: CUDA is gone before static destructors run
  return *cache;
}

std::array<std::optional<PlanBuilder>, static_cast<size_t>(c10::COMPILE_TIME_MAX_DEVICE_TYPES)>& builders() {
  static std::array<std::optional<PlanBuilder>, static_cast<size_t>(c10::COMPILE_TIME_MAX_DEVICE_TYPES)> table;
  return table;
}

}  // namespace

void register_plan_builder(c10::DeviceType device, PlanBuilder builder) {
  builders()[static_cast<size_t>(device)] = builder;
}

void throw_bad_index(const char* side, int64_t position, int64_t value, int64_t limit) {
  TORCH_CHECK_VALUE(false, side, "[", position, "] = ", value, " is out of range: valid indices are 0 to ", limit - 1);
  std::abort();
}

namespace {

const PlanBuilder& builder_of(at::Device device) {
  const auto& builder = builders()[static_cast<size_t>(device.type())];
  TORCH_CHECK_NOT_IMPLEMENTED(builder.has_value(), "gnna: no kernels for device type ", device.type());
  return *builder;
}

constexpr int64_t kSegments = -1;  // stands for the number of columns in the key of a segment plan

// The plan under this key, or what `build` makes of the device's builder.
template <typename Build>
std::shared_ptr<const Plan> find_or_build(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t key_cols,
                                          bool cache, const Build& build) {
  const PlanBuilder& builder = builder_of(row.device());
  constexpr int64_t kLimit = (int64_t{1} << 31) - 1;
  TORCH_CHECK_NOT_IMPLEMENTED(rows < kLimit && key_cols < kLimit && row.numel() < kLimit,
                              "gnna: graphs of 2^31 or more nodes or edges are not supported");
  const bool capturing = builder.capturing();
  const auto row_key = cache ? TensorKey::of(row) : std::nullopt;
  const auto col_key = cache ? TensorKey::of(col) : std::nullopt;
  const bool keyed = row_key && col_key;
  if (keyed) {
    if (auto found = plan_cache().find(*row_key, *col_key, rows, key_cols, capturing)) return found;
  }
  check_not_capturing(row.device());
  const c10::InferenceMode normal(false);  // the plan may serve training later
  std::shared_ptr<const Plan> plan = build(builder);
  if (keyed) plan_cache().insert(*row_key, *col_key, rows, key_cols, plan);
  return plan;
}

}  // namespace

std::shared_ptr<const Plan> plan_for(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                     const char* row_name, const char* col_name, bool cache) {
  return find_or_build(row, col, rows, cols, cache, [&](const PlanBuilder& builder) {
    return builder.build(row, col, rows, cols, row_name, col_name);
  });
}

std::shared_ptr<const Plan> segments_for(const at::Tensor& index, int64_t rows, bool cache) {
  return find_or_build(index, index, rows, kSegments, cache, [&](const PlanBuilder& builder) {
    const at::Tensor positions = at::arange(index.numel(), index.options());
    return builder.build(index, positions, rows, index.numel(), "index", "position");
  });
}

void adopt_plan(const at::Tensor& row, const at::Tensor& col, std::shared_ptr<const Plan> plan) {
  const auto row_key = TensorKey::of(row), col_key = TensorKey::of(col);
  const int64_t rows = plan->rows, cols = plan->cols;
  if (row_key && col_key) plan_cache().insert(*row_key, *col_key, rows, cols, std::move(plan));
}

void check_not_capturing(at::Device device) {
  TORCH_CHECK(!builder_of(device).capturing(),
              "gnna: a plan cannot be built while a CUDA graph is captured; run one forward and backward step with the "
              "same edge index before capturing");
}

CacheInfo cache_info() { return plan_cache().info(); }
void clear_cache() {
  clear_csr_forms();
  plan_cache().clear();
}
void set_max_plan_bytes(int64_t bytes) { plan_cache().set_max_bytes(bytes); }

}  // namespace gnna
