// The launch rules. Their data is in launch_tuning.h, and the timings behind it in docs/tuning.md.
#include <algorithm>

#include "gnna/decide.h"
#include "rules.h"

namespace gnna {

namespace {

int64_t round_up_to_power(int64_t n) {
  int64_t power = 1;
  while (power < n) power *= 2;
  return power;
}

// Lanes, loads per lane and elements per load, by which both kernels cover the width.
void cover_width(const Rules& rules, const Overrides& overrides, KernelConfig& config) {
  const int64_t width = std::max<int64_t>(rules.layer.width, 1);
  const Loading loading = rules.loading(overrides);
  const bool whole = loading == Loading::Whole || loading == Loading::Padded;
  config.vector_width = whole ? static_cast<int>(rules.elements_per_load()) : 1;
  const int64_t row_loads = ceil_div(width, config.vector_width);
  const int64_t tile = whole ? rules.column_tile() : 0;
  const int64_t covered = tile > 0 ? tile / 16 : row_loads;
  const int most = config.kernel == Kernel::Group ? 2 : 4;
  int loads = 1;
  if (whole) {
    loads = rules.loads_per_lane(covered);
  } else {
    loads = covered > 64 ? 4 : covered > 8 ? 2 : 1;  // single elements: enough for a warp to cover 128 of them
  }
  config.vectors = std::min(loads, most);
  config.lanes = static_cast<int>(std::clamp<int64_t>(round_up_to_power(covered) / config.vectors, 1, kWarp));
  // Of lanes and loads, one that is left open follows from the other.
  if (overrides.lanes && !overrides.vectors) {
    config.vectors = 1;
    while (config.vectors < most && overrides.lanes * config.vectors < row_loads) config.vectors *= 2;
  }
  if (overrides.vectors) config.vectors = std::min(overrides.vectors, most);
  if (overrides.vectors && !overrides.lanes) {
    config.lanes = 1;
    while (config.lanes < kWarp && config.vectors * config.lanes < row_loads) config.lanes *= 2;
  }
  if (overrides.lanes) config.lanes = overrides.lanes;
}

// The group kernel keeps partial results in shared memory. Fewer loads per lane take less; with one, any block fits.
void fit_shared_memory(const LayerFacts& layer, KernelConfig& config) {
  const int64_t itemsize = std::max<int64_t>(layer.itemsize, 4);  // 16-bit features are summed in float
  while (config.vectors > 1 && shared_elements(config) * itemsize > kMaxShared) config.vectors /= 2;
}

KernelConfig configure_group(const Rules& rules, const Overrides& overrides) {
  KernelConfig config;
  config.kernel = Kernel::Group;
  config.group_size = overrides.group_size ? overrides.group_size : rules.tuning.group_size;
  config.block = overrides.block ? overrides.block : rules.tuning.group_block;
  cover_width(rules, overrides, config);
  fit_shared_memory(rules.layer, config);
  // A row that is not split has at most one neighbour group per team of lanes in the block.
  const int64_t most = static_cast<int64_t>(config.group_size) * (config.block / config.lanes);
  config.split_above = overrides.split_above ? std::min(overrides.split_above, most) : most;
  config.chunk_edges = overrides.chunk_edges ? overrides.chunk_edges : most;
  return config;
}

// Neighbour groups per row: as many as the average degree asks for, more if warps are few.
int choose_groups(const Rules& rules, const KernelConfig& config) {
  const int most = kWarp / config.lanes;
  if (rules.tiny()) return most;  // each row has a warp
  const int64_t tile = static_cast<int64_t>(config.lanes) * config.vectors * config.vector_width;
  const int64_t lanes = rules.graph.rows * config.lanes * ceil_div(std::max<int64_t>(rules.layer.width, 1), tile);
  const int64_t busy_lanes = rules.tuning.busy_warps * rules.device.processors * kWarp;
  int groups = std::min(rules.groups_by_degree(config.lanes), most);
  while (groups < most && lanes * groups < busy_lanes && rules.degree >= rules.tuning.busy_degree * groups) groups *= 2;
  return groups;
}

KernelConfig configure_row(const Rules& rules, const Overrides& overrides) {
  const LaunchTuning& tuning = rules.tuning;
  KernelConfig config;
  const auto ratio = static_cast<int64_t>(static_cast<double>(tuning.split_ratio) * rules.degree);
  config.split_above =
      rules.graph.edges < tuning.small_edges ? tuning.split_small : std::max(ratio, tuning.split_least);
  const int64_t share =
      rules.graph.edges / (std::max<int64_t>(rules.device.processors, 1) * tuning.chunks_per_processor);
  config.chunk_edges = std::max(share, tuning.chunk_edges);
  if (overrides.split_above) config.split_above = overrides.split_above;
  if (overrides.chunk_edges) config.chunk_edges = overrides.chunk_edges;
  cover_width(rules, overrides, config);
  config.groups = overrides.groups ? std::min(overrides.groups, kWarp / config.lanes) : choose_groups(rules, config);
  config.block = tuning.block;
  if (overrides.block) {
    config.block = std::min(overrides.block, most_threads(Kernel::Row));
  } else if (rules.tiny()) {
    config.block = tuning.tiny_block;
  } else if (rules.is_small() && config.lanes >= tuning.small_block_lanes) {
    config.block = tuning.small_block;
  }
  return config;
}

}  // namespace

bool Overrides::any() const {
  return kernel || lanes || groups || group_size || vector_width || vectors || block || split_above || chunk_edges;
}

bool Rules::is_small() const {
  return graph.edges < (layer.itemsize == 4 && !layer.weighted ? tuning.small_plain_edges : tuning.small_edges);
}

Loading Rules::loading(const Overrides& overrides) const {
  if (overrides.vector_width == 1) return Loading::ByHand;
  const int64_t full = elements_per_load();
  if (layer.weighted && layer.head_dim < layer.width && layer.head_dim % full != 0) return Loading::Heads;
  if (layer.width % full == 0 && layer.aligned) return Loading::Whole;
  const bool pays = layer.itemsize <= 4 && layer.width >= tuning.pad_width && graph.edges >= tuning.small_edges &&
                    graph.edges >= tuning.pad_degree * graph.cols;
  if (pays) return Loading::Padded;
  return layer.width % full == 0 ? Loading::Unaligned : Loading::NotMultiple;
}

int64_t Rules::column_tile() const {
  const int64_t row_bytes = layer.width * layer.itemsize;
  const bool pays = graph.cols * row_bytes > device.l2_bytes && row_bytes > tuning.tile_bytes &&
                    uneven_degrees(graph) && degree >= tuning.tile_degree;
  return pays ? tuning.tile_bytes : 0;
}

int Rules::sparse_loads_per_lane(int64_t row_loads) const {
  // If degrees are even and very low, no lane waits for a longer row, and fewer lanes are enough.
  const bool even = !uneven_degrees(graph) && degree < tuning.sparse_degree / 2;
  const int lanes = even ? tuning.few_lanes / 4 : tuning.few_lanes;
  return static_cast<int>(std::clamp<int64_t>(round_up_to_power(row_loads) / lanes, 1, tuning.sparse_loads));
}

bool Rules::is_sparse(int64_t row_loads) const {
  const int loads = sparse_loads_per_lane(row_loads);
  const int64_t lanes = graph.rows * (round_up_to_power(row_loads) / loads);
  return loads > 1 && !tiny() && degree < tuning.sparse_degree &&
         lanes >= tuning.sparse_warps * device.processors * kWarp;
}

int Rules::loads_per_lane(int64_t row_loads) const {
  if (tiny()) return 1;
  const int64_t share = round_up_to_power(row_loads) / tuning.few_lanes;
  const int loads = layer.weighted ? static_cast<int>(std::clamp<int64_t>(share, 1, tuning.weighted_loads)) : 1;
  return is_sparse(row_loads) ? std::max(loads, sparse_loads_per_lane(row_loads)) : loads;
}

int Rules::groups_by_degree(int lanes) const {
  int groups = 1;
  for (int entry = first_group_degree(lanes); entry < 2 && degree >= tuning.group_degree[entry]; ++entry) groups *= 2;
  return groups;
}

Decision decide(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device, const Overrides& overrides,
                OverrideSource source) {
  Decision decision{graph, layer, device, overrides, source, {}};
  if (!device.cuda) return decision;
  const Rules rules(graph, layer, device);
  decision.config =
      overrides.kernel == Kernel::Group ? configure_group(rules, overrides) : configure_row(rules, overrides);
  return decision;
}

}  // namespace gnna
