// The plan cache: a least-recently-used list under one lock, bounded by bytes, whose entries die with the edge lists
// they belong to.
#include <ATen/ops/arange.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <c10/util/hash.h>
#include <pthread.h>

#include <algorithm>
#include <list>
#include <unordered_map>
#include <vector>

#include "csr_form.h"
#include "plan.h"
#include "schedule.h"

namespace gnna {
namespace {

constexpr int64_t kSegments = -1;   // stands for the number of columns in the key of a segment plan
constexpr size_t kAskedMost = 256;  // index tensors remembered without a plan: more than a model's edge types have

struct Entry {
  TensorKey row, col;
  int64_t rows, cols;
  std::shared_ptr<const Plan> plan;
  size_t hash;
  std::shared_ptr<Schedule> schedule;
  int64_t bytes;        // the plan's, and those of the one before while two are compared
  bool pinned = false;  // a captured CUDA graph reads the plan
  // Of the reverse of a symmetric list: the plan, schedule and bytes are that one's, and perm means nothing.
  bool borrowed = false;
  std::optional<bool> symmetric;  // once it was asked
  bool edge_ids = true;           // some call used perm

  bool matches(const TensorKey& r, const TensorKey& c, int64_t n_rows, int64_t n_cols) const {
    return rows == n_rows && cols == n_cols && row == r && col == c;
  }
};

class PlanCache {
 public:
  struct Found {
    std::shared_ptr<const Plan> plan;
    std::shared_ptr<Schedule> due;  // where it has something to do
  };

  Found find(const TensorKey& row, const TensorKey& col, int64_t rows, int64_t cols, bool pin, bool edge_ids) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto range = index_.equal_range(hash(row, col));
    for (auto it = range.first; it != range.second; ++it) {
      if (!it->second->matches(row, col, rows, cols) || (edge_ids && it->second->borrowed)) continue;
      entries_.splice(entries_.begin(), entries_, it->second);
      ++hits_;
      Entry& entry = *it->second;
      if (entry.borrowed) {  // its owner is in use as well, and goes last
        const auto owner = std::find_if(entries_.begin(), entries_.end(),
                                        [&](const Entry& e) { return !e.borrowed && e.plan == entry.plan; });
        if (owner != entries_.end()) entries_.splice(entries_.begin(), entries_, owner);
      }
      entry.edge_ids = entry.edge_ids || edge_ids;
      // A captured graph holds raw pointers into the plan and may be replayed for as long as the process lives.
      if (pin && !entry.pinned) {
        pinned_.push_back(entry.plan);
        for (Entry& other : entries_) other.pinned = other.pinned || other.plan == entry.plan;
      }
      return {entry.plan, !entry.pinned && entry.schedule->due(*entry.plan) ? entry.schedule : nullptr};
    }
    ++misses_;
    return {};
  }

  void insert(const TensorKey& row, const TensorKey& col, int64_t rows, int64_t cols, std::shared_ptr<const Plan> plan,
              bool edge_ids) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // Edge lists made afresh in every forward pass leave dead entries behind; without this sweep they would pile up.
    erase_where([](const Entry& e) { return e.row.expired() || e.col.expired(); });
    if (plan->bytes() > max_bytes_) return;
    if (Entry* const borrowed = peek(row, col, rows, cols)) erase_where([&](const Entry& e) { return &e == borrowed; });
    const Entry* const reverse = peek(col, row, cols, rows);
    auto schedule = reverse ? std::make_shared<Schedule>(reverse->schedule->store(), true)
                            : std::make_shared<Schedule>(make_community_store(), false);
    const int64_t bytes = plan->bytes();
    bytes_ += bytes;
    entries_.push_front({row, col, rows, cols, std::move(plan), hash(row, col), std::move(schedule), bytes});
    entries_.front().edge_ids = edge_ids;
    index_.emplace(entries_.front().hash, entries_.begin());
    shrink();
  }

