// The parts of the launch rules that both launch.cpp, which decides, and reason.cpp, which explains, evaluate.
#pragma once

#include <algorithm>

#include "gnna/decide.h"
#include "launch_tuning.h"

namespace gnna {

constexpr int kWarp = 32;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Why features are loaded as they are.
enum class Loading { Whole, Padded, ByHand, Heads, Unaligned, NotMultiple };

struct Rules {
  Rules(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device)
      : graph(graph), layer(layer), device(device), degree(average_degree(graph)) {}

  // A longest row takes a noticeable share of the time.
  bool is_small() const;
  bool tiny() const { return is_tiny(graph.rows, device); }

  // How a row of x is loaded. Whole: in loads of 16 bytes. Padded: the same, after x is copied. Otherwise one element
  // at a time.
  Loading loading(const Overrides& overrides) const;
  int64_t elements_per_load() const { return 16 / std::max<int64_t>(layer.itemsize, 1); }

  // Bytes of the column tiles in which x is gathered; 0 if rows are gathered whole.
  int64_t column_tile() const;

  // Whether a lane makes more loads than elsewhere, because rows are short and many.
  bool is_sparse(int64_t row_loads) const;

  // Loads per lane of a row that takes so many loads.
  int loads_per_lane(int64_t row_loads) const;

  // The entry of tuning.group_degree that the first doubling of groups is compared with, and the groups that the
  // average degree asks for.
  int first_group_degree(int lanes) const { return lanes > tuning.narrow_lanes ? 1 : 0; }
  int groups_by_degree(int lanes) const;

  GraphFacts graph;
  LayerFacts layer;
  DeviceFacts device;
  const LaunchTuning& tuning = kTuning;
  double degree;

 private:
  int sparse_loads_per_lane(int64_t row_loads) const;
};

}  // namespace gnna
