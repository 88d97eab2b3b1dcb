// Between the decider's rules (decide.cpp) and its words (decide_reason.cpp): what the rules found on their way.
#pragma once

#include <string>

#include "gnna/decide.h"

namespace gnna {

struct Why {
  double degree = 0;
  std::string scalar;          // why elements are loaded one by one, where they are
  int64_t padded = 0;          // elements of the rows that x is copied into, where it is
  int64_t tile_bytes = 0;      // of column tiles
  bool tiles_fit = false;      // the L2 cache
  bool shrunk = false;         // so that shared memory fits
  const char* size = nullptr;  // of the graph, where it asks for larger blocks
  bool many_loads = false;     // of a lane, and few lanes, because rows are short and many
  bool held = false;           // the block is the largest that the kernel takes, less than set by hand
  int64_t degree_bound = 0;    // of the degree class that gave groups_by_degree
  bool below_bound = false;    // or above
  bool warp_full = false;      // it would have been more groups
  int groups_by_degree = 1;
  int64_t warps = 0, busy_warps = 0;  // with so many groups, and wanted
};

inline bool set_by_hand(const Manual& m) {
  return m.kernel || m.lanes || m.groups || m.group_size || m.vector_width || m.vectors || m.block || m.split_above ||
         m.chunk_edges;
}

std::string reason_on_cpu(const DeviceFacts& device, const Manual& manual);
std::string reason_of(const KernelConfig& config, const GraphFacts& graph, const LayerFacts& layer,
                      const DeviceFacts& device, const Manual& manual, const Why& why);
std::string as_runner_up(const KernelConfig& config);

}  // namespace gnna
