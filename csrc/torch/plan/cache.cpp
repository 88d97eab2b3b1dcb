#include "plan/cache.h"

#include <ATen/ops/arange.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "plan/builder.h"
#include "plan/captures.h"
#include "plan/edge_list.h"
#include "plan/memo.h"
#include "plan/recall.h"
#include "plan/schedule.h"

namespace gnna {
namespace {

constexpr int64_t kSegments = -1;   // in the key of a segment plan, instead of the number of columns
constexpr size_t kAskedMost = 256;  // indices remembered without a plan: more than a model uses

using Lock = std::lock_guard<std::recursive_mutex>;

// The plan of one edge list. The plan of a symmetric list also serves calls on the reversed list that do not use edge
// ids. The reversed list then has a dependent node (recall.h), which has no value of its own.
struct CachedPlan {
  std::shared_ptr<const Plan> plan;
  std::shared_ptr<Schedule> schedule;
  std::optional<bool> symmetric;  // set by the first check
  bool edge_ids = true;           // whether a call has used perm
};

using Node = Recall<CachedPlan>::Node;

CachedPlan& value_of(Node& node) { return node.owner ? node.owner->value : node.value; }

RecallKey reversed(const RecallKey& key) {
  RecallKey reverse = key;
  std::swap(reverse.tensors[0], reverse.tensors[1]);
  std::swap(reverse.numbers[0], reverse.numbers[1]);
  return reverse;
}

class PlanCache {
 public:
  struct Found {
    std::shared_ptr<const Plan> plan;
    std::shared_ptr<Schedule> due;  // set if the schedule has a step to take
  };

  // Looks a plan up and compares the elements of `tensors`, the tensors of the key, with their checksums. If they have
  // changed, all plans of these tensors are dropped. pin: hold the plan's memory for the CUDA graph being captured.
  Found find(const RecallKey& key, at::ArrayRef<at::Tensor> tensors, bool pin, bool edge_ids) {
    Found found;
    Prints prints;
    {
      const Lock lock(recall_mutex());
      Node* const node = plans_.find(key);
      if (node != nullptr && !(edge_ids && node->owner)) {
        CachedPlan& value = value_of(*node);
        value.edge_ids = value.edge_ids || edge_ids;
        const Plan& plan = *value.plan;
        if (pin) hold_for_captures({plan.rowptr, plan.col, plan.perm, plan.order});
        const bool due = !is_held_for_captures(plan.rowptr) && value.schedule->due(plan);
        found = {value.plan, due ? value.schedule : nullptr};
        prints = node->prints;
      }
    }
    const bool same = unchanged(prints, tensors);
    const Lock lock(recall_mutex());
    if (!same) {
      plans_.erase_all_of(key);
      found = {};
    }
    ++(found.plan ? hits_ : misses_);
    return found;
  }

  void insert(const RecallKey& key, Prints prints, std::shared_ptr<const Plan> plan, bool edge_ids) {
    const Lock lock(recall_mutex());
    if (Node* const there = plans_.peek(key)) plans_.erase(*there);
    const Node* const reverse = key.tensors.size() == 2 ? plans_.peek(reversed(key)) : nullptr;
    CachedPlan value;
    value.schedule = reverse && !reverse->owner ? std::make_shared<Schedule>(reverse->value.schedule->store(), true)
                                                : std::make_shared<Schedule>(make_community_store(), false);
    value.edge_ids = edge_ids;
    value.symmetric = plan->symmetric;
    const int64_t bytes = plan->bytes();
    value.plan = std::move(plan);
    plans_.insert(key, std::move(value), bytes, std::move(prints));
  }

