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

struct PlanBuilder;

struct Plan {
  int64_t rows = 0, cols = 0, edges = 0;
  int64_t max_degree = 0;
  std::optional<bool> symmetric;  // every edge occurs as often as its reverse, if the builder found out
  at::Tensor rowptr;              // int64 [rows + 1]
  at::Tensor col;                 // int32 [edges]
  at::Tensor perm;                // int32 [edges], position of each edge in the user's list; undefined: that order
  at::Tensor order;               // int32 [rows], row at each place of the schedule; undefined: rows ascend
  ScheduleKind kind = ScheduleKind::Ascending;  // what `order` is
  int64_t stream_id = 0;                        // CUDA: the stream on which its memory was allocated
  mutable Partitions partitions;
  std::shared_ptr<Usage> usage = std::make_shared<Usage>();  // counts and times of the calls with this plan

  CsrView view() const;
  GraphFacts facts() const { return {rows, cols, edges, max_degree}; }
  std::shared_ptr<Plan> with_empty_lists() const;              // same sizes, with uninitialised rowptr, col and perm
  at::Tensor degrees(at::ScalarType dtype = at::kLong) const;  // [rows], number of edges of each row
  int64_t bytes() const;                                       // without partitions, which launches add later

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

// Returns the plan with its rows in this order: int32 [rows] on its device, or undefined for ascending rows.
std::shared_ptr<Plan> reorder_rows(const Plan& plan, const PlanBuilder& builder, const at::Tensor& order,
                                   ScheduleKind kind);

}  // namespace gnna