  // The plan of the reverse list where that is symmetric, from then on served for this one too; else nullptr.
  // is_symmetric is not asked again while the reverse is here.
  template <typename Ask>
  Found borrow(const TensorKey& row, const TensorKey& col, int64_t rows, const Ask& is_symmetric) {
    std::optional<bool> symmetric;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const Entry* const reverse = peek(col, row, rows, rows);
      if (reverse == nullptr || reverse->borrowed) return {};
      symmetric = reverse->symmetric;
    }
    if (!symmetric) symmetric = is_symmetric();
    const std::lock_guard<std::mutex> lock(mutex_);
    Entry* const reverse = peek(col, row, rows, rows);
    if (reverse == nullptr || reverse->borrowed) return {};
    reverse->symmetric = symmetric;
    if (!*symmetric) return {};
    if (const Entry* const there = peek(row, col, rows, rows)) return {there->plan, nullptr};  // another thread's
    Entry entry = *reverse;
    entry.row = row, entry.col = col, entry.hash = hash(row, col), entry.bytes = 0, entry.borrowed = true;
    entries_.push_front(std::move(entry));
    index_.emplace(entries_.front().hash, entries_.begin());
    return {reverse->plan, nullptr};
  }

  // Serves `plan` in the place of `before` and counts `held` bytes beside it. False where that has gone or is pinned,
  // or they are too large to keep.
  bool replace(const std::shared_ptr<const Plan>& before, const std::shared_ptr<const Plan>& plan, int64_t held) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto it = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.plan == before; });
    const int64_t bytes = plan->bytes() + held;
    if (it == entries_.end() || (it->pinned && plan != before) || bytes > max_bytes_) return false;
    for (Entry& entry : entries_) {
      if (entry.plan != before) continue;
      entry.plan = plan;
      if (entry.borrowed) continue;
      bytes_ += bytes - entry.bytes;
      entry.bytes = bytes;
    }
    shrink();
    return true;
  }

  bool has(const TensorKey& row, const TensorKey& col, int64_t rows, int64_t cols) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return peek(row, col, rows, cols) != nullptr;
  }

  // Whether this was asked of the same tensor before, and a plan of so many bytes can be kept; the latest tensors are
  // remembered.
  bool asked_before(const TensorKey& key, int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bytes > max_bytes_) return false;
    asked_.remove_if([](const TensorKey& asked) { return asked.expired(); });
    if (std::find(asked_.begin(), asked_.end(), key) != asked_.end()) return true;
    asked_.push_front(key);
    if (asked_.size() > kAskedMost) asked_.pop_back();
    return false;
  }

  // The plans of edge lists of which one side is this tensor: the columns, or for the transposed ones the rows. A plan
  // that is borrowed does not count where the edges' weights are in use: they want one with their places.
  std::vector<std::shared_ptr<const Plan>> plans_of(const TensorKey& key, bool as_columns) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::shared_ptr<const Plan>> found;
    const auto lends_weights = [&](const Entry& e) {
      return std::any_of(entries_.begin(), entries_.end(),
                         [&](const Entry& owner) { return !owner.borrowed && owner.edge_ids && owner.plan == e.plan; });
    };
    for (const Entry& entry : entries_) {
      if (entry.cols == kSegments || !((as_columns ? entry.col : entry.row) == key)) continue;
      if (!entry.borrowed || !lends_weights(entry)) found.push_back(entry.plan);
    }
    return found;
  }

  void settle(const std::shared_ptr<const Plan>& plan, const char* state, const char* reason) {
    std::vector<std::shared_ptr<Schedule>> found;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (const Entry& entry : entries_)
        if (entry.plan == plan) found.push_back(entry.schedule);
    }
    // Not under this lock: a schedule that advances holds its own and asks for this one.
    for (const auto& schedule : found) schedule->settle(state, reason);
  }

  std::vector<ScheduleInfo> schedules() {
    std::vector<std::pair<std::shared_ptr<Schedule>, std::shared_ptr<const Plan>>> all;
    std::vector<bool> pinned;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (const Entry& entry : entries_) {
        if (entry.borrowed) continue;
        all.emplace_back(entry.schedule, entry.plan);
        pinned.push_back(entry.pinned);
      }
    }
    std::vector<ScheduleInfo> result;
    for (size_t i = 0; i < all.size(); ++i) {
      result.push_back(all[i].first->info(*all[i].second));
      if (pinned[i]) result.back().state = "pinned";
    }
    return result;
  }

  void clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    entries_.clear();
    index_.clear();
    asked_.clear();
    bytes_ = 0;
  }

  void set_max_bytes(int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    max_bytes_ = bytes;
    shrink();
  }

  std::mutex& mutex() { return mutex_; }

  CacheInfo info() {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto plans = std::count_if(entries_.begin(), entries_.end(), [](const Entry& e) { return !e.borrowed; });
    return {plans, bytes_, hits_, misses_, max_bytes_};
  }

 private:
  using Iterator = std::list<Entry>::iterator;

  static size_t hash(const TensorKey& row, const TensorKey& col) { return c10::get_hash(row.hash(), col.hash()); }

  Entry* peek(const TensorKey& row, const TensorKey& col, int64_t rows, int64_t cols) const {
    const auto range = index_.equal_range(hash(row, col));
    for (auto it = range.first; it != range.second; ++it)
      if (it->second->matches(row, col, rows, cols)) return &*it->second;
    return nullptr;
  }

  void erase(Iterator it) {
    const auto range = index_.equal_range(it->hash);
    for (auto slot = range.first; slot != range.second; ++slot) {
      if (slot->second == it) {
        index_.erase(slot);
        break;
      }
    }
    bytes_ -= it->bytes;
    entries_.erase(it);
  }

  // What was borrowed goes with its owner.
  template <typename Which>
  void erase_where(const Which& which) {
    std::vector<std::shared_ptr<const Plan>> gone;
    for (const Entry& entry : entries_)
      if (!entry.borrowed && which(entry)) gone.push_back(entry.plan);
    for (auto it = entries_.begin(); it != entries_.end();) {
      const auto next = std::next(it);
      const bool owner_goes = it->borrowed && std::find(gone.begin(), gone.end(), it->plan) != gone.end();
      if (owner_goes || which(*it)) erase(it);
      it = next;
    }
  }

  void shrink() {
    while (bytes_ > max_bytes_) {
      const auto last = std::find_if(entries_.rbegin(), entries_.rend(), [](const Entry& e) { return !e.borrowed; });
      if (last == entries_.rend()) return;
      const Entry* const oldest = &*last;
      erase_where([&](const Entry& e) { return &e == oldest; });
    }
  }

  std::mutex mutex_;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_multimap<size_t, Iterator> index_;
  std::vector<std::shared_ptr<const Plan>> pinned_;
  std::list<TensorKey> asked_;  // latest first
  int64_t bytes_ = 0, hits_ = 0, misses_ = 0;
  int64_t max_bytes_ = int64_t{4} << 30;
};

