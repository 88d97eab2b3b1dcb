// Plans: the CSR form of an edge list with what the kernels want to know about it, built once per edge list and kept in
// a cache that never outlives the user's tensors. A plan's rows gather its columns; the transposed plan of an edge list
// is simply the plan of (row = source, column = destination), built when a backward pass first asks for it and the
// graph is not its own transpose.
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
  at::Tensor perm;    // int32 [edges], undefined when the lists hold the edges in the user's order
  at::Tensor order;   // int32 [rows], the row at each place of the schedule; undefined: rows ascend
  ScheduleKind kind = ScheduleKind::Ascending;  // what the order is
  int64_t stream_id = 0;                        // CUDA: whose memory it is
  mutable Partitions partitions;
  std::shared_ptr<Usage> usage = std::make_shared<Usage>();  // the kernels' calls with this plan

  CsrView view() const;
  GraphFacts facts() const { return {rows, cols, edges, max_degree}; }
  std::shared_ptr<Plan> room_for_lists() const;  // a plan of the same graph whose lists are still to be written
  at::Tensor degrees() const;                    // int64 [rows], edges of every row
  int64_t bytes() const;                         // without the partitions, which the first launches add

  // weight [edges, ...] in slot order, if it is a constant (identity.h) and this very tensor came before on this
  // stream; otherwise undefined, and the kernel reads it through perm. A normalisation is then streamed, and what a
  // user may write to is never copied. During capture only a copy that exists already is used, made on whatever stream.
  at::Tensor slot_ordered(const at::Tensor& weight) const;
  // The weight that this plan's predecessor was called with counts as having come before.
  void expect_weight_of(const Plan& before);

 private:
  mutable std::mutex weight_mutex_;
  mutable std::optional<TensorKey> weight_key_;
  mutable at::Tensor weight_in_slot_order_;
  mutable int64_t weight_stream_ = 0;  // which wrote it: another could read it before it is there
};

// The plan of one edge list. cache = false builds it afresh and keeps nothing: for index tensors that a compiled graph
// computes, whose buffers are reused without a change that a key could see. Raises ValueError naming side, position,
// value and limit when an index is out of range, RuntimeError when a plan would have to be built during CUDA-graph
// capture. row_name and col_name are what the user calls the two sides.
// Where edge_ids is false, perm is not used, and a symmetric graph without a plan of its own is served that of its
// reverse: a row's neighbours are the same, in the order of the reversed list, and one plan is held instead of two.
std::shared_ptr<const Plan> plan_for(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                     const char* row_name, const char* col_name, bool cache, bool edge_ids = true);

// The plan of a list of messages: row r gathers the positions at which index holds r. Errors as plan_for's.
std::shared_ptr<const Plan> segments_for(const at::Tensor& index, int64_t rows, bool cache);

// The same where it is in the cache and its kernels can be launched, also while a CUDA graph is captured; else nullptr.
std::shared_ptr<const Plan> segments_if_there(const at::Tensor& index, int64_t rows);
// The same, built when this index is asked for the second time. nullptr before that, where it cannot be recognised or
// kept, and where it would have to be built while a CUDA graph is captured.
std::shared_ptr<const Plan> segments_if_repeated(const at::Tensor& index, int64_t rows);

// How plans are built on one kind of device; csrc/torch/device/cpu.cpp and cuda_device.cpp register theirs.
struct PlanBuilder {
  std::shared_ptr<Plan> (*build)(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                 const char* row_name, const char* col_name);
  bool (*capturing)();  // a CUDA graph is being captured on the current stream
  // The plan's lists in the order of these places of theirs, int32 [rows] on the plan's device; the order is not set.
  std::shared_ptr<Plan> (*rearrange)(const Plan& plan, const at::Tensor& places);
  DeviceFacts (*facts)(at::Device device);
  bool (*launchable)(const Plan& plan);  // also while a CUDA graph is captured: its rows have been dealt out
  bool (*symmetric)(const at::Tensor& row, const at::Tensor& col);  // every edge's reverse is there, as often
};
// NotImplementedError for a device without kernels.
const PlanBuilder& builder_of(at::Device device);
DeviceFacts facts_of(at::Device device);
void register_plan_builder(c10::DeviceType device, PlanBuilder builder);

// The same plan with its rows in this order, int32 [rows] on its device; ascending where that is undefined.
std::shared_ptr<Plan> in_order(const Plan& plan, const PlanBuilder& builder, const at::Tensor& order,
                               ScheduleKind kind);

// Enters a plan that exists already for an edge list, where the list can be recognised again.
void adopt_plan(const at::Tensor& row, const at::Tensor& col, std::shared_ptr<const Plan> plan);

// Whether a CUDA graph that is being captured can use plans that gather these columns, and where wanted their
// transposed plans: all that a layer's forward and backward pass need is there.
bool has_plans(const at::Tensor& col, bool transposed);

// Whether a CUDA graph is being captured on the current stream of the device.
bool capturing_on(at::Device device);

// Raises RuntimeError while a CUDA graph is captured: nothing that plans need can be computed then.
void check_not_capturing(at::Device device);

[[noreturn]] void throw_bad_index(const char* side, int64_t position, int64_t value, int64_t limit);

// Stores the cached plan of this edge list (built where there is none) in an order of its rows, a permutation int32
// [rows] on its device, or back in ascending order where that is nullopt. False when the plan must stay as it is: it is
// not in the cache, or a captured CUDA graph reads it.
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
