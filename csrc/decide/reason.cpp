// The words for a decision: why its configuration is as it is, in one sentence for people. Launches do not call it.
#include <cstdio>

#include "rules.h"

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
  return count(config.lanes, "lane") + " x " + count(config.vectors, "load") +
         (config.vector_width == 1 ? " of one element" : " of " + number(config.vector_width) + " elements");
}

std::string about_groups(const Rules& rules, const Decision& decision) {
  const KernelConfig& config = decision.config;
  if (config.kernel == Kernel::Group) {
    return "neighbour groups of up to " + count(config.group_size, "edge") + ", " +
           number(config.block / config.lanes) + " at a time in a block of " + number(config.block) + " threads";
  }
  std::string text = count(config.groups, "neighbour group") + " per row";
  if (decision.overrides.groups) return text;
  const int by_degree = rules.groups_by_degree(config.lanes), entry = rules.first_group_degree(config.lanes);
  if (rules.tiny()) return text + " because the graph is tiny";
  if (config.groups > by_degree) {
    return text + " because the rows alone give a processor fewer than " + number(rules.tuning.busy_warps) + " warps";
  }
  if (config.groups < by_degree) return text + ", all that a warp has room for";
  if (by_degree == 1) return text + " (2 from degree " + one_digit(rules.tuning.group_degree[entry]) + ")";
  int last = entry;
  for (int groups = 2; groups < by_degree; groups *= 2) ++last;
  return text + " from degree " + one_digit(rules.tuning.group_degree[last]);
}

std::string about_loading(const Rules& rules, const Decision& decision) {
  const int64_t full = rules.elements_per_load();
  switch (rules.loading(decision.overrides)) {
    case Loading::Whole:
      return "";
    case Loading::Padded:
      return " after x was copied into rows of " + number(ceil_div(rules.layer.width, full) * full);
    case Loading::ByHand:
      return "";
    case Loading::Heads:
      return " because heads of " + number(rules.layer.head_dim) + " are not multiples of " + number(full);
    case Loading::Unaligned:
      return " because rows do not start on 16 bytes";
    case Loading::NotMultiple:
      return " because the width is not a multiple of " + number(full);
  }
  return "";
}

std::string about_width(const Rules& rules, const Decision& decision) {
  const KernelConfig& config = decision.config;
  std::string text =
      "width " + number(rules.layer.width) + ": " + lanes_and_loads(config) + about_loading(rules, decision);
  if (decision.overrides.lanes || decision.overrides.vectors || config.vector_width == 1) return text;
  const int64_t tile = rules.column_tile();
  if (config.kernel == Kernel::Row &&
      rules.is_sparse(tile > 0 ? tile / 16 : ceil_div(rules.layer.width, config.vector_width))) {
    text += " because rows are short and many";
  }
  if (tile > 0) {
    text += ", in column tiles of " + number(tile) + " bytes because the features exceed the L2 cache of " +
            number(rules.device.l2_bytes >> 20) + " MiB";
  }
  return text;
}

std::string about_block(const Rules& rules, const Decision& decision) {
  const KernelConfig& config = decision.config;
  if (config.kernel == Kernel::Row && !decision.overrides.block && config.block != rules.tuning.block) {
    return "; blocks of " + number(config.block) + " threads because the graph is " + (rules.tiny() ? "tiny" : "small");
  }
  if (config.kernel == Kernel::Row && config.block < decision.overrides.block) {
    return "; blocks of " + number(config.block) + " threads, the most that kernel row takes";
  }
  return "";
}

std::string names_of(const Overrides& o) {
  std::string names;
  const auto add = [&](bool set, const char* name) {
    if (set) names += (names.empty() ? "" : ", ") + std::string(name);
  };
  add(o.kernel.has_value(), "kernel");
  add(o.lanes, "lanes");
  add(o.groups, "groups");
  add(o.group_size, "group_size");
  add(o.vector_width, "vector_width");
  add(o.vectors, "vectors");
  add(o.block, "block");
  add(o.split_above, "split_above");
  add(o.chunk_edges, "chunk_edges");
  return names;
}

std::string about_source(const Decision& decision) {
  switch (decision.source) {
    case OverrideSource::Tuned:
      return "; measured by `gnna tune`";
    case OverrideSource::ByHand:
      return "; set by hand: " + names_of(decision.overrides);
    case OverrideSource::Rules:
      break;
  }
  return "";
}

}  // namespace

std::string reason_of(const Decision& decision) {
  if (!decision.device.cuda) {
    return "on the CPU the row kernel is vectorised over the width, and the edges are divided among " +
           count(decision.device.processors, "thread") +
           (decision.overrides.any() ? "; what is set by hand are parameters of CUDA launches" : "");
  }
  const Rules rules(decision.graph, decision.layer, decision.device);
  std::string text = "average degree " + one_digit(rules.degree) + ": " + about_groups(rules, decision) + "; " +
                     about_width(rules, decision) + about_block(rules, decision);
  if (decision.graph.max_degree > decision.config.split_above) {
    text += "; rows with more than " + number(decision.config.split_above) + " edges are split into chunks of " +
            number(decision.config.chunk_edges);
  }
  return text + about_source(decision);
}

std::string runner_up_of(const Decision& decision) {
  if (!decision.device.cuda) return "";
  Overrides other;
  other.kernel = decision.config.kernel == Kernel::Row ? Kernel::Group : Kernel::Row;
  const KernelConfig config = decide(decision.graph, decision.layer, decision.device, other).config;
  return (config.kernel == Kernel::Group ? "kernel group with neighbour groups of " + number(config.group_size)
                                         : "kernel row with " + count(config.groups, "neighbour group") + " per row") +
         ", " + lanes_and_loads(config) + ", blocks of " + number(config.block) + " threads";
}

}  // namespace gnna