PlanCache& plan_cache() {
  // Never destroyed: CUDA is gone before static destructors run.
  static PlanCache* cache = [] {
    auto* made = new PlanCache;
    // Held over a fork, so that no other thread can be inside while the child gets its copy.
    pthread_atfork([] { plan_cache().mutex().lock(); }, [] { plan_cache().mutex().unlock(); },
                   [] { plan_cache().mutex().unlock(); });
    return made;
  }();
  return *cache;
}

}  // namespace

namespace {

// The plan under this key, or what `build` makes of the device's builder.
template <typename Build>
std::shared_ptr<const Plan> find_or_build(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t key_cols,
                                          bool cache, bool edge_ids, const Build& build) {
  const PlanBuilder& builder = builder_of(row.device());
  constexpr int64_t kLimit = (int64_t{1} << 31) - 1;
  TORCH_CHECK_NOT_IMPLEMENTED(rows < kLimit && key_cols < kLimit && row.numel() < kLimit,
                              "gnna: graphs of 2^31 or more nodes or edges are not supported");
  const bool capturing = builder.capturing();
  const auto row_key = cache ? TensorKey::of(row) : std::nullopt;
  const auto col_key = cache ? TensorKey::of(col) : std::nullopt;
  const bool keyed = row_key && col_key;
  if (keyed) {
    auto found = plan_cache().find(*row_key, *col_key, rows, key_cols, capturing, edge_ids);
    if (!found.plan && !edge_ids && !capturing && rows == key_cols) {
      found = plan_cache().borrow(*row_key, *col_key, rows, [&] { return builder.symmetric(row, col); });
    }
    if (found.due) {
      found.due->advance(found.plan, builder, [&](const auto& now, const auto& better, int64_t held) {
        return plan_cache().replace(now, better, held) && (found.plan = better, true);
      });
    }
    if (found.plan) return found.plan;
  }
  check_not_capturing(row.device());
  const c10::InferenceMode normal(false);  // the plan may serve training later
  std::shared_ptr<const Plan> plan = build(builder);
  if (keyed) plan_cache().insert(*row_key, *col_key, rows, key_cols, plan, edge_ids);
  return plan;
}

}  // namespace

