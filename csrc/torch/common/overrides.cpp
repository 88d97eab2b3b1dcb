// The parameters fixed by hand and those that were measured, behind one lock.
#include "common/overrides.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>

namespace gnna {

namespace {

constexpr size_t kFacts = 9;
using Facts = std::array<int64_t, kFacts>;

std::mutex mutex;
Manual in_force;
bool fixed_by_hand = false;
std::map<Facts, Manual> tuned;

}  // namespace

Manual manual_of(c10::IntArrayRef values) {
  TORCH_CHECK_VALUE(values.size() == 9, "there are ", values.size(), " manual parameters; there must be 9");
  const auto value = [&](size_t i) { return static_cast<int>(values[i]); };
  Manual m;
  if (values[0] >= 0) m.kernel = static_cast<Kernel>(values[0]);
  m.lanes = value(1), m.groups = value(2), m.group_size = value(3), m.vector_width = value(4), m.vectors = value(5),
  m.block = value(6);
  m.split_above = values[7], m.chunk_edges = values[8];
  return m;
}

Manual manual() {
  const std::lock_guard<std::mutex> lock(mutex);
  return in_force;
}

void set_manual(c10::IntArrayRef values) {
  const Manual m = manual_of(values);
  const std::lock_guard<std::mutex> lock(mutex);
  in_force = m;
  fixed_by_hand = values[0] >= 0 || std::any_of(values.begin() + 1, values.end(), [](int64_t v) { return v != 0; });
}

void set_tuned(c10::IntArrayRef facts, c10::IntArrayRef values) {
  TORCH_CHECK_VALUE(facts.size() == kFacts, "there are ", facts.size(), " facts; there must be ", kFacts);
  const Manual m = manual_of(values);
  Facts key;
  std::copy(facts.begin(), facts.end(), key.begin());
  const std::lock_guard<std::mutex> lock(mutex);
  tuned[key] = m;
}

void clear_tuned() {
  const std::lock_guard<std::mutex> lock(mutex);
  tuned.clear();
}

Manual manual_for(const GraphFacts& graph, const LayerFacts& layer) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (fixed_by_hand || tuned.empty()) return in_force;
  const auto found = tuned.find({graph.rows, graph.cols, graph.edges, graph.max_degree, layer.width, layer.head_dim,
                                 layer.itemsize, layer.weighted ? 1 : 0, static_cast<int64_t>(layer.reduce)});
  return found == tuned.end() ? in_force : found->second;
}

}  // namespace gnna
