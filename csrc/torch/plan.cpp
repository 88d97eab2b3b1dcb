// What a plan knows of itself, the keys that recognise a user's tensors, and who builds plans on which device.
#include "plan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <c10/util/hash.h>

#include <algorithm>
#include <array>
#include <list>
#include <vector>

#include "streams.h"

namespace gnna {
namespace {

std::array<std::optional<PlanBuilder>, static_cast<size_t>(c10::COMPILE_TIME_MAX_DEVICE_TYPES)>& builders() {
  static std::array<std::optional<PlanBuilder>, static_cast<size_t>(c10::COMPILE_TIME_MAX_DEVICE_TYPES)> table;
  return table;
}

constexpr size_t kConstantsMost = 64;  // as many as the memory of gcn_norm holds

// What mark_constant was told, as memory and version: views of a weight are as constant as itself.
class Constants {
 public:
  void add(const at::Tensor& weight) {
    const std::lock_guard<std::mutex> lock(mutex_);
    known_.remove_if([](const Known& known) { return known.storage.expired(); });
    known_.push_front({weight.storage().getWeakStorageImpl(), weight._version()});
    if (known_.size() > kConstantsMost) known_.pop_back();
  }

  bool has(const at::Tensor& weight) {
    const c10::StorageImpl* const storage = weight.storage().unsafeGetStorageImpl();
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::any_of(known_.begin(), known_.end(), [&](const Known& known) {
      return known.storage._unsafe_get_target() == storage && known.version == weight._version() &&
             !known.storage.expired();
    });
  }

 private:
  struct Known {
    c10::weak_intrusive_ptr<c10::StorageImpl> storage;
    int64_t version;
  };
  std::mutex mutex_;
  std::list<Known> known_;
};

Constants& constants() {
  static auto* const made = new Constants;  // never destroyed, as the plan cache
  return *made;
}

}  // namespace

void mark_constant(const at::Tensor& weight) {
  if (!weight.is_cpu() && !weight.is_inference() && weight.has_storage()) constants().add(weight);
}

const PlanBuilder& builder_of(at::Device device) {
  const auto& builder = builders()[static_cast<size_t>(device.type())];
  TORCH_CHECK_NOT_IMPLEMENTED(builder.has_value(), "gnna: no kernels for device type ", device.type());
  return *builder;
}

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
          perm.defined() ? perm.const_data_ptr<int32_t>() : nullptr,
          order.defined() ? order.const_data_ptr<int32_t>() : nullptr};
}

int64_t Plan::bytes() const {
  int64_t total = 0;
  for (const at::Tensor* t : {&rowptr, &col, &perm, &order})
    if (t->defined()) total += static_cast<int64_t>(t->nbytes());
  // A static weight will be kept in slot order beside them; counted ahead, so that an entry's size never changes.
  return perm.defined() ? total + edges * 4 : total;
}

std::shared_ptr<Plan> Plan::room_for_lists() const {
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

at::Tensor Plan::degrees() const {
  const at::Tensor in_order = rowptr.slice(0, 1) - rowptr.slice(0, 0, rows);
  return order.defined() ? at::empty_like(in_order).index_copy_(0, order.to(at::kLong), in_order) : in_order;
}

at::Tensor Plan::slot_ordered(const at::Tensor& weight) const {
  // A weight that is trained changes every step, sometimes through .data, which a key cannot see.
  if (!perm.defined() || weight.requires_grad()) return {};
  const auto key = TensorKey::of(weight);
  if (!key) return {};
  const bool capturing = capturing_on(rowptr.device());
  const int64_t stream = current_stream_id(rowptr.device());
  const std::lock_guard<std::mutex> lock(weight_mutex_);
  const bool known = weight_key_ && *weight_key_ == *key;
  if (capturing) {
    // Whatever stream wrote the copy: torch.cuda.graph waits for the device before it captures.
    if (!known || !weight_in_slot_order_.defined() || !constants().has(weight)) return {};
    if (captured_weights_.empty() || !captured_weights_.back().is_same(weight_in_slot_order_)) {
      captured_weights_.push_back(weight_in_slot_order_);
    }
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

void register_plan_builder(c10::DeviceType device, PlanBuilder builder) {
  builders()[static_cast<size_t>(device)] = builder;
}

std::shared_ptr<Plan> in_order(const Plan& plan, const PlanBuilder& builder, const at::Tensor& order,
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

DeviceFacts facts_of(at::Device device) { return builder_of(device).facts(device); }

void throw_bad_index(const char* side, int64_t position, int64_t value, int64_t limit) {
  TORCH_CHECK_VALUE(false, side, "[", position, "] = ", value, " is out of range: valid indices are 0 to ", limit - 1);
  std::abort();
}

bool capturing_on(at::Device device) { return builder_of(device).capturing(); }

void check_not_capturing(at::Device device) {
  TORCH_CHECK(
      !capturing_on(device),
      "gnna: a plan cannot be built while a CUDA graph is captured; run the same forward and backward step with "
      "the same edge index before capturing");
}

}  // namespace gnna
