// The decider as ops: what it would decide, what a launch was decided to be and why, and the overrides in force. Lists
// of integers are those of gnna/decide.h.
#include "gnna/decide.h"

#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "common/decisions.h"
#include "gnna/cpu_api.h"
#include "plan/builder.h"
#include "plan/cache.h"

namespace gnna {
namespace {

template <typename T>
T parse(at::IntArrayRef values) {
  try {
    return T::from_vector(values.vec());
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
}

// overrides: nullopt for those in force.
std::vector<int64_t> decide_op(at::IntArrayRef facts, at::IntArrayRef device, at::OptionalIntArrayRef overrides) {
  const auto [graph, layer] = parse<LaunchFacts>(facts);
  const auto on = parse<DeviceFacts>(device);
  return (overrides ? decide(graph, layer, on, parse<Overrides>(*overrides)) : decide_in_force(graph, layer, on))
      .to_vector();
}

std::vector<int64_t> last_decision_op() {
  const Decision* const decision = last_decision();
  return decision ? decision->to_vector() : std::vector<int64_t>{};
}

std::string reason_op(at::IntArrayRef decision) { return reason_of(parse<Decision>(decision)); }

std::string runner_up_op(at::IntArrayRef decision) { return runner_up_of(parse<Decision>(decision)); }

void set_overrides_op(at::IntArrayRef overrides) { set_overrides(parse<Overrides>(overrides)); }

void set_tuned_op(at::IntArrayRef facts, at::IntArrayRef overrides) {
  const auto [graph, layer] = parse<LaunchFacts>(facts);
  set_tuned(graph, layer, parse<Overrides>(overrides));
}

std::string instruction_set_op() { return cpu::instruction_set(); }

int64_t max_degree_op(const at::Tensor& src, const at::Tensor& dst, int64_t num_src, int64_t num_dst) {
  const c10::OptionalDeviceGuard guard(src.device());
  return plan_for(dst, src, num_dst, num_src, "dst", "src", true, /*edge_ids=*/false)->max_degree;
}

std::vector<int64_t> device_facts_op(at::Device device) { return facts_of(device).to_vector(); }

TORCH_LIBRARY_IMPL(gnna, CompositeImplicitAutograd, m) {
  m.impl("decide", &decide_op);
  m.impl("last_decision", &last_decision_op);
  m.impl("reason", &reason_op);
  m.impl("runner_up", &runner_up_op);
  m.impl("set_overrides", &set_overrides_op);
  m.impl("set_tuned", &set_tuned_op);
  m.impl("clear_tuned", &clear_tuned);
  m.impl("max_degree", &max_degree_op);
  m.impl("instruction_set", &instruction_set_op);
  m.impl("device_facts", &device_facts_op);
}

}  // namespace
}  // namespace gnna
