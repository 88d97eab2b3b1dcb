// The cache of plans: lookups by edge list or index, and its administration.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "plan/plan.h"

namespace gnna {

// Returns the plan of one edge list, cached or new.
//   row_name, col_name: the user's names for the two sides, for error messages.
//   cache: false always builds and caches nothing. Index tensors that a compiled graph computes need this, because it
//     reuses their buffers without a change that a key could see.
//   edge_ids: whether the caller uses perm. If not, the plan of the reversed list may be returned for a
//     symmetric graph.
//     Its rows have the same neighbours, in the order of the reversed list. One plan is then held instead of two.
// Raises ValueError if an index is out of range, and RuntimeError if a plan would have to be built during capture.
std::shared_ptr<const Plan> plan_for(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                     const char* row_name, const char* col_name, bool cache, bool edge_ids = true);

// As plan_for, for an aggregation, which is timed: also takes the next step of the plan's schedule if one is due, which
// can change the order of the rows for this call and those after it.
std::shared_ptr<const Plan> scheduled_plan_for(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                               const char* row_name, const char* col_name, bool cache,
                                               bool edge_ids = true);

// Returns the segment plan of an index: row r gathers the positions at which index is r. Raises as plan_for does.
std::shared_ptr<const Plan> segment_plan_for(const at::Tensor& index, int64_t rows, bool cache);
std::shared_ptr<const Plan> scheduled_segment_plan_for(const at::Tensor& index, int64_t rows, bool cache);

// As scheduled_segment_plan_for if the plan is cached, else returns nullptr. Also returns nullptr if a CUDA graph is
// captured and a launch would need a partition that does not exist.
std::shared_ptr<const Plan> cached_segments(const at::Tensor& index, int64_t rows);
// Returns the segment plan and builds it on the second call with this index. Returns nullptr on the first call, if the
// index cannot be recognised or its plan exceeds the cache's bound, and if it would have to be built during capture.
std::shared_ptr<const Plan> segments_if_repeated(const at::Tensor& index, int64_t rows);

// Caches an existing plan for an edge list, if the list can be recognised, and marks both of its tensors as constant.
void adopt_plan(const at::Tensor& row, const at::Tensor& col, std::shared_ptr<const Plan> plan);

// Returns whether a layer's forward pass on these columns can be captured, and with `transposed` its backward pass too:
// plans that gather them (and plans that have them as rows) are cached and can be launched during capture.
bool has_plans(const at::Tensor& col, bool transposed);
// Returns whether operations on the segments of this index can be captured.
bool has_segments(const at::Tensor& index, int64_t rows);

// Reorders the rows of the cached plan of this edge list, which is built if there is none.
//   order: a permutation, int32 [rows] on the plan's device; nullopt restores ascending rows.
// Returns false if the plan stays as it is, because it cannot be cached or a captured CUDA graph reads it.
bool set_schedule(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                  const std::optional<at::Tensor>& order);

struct CacheInfo {
  int64_t plans, bytes, hits, misses, max_bytes;
};
CacheInfo cache_info();
// The schedules of all cached plans, most recently used first.
struct ScheduleInfo;
std::vector<ScheduleInfo> schedule_infos();

void clear_cache();
void set_max_plan_bytes(int64_t bytes);

}  // namespace gnna