std::shared_ptr<const Plan> plan_for(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                     const char* row_name, const char* col_name, bool cache, bool edge_ids) {
  return find_or_build(row, col, rows, cols, cache, edge_ids, [&](const PlanBuilder& builder) {
    return builder.build(row, col, rows, cols, row_name, col_name);
  });
}

std::shared_ptr<const Plan> segments_for(const at::Tensor& index, int64_t rows, bool cache) {
  return find_or_build(index, index, rows, kSegments, cache, true, [&](const PlanBuilder& builder) {
    const at::Tensor positions = at::arange(index.numel(), index.options());
    return builder.build(index, positions, rows, index.numel(), "index", "position");
  });
}

std::shared_ptr<const Plan> segments_if_there(const at::Tensor& index, int64_t rows) {
  const auto key = TensorKey::of(index);
  if (!key || !plan_cache().has(*key, *key, rows, kSegments)) return nullptr;
  auto plan = segments_for(index, rows, true);
  const PlanBuilder& builder = builder_of(index.device());
  return !builder.capturing() || builder.launchable(*plan) ? plan : nullptr;
}

std::shared_ptr<const Plan> segments_if_repeated(const at::Tensor& index, int64_t rows) {
  const auto key = TensorKey::of(index);
  if (!key) return nullptr;
  const bool there = plan_cache().has(*key, *key, rows, kSegments);
  const int64_t bytes = 8 * (rows + 1) + 8 * index.numel();  // rowptr, col and perm
  if (!there && (capturing_on(index.device()) || !plan_cache().asked_before(*key, bytes))) return nullptr;
  return segments_for(index, rows, true);
}

void adopt_plan(const at::Tensor& row, const at::Tensor& col, std::shared_ptr<const Plan> plan) {
  const auto row_key = TensorKey::of(row), col_key = TensorKey::of(col);
  const int64_t rows = plan->rows, cols = plan->cols;
  if (row_key && col_key) plan_cache().insert(*row_key, *col_key, rows, cols, std::move(plan), true);
}

bool has_plans(const at::Tensor& col, bool transposed) {
  const auto key = TensorKey::of(col);
  if (!key) return false;
  const PlanBuilder& builder = builder_of(col.device());
  const auto ready = [&](bool as_columns) {
    const auto plans = plan_cache().plans_of(*key, as_columns);
    return !plans.empty() &&
           std::all_of(plans.begin(), plans.end(), [&](const auto& plan) { return builder.launchable(*plan); });
  };
  return ready(true) && (!transposed || ready(false));
}

bool set_schedule(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                  const std::optional<at::Tensor>& order) {
  const auto before = plan_for(row, col, rows, cols, "dst", "src", true);
  const PlanBuilder& builder = builder_of(row.device());
  const c10::InferenceMode normal(false);
  std::shared_ptr<const Plan> plan = before;
  if (order.has_value()) {
    plan = in_order(*before, builder, *order, ScheduleKind::ByHand);
  } else if (before->order.defined()) {
    plan = in_order(*before, builder, {}, ScheduleKind::Ascending);
  }
  if (plan != before && !plan_cache().replace(before, plan, 0)) return false;
  plan_cache().settle(plan, order.has_value() ? "kept" : "unchanged", "set by hand");
  return true;
}

std::vector<ScheduleInfo> schedule_infos() { return plan_cache().schedules(); }
CacheInfo cache_info() { return plan_cache().info(); }
void clear_cache() {
  clear_csr_forms();
  plan_cache().clear();
}
void set_max_plan_bytes(int64_t bytes) { plan_cache().set_max_bytes(bytes); }

}  // namespace gnna
