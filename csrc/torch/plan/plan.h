// A plan is the CSR form of an edge list, with the facts that launches need. It is built once per edge list and cached
// as long as the user's tensors live. The rows of a plan gather its columns. In the transposed plan of an edge list,
// rows are sources and columns are destinations. The first backward pass builds it, unless the forward plan can serve.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "gnna/decide.h"
#include "gnna/decide_schedule.h"
#include "gnna/types.h"
#include "plan/identity.h"
#include "plan/partitions.h"
#include "plan/usage.h"

namespace gnna {

struct Plan {
  int64_t rows = 0, cols = 0, edges = 0;
  int64_t max_degree = 0;
  at::Tensor rowptr;  // int64 [rows + 1]
  at::Tensor col;     // int32 [edges]
  at::Tensor perm;    // int32 [edges], position of each edge in the user's list; undefined: that order
  at::Tensor order;   // int32 [rows], row at each place of the schedule; undefined: rows ascend
  ScheduleKind kind = ScheduleKind::Ascending;  // what `order` is
  int64_t stream_id = 0;                        // CUDA: the stream on which its memory was allocated
  mutable Partitions partitions;
  std::shared_ptr<Usage> usage = std::make_shared<Usage>();  // counts and times of the calls with this plan

  CsrView view() const;
  GraphFacts facts() const { return {rows, cols, edges, max_degree}; }
  std::shared_ptr<Plan> with_empty_lists() const;  // same sizes, with uninitialised rowptr, col and perm
  at::Tensor degrees() const;                      // int64 [rows], number of edges of each row
  int64_t bytes() const;                           // without partitions, which launches add later

  // Returns a copy of weight [edges, ...] in slot order, which kernels read sequentially. The second call with the same
  // constant tensor (identity.h) makes the copy, for the current stream. Returns an undefined tensor otherwise, and the
  // kernel reads the weight through perm. Weights that the user may write to are never copied. During capture an
  // existing copy of any stream is used, and none is made.
  at::Tensor slot_ordered(const at::Tensor& weight) const;
  // Takes over the weight that `before` was called with last, so that the next call with it makes the copy.
  void expect_weight_of(const Plan& before);

 private:
  mutable std::mutex weight_mutex_;
  mutable std::optional<TensorKey> weight_key_;
  mutable at::Tensor weight_in_slot_order_;
  mutable int64_t weight_stream_ = 0;  // that wrote the copy; on another it may be incomplete
};

// Returns the plan of one edge list, cached or new.
//   row_name, col_name: the user's names for the two sides, for error messages.
//   cache: false always builds and caches nothing. Index tensors that a compiled graph computes need this, because it
//     reuses their buffers without a change that a key could see.
//   edge_ids: whether the caller uses perm. If not, the plan of the reversed list may be returned for a symmetric
//   graph.
//     Its rows have the same neighbours, in the order of the reversed list. One plan is then held instead of two.
// Raises ValueError if an index is out of range, and RuntimeError if a plan would have to be built during capture.
std::shared_ptr<const Plan> plan_for(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                     const char* row_name, const char* col_name, bool cache, bool edge_ids = true);

// Returns the segment plan of an index: row r gathers the positions at which index is r. Raises as plan_for does.
std::shared_ptr<const Plan> segment_plan_for(const at::Tensor& index, int64_t rows, bool cache);

// Returns the segment plan if it is cached, else nullptr. Also returns nullptr if a CUDA graph is captured and a launch
// would need a partition that does not exist.
std::shared_ptr<const Plan> cached_segments(const at::Tensor& index, int64_t rows);
// Returns the segment plan and builds it on the second call with this index. Returns nullptr on the first call, if the
// index cannot be recognised or its plan exceeds the cache's bound, and if it would have to be built during capture.
std::shared_ptr<const Plan> segments_if_repeated(const at::Tensor& index, int64_t rows);

// Builds and inspects plans on one type of device. Registered by csrc/torch/device/cpu.cpp and cuda_device.cpp.
struct PlanBuilder {
  std::shared_ptr<Plan> (*build)(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                 const char* row_name, const char* col_name);
  bool (*capturing)();  // whether a CUDA graph is being captured on the current stream
  // Returns a plan whose list p is the list at places[p] of `plan`. places: int32 [rows] on the plan's device. Leaves
  // `order` and `kind` of the result unset.
  std::shared_ptr<Plan> (*rearrange)(const Plan& plan, const at::Tensor& places);
  DeviceFacts (*facts)(at::Device device);
  bool (*launchable)(const Plan& plan);                             // also during capture: the partition exists
  bool (*symmetric)(const at::Tensor& row, const at::Tensor& col);  // every edge occurs as often as its reverse
};
// Raises NotImplementedError for a device without kernels.
const PlanBuilder& builder_of(at::Device device);
DeviceFacts facts_of(at::Device device);
void register_plan_builder(c10::DeviceType device, PlanBuilder builder);

// Returns the plan with its rows in this order: int32 [rows] on its device, or undefined for ascending rows.
std::shared_ptr<Plan> reorder_rows(const Plan& plan, const PlanBuilder& builder, const at::Tensor& order,
                                   ScheduleKind kind);

// Caches an existing plan for an edge list, if the list can be recognised, and marks both of its tensors as constant.
void adopt_plan(const at::Tensor& row, const at::Tensor& col, std::shared_ptr<const Plan> plan);

// Returns whether a layer's forward pass on these columns can be captured, and with `transposed` its backward pass too:
// plans that gather them (and plans that have them as rows) are cached and can be launched during capture.
bool has_plans(const at::Tensor& col, bool transposed);

// Returns whether a CUDA graph is being captured on the current stream of the device.
bool capturing_on(at::Device device);

// Raises RuntimeError while a CUDA graph is captured, because building a plan needs to synchronise.
void check_not_capturing(at::Device device);

// Raises ValueError for the index `value` at side[position], which is not in [0, limit).
[[noreturn]] void throw_bad_index(const char* side, int64_t position, int64_t value, int64_t limit);

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
