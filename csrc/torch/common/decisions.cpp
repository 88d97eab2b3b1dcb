#include "common/decisions.h"

#include <map>
#include <mutex>
#include <optional>
#include <vector>

namespace gnna {

namespace {

std::mutex mutex;
Overrides by_hand;
bool any_by_hand = false;
std::map<std::vector<int64_t>, Overrides> tuned;

thread_local std::optional<Decision> last;

// What facts are compared by: all of them but the alignment, which `gnna tune` measures with aligned features.
std::vector<int64_t> key_of(const GraphFacts& graph, LayerFacts layer) {
  layer.aligned = true;
  std::vector<int64_t> key = graph.to_vector();
  for (const int64_t value : layer.to_vector()) key.push_back(value);
  return key;
}

}  // namespace

void set_overrides(const Overrides& overrides) {
  const std::lock_guard<std::mutex> lock(mutex);
  by_hand = overrides;
  any_by_hand = overrides.any();
}

void set_tuned(const GraphFacts& graph, const LayerFacts& layer, const Overrides& overrides) {
  const std::lock_guard<std::mutex> lock(mutex);
  tuned[key_of(graph, layer)] = overrides;
}

void clear_tuned() {
  const std::lock_guard<std::mutex> lock(mutex);
  tuned.clear();
}

Decision decide_in_force(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device) {
  Overrides overrides;
  OverrideSource source = OverrideSource::Rules;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (any_by_hand) {
      overrides = by_hand;
      source = OverrideSource::ByHand;
    } else if (device.cuda && !tuned.empty()) {
      if (const auto found = tuned.find(key_of(graph, layer)); found != tuned.end()) {
        overrides = found->second;
        source = OverrideSource::Tuned;
      }
    }
  }
  return decide(graph, layer, device, overrides, source);
}

const Decision& decide_launch(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device) {
  return last.emplace(decide_in_force(graph, layer, device));
}

KernelConfig split_of(const GraphFacts& graph, const DeviceFacts& device) {
  Overrides overrides;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    overrides = by_hand;
  }
  overrides.kernel = Kernel::Row;
  return decide(graph, {}, device, overrides).config;
}

const Decision* last_decision() { return last ? &*last : nullptr; }

}  // namespace gnna
