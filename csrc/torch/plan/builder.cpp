#include "plan/builder.h"

#include <c10/util/Exception.h>

#include <array>
#include <cstdlib>
#include <optional>

namespace gnna {
namespace {

std::array<std::optional<PlanBuilder>, static_cast<size_t>(c10::COMPILE_TIME_MAX_DEVICE_TYPES)>& builders() {
  static std::array<std::optional<PlanBuilder>, static_cast<size_t>(c10::COMPILE_TIME_MAX_DEVICE_TYPES)> table;
  return table;
}

}  // namespace

const PlanBuilder& builder_of(at::Device device) {
  const auto& builder = builders()[static_cast<size_t>(device.type())];
  TORCH_CHECK_NOT_IMPLEMENTED(builder.has_value(), "gnna: no kernels for device type ", device.type(),
                              "; move the tensors to the CPU, or to a CUDA device if the plug-in was built with CUDA");
  return *builder;
}

void register_plan_builder(c10::DeviceType device, PlanBuilder builder) {
  builders()[static_cast<size_t>(device)] = builder;
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