  // Returns the plan of the reversed list if that plan is cached and the list is symmetric, else nullptr. From then on
  // find() returns it for this key too. is_symmetric is called once while the plan of the reversed list is cached.
  template <typename Ask>
  Found borrow(const RecallKey& key, const Ask& is_symmetric) {
    const RecallKey reverse_key = reversed(key);
    std::optional<bool> symmetric;
    {
      const Lock lock(recall_mutex());
      Node* const reverse = plans_.peek(reverse_key);
      if (reverse == nullptr || reverse->owner) return {};
      symmetric = reverse->value.symmetric;
    }
    if (!symmetric) symmetric = is_symmetric();
    const Lock lock(recall_mutex());
    Node* const reverse = plans_.peek(reverse_key);
    if (reverse == nullptr || reverse->owner) return {};
    reverse->value.symmetric = symmetric;
    if (!*symmetric) return {};
    if (Node* const there = plans_.peek(key)) return {value_of(*there).plan, nullptr};  // another thread inserted it
    auto prints = reverse->prints;
    std::reverse(prints.begin(), prints.end());
    plans_.insert(key, {}, 0, std::move(prints), reverse);
    return {reverse->value.plan, nullptr};
  }

  // Replaces `before` by `plan` and counts `held` more bytes for the entry. Returns false if `before` is no longer
  // cached or is held for captures, or if the entry would exceed the bound.
  bool replace(const RecallKey& key, const std::shared_ptr<const Plan>& before, const std::shared_ptr<const Plan>& plan,
               int64_t held) {
    const Lock lock(recall_mutex());
    Node* node = plans_.peek(key);
    if (node && node->owner) node = node->owner;
    const int64_t bytes = plan->bytes() + held;
    if (!node || node->value.plan != before || bytes > plans_.max_bytes()) return false;
    if (plan != before && is_held_for_captures(before->rowptr)) return false;
    node->value.plan = plan;
    plans_.set_bytes(*node, bytes);
    return true;
  }

  bool has(const RecallKey& key) {
    const Lock lock(recall_mutex());
    return plans_.peek(key) != nullptr;
  }

  // Returns whether a plan of `bytes` bytes fits the bound and this key is among the last kAskedMost ones.
  // Records the key.
  bool seen_before(const RecallKey& key, int64_t bytes) {
    const Lock lock(recall_mutex());
    if (bytes > plans_.max_bytes()) return false;
    if (asked_.find(key)) return true;
    asked_.insert(key, {}, 0, {});
    return false;
  }

  // Returns the plans of edge lists whose columns (as_columns) or rows are this tensor. Leaves out a plan borrowed from
  // the reversed list if calls on that list use edge ids, because this list then needs a plan of its own.
  std::vector<std::shared_ptr<const Plan>> plans_of(const TensorKey& side, bool as_columns) {
    const Lock lock(recall_mutex());
    std::vector<std::shared_ptr<const Plan>> found;
    plans_.for_each_of(side, [&](Node& node) {
      const bool of_edges = node.key.tensors.size() == 2;
      if (!of_edges || !(node.key.tensors[as_columns ? 1 : 0] == side)) return;
      if (!node.owner || !node.owner->value.edge_ids) found.push_back(value_of(node).plan);
    });
    return found;
  }

  void settle(const RecallKey& key, const char* state, const char* reason) {
    std::shared_ptr<Schedule> schedule;
    {
      const Lock lock(recall_mutex());
      if (Node* const node = plans_.peek(key)) schedule = value_of(*node).schedule;
    }
    // Outside the lock, because Schedule::advance() takes the schedule's lock first and the recall lock second.
    if (schedule) schedule->settle(state, reason);
  }

  std::vector<ScheduleInfo> schedules() {
    std::vector<CachedPlan> all;
    {
      const Lock lock(recall_mutex());
      plans_.sweep();
      for (const Node& node : plans_.nodes())
        if (!node.owner) all.push_back(node.value);
    }
    std::vector<ScheduleInfo> result;
    for (const CachedPlan& cached : all) {
      result.push_back(cached.schedule->info(*cached.plan));
      if (is_held_for_captures(cached.plan->rowptr)) result.back().state = "pinned";
    }
    return result;
  }

  void clear() {
    const Lock lock(recall_mutex());
    plans_.clear();
    asked_.clear();
  }

