// What differs between types of devices when a plan is built or inspected, as a table of functions that each device
// registers (csrc/torch/device).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "gnna/decide.h"

namespace gnna {

struct Plan;

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

// Returns whether a CUDA graph is being captured on the current stream of the device.
bool capturing_on(at::Device device);

// Raises RuntimeError while a CUDA graph is captured, because building a plan needs to synchronise.
void check_not_capturing(at::Device device);

// Raises ValueError for the index `value` at side[position], which is not in [0, limit).
[[noreturn]] void throw_bad_index(const char* side, int64_t position, int64_t value, int64_t limit);

}  // namespace gnna
