#include "plan/plan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/sub.h>
#include <c10/core/InferenceMode.h>

#include "common/streams.h"
#include "plan/builder.h"
#include "plan/captures.h"

namespace gnna {

CsrView Plan::view() const {
  return {rows,
          cols,
          edges,
          rowptr.const_data_ptr<int64_t>(),
          col.const_data_ptr<int32_t>(),
          perm.defined() ? perm.const_data_ptr<int32_t>() : nullptr,
          order.defined() ? order.const_data_ptr<int32_t>() : nullptr};
}

int64_t Plan::bytes() const {
  int64_t total = 0;
  for (const at::Tensor* t : {&rowptr, &col, &perm, &order})
    if (t->defined()) total += static_cast<int64_t>(t->nbytes());
  // Includes the copy of a constant weight in slot order (slot_ordered) from the start, so that the size never changes.
  return perm.defined() ? total + edges * 4 : total;
}

std::shared_ptr<Plan> Plan::with_empty_lists() const {
  auto plan = std::make_shared<Plan>();
  plan->rows = rows;
  plan->cols = cols;
  plan->edges = edges;
  plan->max_degree = max_degree;
  plan->stream_id = stream_id;
  plan->rowptr = at::empty_like(rowptr);
  plan->col = at::empty_like(col);
  plan->perm = at::empty_like(col);
  return plan;
}

at::Tensor Plan::degrees(at::ScalarType dtype) const {
  at::Tensor by_place = at::empty({rows}, rowptr.options().dtype(dtype));
  at::sub_out(by_place, rowptr.slice(0, 1), rowptr.slice(0, 0, rows));
  return order.defined() ? at::empty_like(by_place).index_copy_(0, order.to(at::kLong), by_place) : by_place;
}

at::Tensor Plan::slot_ordered(const at::Tensor& weight) const {
  if (!perm.defined() || weight.requires_grad()) return {};
  const auto key = TensorKey::of(weight);
  if (!key || !key->constant()) return {};
  const bool capturing = capturing_on(rowptr.device());
  const int64_t stream = current_stream_id(rowptr.device());
  const std::lock_guard<std::mutex> lock(weight_mutex_);
  const bool known = weight_key_ && *weight_key_ == *key;
  if (capturing) {
    // Any stream may have written the copy, because torch.cuda.graph waits for the device before it captures.
    if (!known || !weight_in_slot_order_.defined()) return {};
    hold_for_captures(weight_in_slot_order_);
    return weight_in_slot_order_;
  }
  if (known) {
    if (!weight_in_slot_order_.defined()) {
      const c10::InferenceMode normal(false);
      weight_in_slot_order_ = at::index_select(weight.detach(), 0, perm);
      weight_stream_ = stream;
    }
    return weight_stream_ == stream ? weight_in_slot_order_ : at::Tensor();
  }
  weight_key_ = key;
  weight_in_slot_order_.reset();
  return {};
}

void Plan::expect_weight_of(const Plan& before) {
  const std::lock_guard<std::mutex> lock(before.weight_mutex_);
  weight_key_ = before.weight_key_;
}

std::shared_ptr<Plan> reorder_rows(const Plan& plan, const PlanBuilder& builder, const at::Tensor& order,
                                   ScheduleKind kind) {
  at::Tensor places = order;
  if (plan.order.defined()) {
    const at::Tensor place_of = at::argsort(plan.order).to(at::kInt);
    places = order.defined() ? place_of.index_select(0, order) : place_of;
  }
  auto plan_in_order = builder.rearrange(plan, places);
  plan_in_order->order = order;
  plan_in_order->kind = kind;
  plan_in_order->expect_weight_of(plan);
  return plan_in_order;
}

}  // namespace gnna