  void set_max_bytes(int64_t bytes) {
    const Lock lock(recall_mutex());
    plans_.set_max_bytes(bytes);
  }

  CacheInfo info() {
    const Lock lock(recall_mutex());
    plans_.sweep();
    const auto plans =
        std::count_if(plans_.nodes().begin(), plans_.nodes().end(), [](const Node& node) { return !node.owner; });
    return {plans, plans_.bytes(), hits_, misses_, plans_.max_bytes()};
  }

 private:
  Recall<CachedPlan> plans_{int64_t{4} << 30, std::numeric_limits<size_t>::max()};
  struct Asked {};
  Recall<Asked> asked_{std::numeric_limits<int64_t>::max(), kAskedMost};
  int64_t hits_ = 0, misses_ = 0;
};

PlanCache& plan_cache() {
  static auto* const cache = new PlanCache;  // never destroyed, because CUDA shuts down before static destructors run
  return *cache;
}

// Whether a lookup also takes the next step of the plan's schedule, if one is due.
enum class Advance { No, Yes };

// Returns the plan of these tensors, (row, col) or (index). If it is not cached, calls build(builder of the device) and
// caches the result, if `cache`.
template <typename Build>
std::shared_ptr<const Plan> find_or_build(at::ArrayRef<at::Tensor> tensors, int64_t rows, int64_t cols, bool cache,
                                          bool edge_ids, Advance advance, const Build& build) {
  const at::Tensor& row = tensors.front();
  const PlanBuilder& builder = builder_of(row.device());
  constexpr int64_t kLimit = (int64_t{1} << 31) - 1;
  TORCH_CHECK_NOT_IMPLEMENTED(
      rows < kLimit && cols < kLimit && row.numel() < kLimit,
      "gnna: the graph has 2^31 - 1 or more nodes or edges; at most 2^31 - 2 of each are supported");
  const bool capturing = builder.capturing();
  const auto key = cache ? recall_key(tensors, {rows, cols}) : std::nullopt;
  if (key) {
    auto found = plan_cache().find(*key, tensors, capturing, edge_ids);
    if (!found.plan && !edge_ids && !capturing && rows == cols) {
      found = plan_cache().borrow(*key, [&] { return builder.symmetric(row, tensors.back()); });
    }
    if (found.due && advance == Advance::Yes) {
      found.due->advance(found.plan, builder, [&](const auto& now, const auto& better, int64_t held) {
        return plan_cache().replace(*key, now, better, held) && (found.plan = better, true);
      });
    }
    if (found.plan) return found.plan;
  }
  check_not_capturing(row.device());
  const c10::InferenceMode normal(false);  // tensors made in inference mode could not serve training later
  Prints prints;
  if (key) prints = fingerprints(*key, tensors);
  std::shared_ptr<const Plan> plan = build(builder);
  if (key) plan_cache().insert(*key, std::move(prints), plan, edge_ids);
  return plan;
}

std::shared_ptr<const Plan> plan_of_edges(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                          const char* row_name, const char* col_name, bool cache, bool edge_ids,
                                          Advance advance) {
  return find_or_build({row, col}, rows, cols, cache, edge_ids, advance, [&](const PlanBuilder& builder) {
    return builder.build(row, col, rows, cols, row_name, col_name);
  });
}

std::shared_ptr<const Plan> plan_of_segments(const at::Tensor& index, int64_t rows, bool cache, Advance advance) {
  return find_or_build({index}, rows, kSegments, cache, true, advance, [&](const PlanBuilder& builder) {
    const at::Tensor positions = at::arange(index.numel(), index.options());
    return builder.build(index, positions, rows, index.numel(), "index", "position");
  });
}

}  // namespace

std::shared_ptr<const Plan> plan_for(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                     const char* row_name, const char* col_name, bool cache, bool edge_ids) {
  return plan_of_edges(row, col, rows, cols, row_name, col_name, cache, edge_ids, Advance::No);
}

std::shared_ptr<const Plan> scheduled_plan_for(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                               const char* row_name, const char* col_name, bool cache, bool edge_ids) {
  return plan_of_edges(row, col, rows, cols, row_name, col_name, cache, edge_ids, Advance::Yes);
}

std::shared_ptr<const Plan> segment_plan_for(const at::Tensor& index, int64_t rows, bool cache) {
  return plan_of_segments(index, rows, cache, Advance::No);
}

std::shared_ptr<const Plan> scheduled_segment_plan_for(const at::Tensor& index, int64_t rows, bool cache) {
  return plan_of_segments(index, rows, cache, Advance::Yes);
}

std::shared_ptr<const Plan> cached_segments(const at::Tensor& index, int64_t rows) {
  const auto key = recall_key({index}, {rows, kSegments});
  if (!key || !plan_cache().has(*key)) return nullptr;
  auto plan = scheduled_segment_plan_for(index, rows, true);
  const PlanBuilder& builder = builder_of(index.device());
  return !builder.capturing() || builder.launchable(*plan) ? plan : nullptr;
}

std::shared_ptr<const Plan> segments_if_repeated(const at::Tensor& index, int64_t rows) {
  const auto key = recall_key({index}, {rows, kSegments});
  if (!key) return nullptr;
  const int64_t bytes = 8 * (rows + 1) + 12 * index.numel();  // as Plan::bytes() with perm
  if (!plan_cache().has(*key) && (capturing_on(index.device()) || !plan_cache().seen_before(*key, bytes)))
    return nullptr;
  return segment_plan_for(index, rows, true);
}

void adopt_plan(const at::Tensor& row, const at::Tensor& col, std::shared_ptr<const Plan> plan) {
  mark_constant(row);
  mark_constant(col);
  if (const auto key = recall_key({row, col}, {plan->rows, plan->cols}))
    plan_cache().insert(*key, {}, std::move(plan), true);
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

bool has_segments(const at::Tensor& index, int64_t rows) { return cached_segments(index, rows) != nullptr; }

bool set_schedule(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                  const std::optional<at::Tensor>& order) {
  const auto before = plan_for(row, col, rows, cols, "dst", "src", true);
  const auto key = recall_key({row, col}, {rows, cols});
  if (!key) return false;
  const PlanBuilder& builder = builder_of(row.device());
  const c10::InferenceMode normal(false);
  std::shared_ptr<const Plan> plan = before;
  if (order.has_value()) {
    plan = reorder_rows(*before, builder, *order, ScheduleKind::ByHand);
  } else if (before->order.defined()) {
    plan = reorder_rows(*before, builder, {}, ScheduleKind::Ascending);
  }
  if (plan != before && !plan_cache().replace(*key, before, plan, 0)) return false;
  plan_cache().settle(*key, order.has_value() ? "kept" : "unchanged", "set by hand");
  return true;
}

std::vector<ScheduleInfo> schedule_infos() { return plan_cache().schedules(); }

CacheInfo cache_info() {
  sweep_memo();  // first, because its results can be the edge lists of plans
  return plan_cache().info();
}

void clear_cache() {
  clear_memo();
  clear_csr_forms();
  plan_cache().clear();
}

void set_max_plan_bytes(int64_t bytes) {
  plan_cache().set_max_bytes(bytes);
  set_max_memo_bytes(bytes);
  set_max_csr_form_bytes(bytes);
}

namespace {

std::vector<int64_t> cache_info_op() {
  const CacheInfo info = cache_info();
  return {info.plans, info.bytes, info.hits, info.misses, info.max_bytes};
}

TORCH_LIBRARY_IMPL(gnna, CompositeImplicitAutograd, m) {
  m.impl("has_plans", &has_plans);
  m.impl("has_segments", &has_segments);
  m.impl("mark_constant", &mark_constant);
  m.impl("cache_info", &cache_info_op);
  m.impl("clear_cache", &clear_cache);
  m.impl("set_max_plan_bytes", &set_max_plan_bytes);
}

}  // namespace
}  // namespace gnna
