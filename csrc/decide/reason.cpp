// The decider's words: why a configuration is as it is, in one sentence for people.
#include <cstdio>

#include "why.h"

namespace gnna {

namespace {

std::string number(int64_t value) { return std::to_string(value); }

std::string one_digit(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

std::string count(int64_t n, const char* one) { return number(n) + " " + one + (n == 1 ? "" : "s"); }

std::string lanes_and_loads(const KernelConfig& config) {
  return count(config.lanes, "lane") + " x " + number(config.vectors) +
         (config.vector_width == 1 ? " single elements" : " vectors of " + number(config.vector_width));
}

std::string about_groups(const KernelConfig& config, const DeviceFacts& device, const Manual& manual, const Why& why) {
  if (config.kernel == Kernel::Group) {
    return ": neighbour groups of up to " + count(config.group_size, "edge") + ", " +
           number(config.block / config.lanes) + " at a time in a block of " + number(config.block) + " threads";
  }
  std::string text = (why.below_bound ? " below " : " from ") + number(why.degree_bound) + ": " +
                     count(why.groups_by_degree, "neighbour group") + " per row";
  if (why.warp_full) text += " (all that a warp has room for)";
  if (manual.groups) return text + ", " + number(config.groups) + " as set by hand";
  if (config.groups > why.groups_by_degree) {
    text += ", raised to " + number(config.groups) + " because " + number(why.warps) + " warps are fewer than " +
            number(why.busy_warps) + " for each of " + number(device.processors) + " processors";
  }
  return text;
}

std::string by_hand(const Manual& m) {
  std::string names;
  const auto add = [&](bool set, const char* name) {
    if (set) names += (names.empty() ? "" : ", ") + std::string(name);
  };
  add(m.kernel.has_value(), "kernel");
  add(m.lanes, "dw");
  add(m.groups, "groups");
  add(m.group_size, "group_size");
  add(m.vector_width, "vector_width");
  add(m.vectors, "vectors");
  add(m.block, "warps_per_block");
  add(m.split_above, "split_above");
  add(m.chunk_edges, "chunk_edges");
  return names;
}

}  // namespace

std::string reason_on_cpu(const DeviceFacts& device, const Manual& manual) {
  std::string text = "on the CPU the row kernel is vectorised over the width, and rows are split by edges over " +
                     count(device.processors, "thread");
  if (set_by_hand(manual)) text += "; what is set by hand are parameters of CUDA launches";
  return text;
}

std::string reason_of(const KernelConfig& config, const GraphFacts& graph, const LayerFacts& layer,
                      const DeviceFacts& device, const Manual& manual, const Why& why) {
  std::string text = "average degree " + one_digit(why.degree) + about_groups(config, device, manual, why);
  text +=
      "; width " + number(layer.width) + (why.scalar.empty() ? "" : " " + why.scalar) + ": " + lanes_and_loads(config);
  if (why.padded > 0) text += " after x was copied into rows of " + number(why.padded);
  if (why.many_loads) text += " for short rows, of which there are many";
  if (why.tile_bytes > 0) {
    const std::string cache = "the L2 cache of " + number(device.l2_bytes >> 20) + " MiB";
    text += ", in column tiles of " + number(why.tile_bytes) + " bytes that " +
            (why.tiles_fit ? "fit " + cache : "miss " + cache + " less often");
  }
  if (why.size) text += "; blocks of " + number(config.block) + " threads because the graph is " + why.size;
  if (why.shrunk) {
    text += "; fewer loads per lane or smaller blocks, so that shared memory fits " +
            number((kMaxShared + 1023) >> 10) + " KiB";
  }
  if (graph.max_degree > config.split_above) {
    text += "; rows of more than " + number(config.split_above) + " edges are cut into chunks of " +
            number(config.chunk_edges);
  }
  if (set_by_hand(manual)) text += "; set by hand: " + by_hand(manual);
  if (why.held) text += ", which the row kernel takes up to " + number(config.block / 32);
  return text;
}

std::string as_runner_up(const KernelConfig& config) {
  const bool groups = config.kernel == Kernel::Group;
  return (groups ? "the neighbour-group kernel with groups of " + number(config.group_size)
                 : "the row kernel with " + count(config.groups, "group") + " per row") +
         ", " + lanes_and_loads(config) + ", blocks of " + number(config.block) + " threads";
}

}  // namespace gnna
