// The decider's rules, from timings of a prototype on an H200 (fp32 sums, real and synthetic graphs, widths 16 to 256).
// Those for lanes, groups and busy warps were fitted on 84 graph-width pairs, where they cost 9 % (geometric mean) over
// the best of 40 to 110 variants; on new graphs expect more. Constants marked "estimate" were not timed.
#include "gnna/decide.h"

#include <algorithm>
#include <cstdio>

namespace gnna {

namespace {

constexpr int kWarp = 32;

// Average degrees from which 2, 4 and 8 neighbour groups share a row: rows shorter than this leave groups idle.
constexpr int64_t kGroupDegrees[] = {24, 48, 96};
// Fewer warps per processor do not cover the latency of L2; graphs with fewer rows than that split rows instead.
constexpr int64_t kBusyWarps = 24;
// Tiny: a warp per row fills less than half of one wave. Block 256 won there (cora, citeseer), and was 3 to 50 % slower
// on graphs that fill the device (64 won on pubmed). The limit is an estimate that separates these graphs.
constexpr int64_t kTinyWarps = 32;
constexpr int kBlock = 64, kTinyBlock = 256;
// X above L2: column tiles that fit make up for reading the edges again from degree 30 on (reddit twin: width 128 7.1
// -> 6.3 ms, width 256 18.8 -> 12.3 ms). The quarter above L2 that a tile may take is an estimate (gathers from 64 MB
// still ran at 6.8 of 8.2 TB/s).
constexpr double kTileDegree = 30;
constexpr int64_t kTileBytes[] = {256, 128};
// Two vectors of half the lanes beat one of all for short rows: twice the rows per warp (pubmed, width 32).
constexpr double kShortDegree = 8;

// Rows over 4 times the average degree outlast the others; in small graphs the longest row sets the time, and 16 to 32
// won (pubmed, PROTEINS). What counts as small is an estimate.
constexpr double kLongRatio = 4;
constexpr int64_t kLongLeast = 32, kLongMost = 512, kSmallEdges = 200000;
// Items are 256 edges, and larger where 64 items a processor are more than enough, so that partial results cost less
// memory (an estimate; 1024 to 4096 edges did well on large graphs).
constexpr int64_t kItemLeast = 256, kItemMost = 2048, kItemsPerProcessor = 64;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t round_up_to_power(int64_t n) {
  int64_t power = 1;
  while (power < n) power *= 2;
  return power;
}

double average_degree(const GraphFacts& graph) {
  return graph.rows > 0 ? static_cast<double>(graph.edges) / static_cast<double>(graph.rows) : 0.0;
}

std::string one_digit(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

std::string number(int64_t value) { return std::to_string(value); }

struct Cover {
  int lanes;
  int vectors;

  int64_t pieces() const { return static_cast<int64_t>(lanes) * vectors; }
  // Thread slots that one neighbour's loads occupy, idle lanes included.
  int64_t slots(int64_t needed) const {
    return needed / pieces() * pieces() + ceil_div(needed % pieces(), lanes) * lanes;
  }
};

// Lanes and vectors for a row of so many pieces: 4x1 for 4 pieces, 8x1 for 8, 8x2 for 16, 16x2 for 32, 32x2 for 64 (the
// winners at widths 16, 32, 64, 128, 256 in fp32); four vectors where two would leave more lanes idle (8x4 at width
// 96).
Cover cover_width(int64_t pieces, bool short_rows, bool scalar) {
  const int64_t power = std::min<int64_t>(round_up_to_power(pieces), 64);
  if (pieces == 8 && short_rows) return {4, 2};
  if (pieces <= 8) return {static_cast<int>(power), 1};
  if (pieces > 64 && scalar) return {kWarp, 4};
  const Cover two{static_cast<int>(power / 2), 2};
  const Cover four{static_cast<int>(power / 4), 4};
  return four.slots(pieces) < two.slots(pieces) ? four : two;
}

// Elements per load, and why it is one where 16 bytes are not possible.
int vector_width(const LayerFacts& layer, std::string* why_scalar) {
  const int64_t full = 16 / std::max<int64_t>(layer.itemsize, 1);
  if (layer.width % full != 0) {
    *why_scalar = "not a multiple of " + number(full);
  } else if (layer.weighted && layer.head_dim % full != 0) {
    *why_scalar = "with heads of " + number(layer.head_dim);
  } else if (!layer.aligned) {
    *why_scalar = "in rows that do not start on 16 bytes";
  } else {
    return static_cast<int>(full);
  }
  return 1;
}

Decision decide_cpu(const DeviceFacts& device) {
  Decision decision;
  decision.reason = "on the CPU the row kernel is vectorised over the width, and rows are split by edges over " +
                    number(device.processors) + (device.processors == 1 ? " thread" : " threads");
  return decision;
}

}  // namespace

void decide_cut(const GraphFacts& graph, const DeviceFacts& device, int64_t* long_row, int64_t* item_edges) {
  const auto wanted = static_cast<int64_t>(kLongRatio * average_degree(graph));
  *long_row = graph.edges < kSmallEdges ? kLongLeast : std::clamp(wanted, kLongLeast, kLongMost);
  const int64_t share = graph.edges / (std::max<int64_t>(device.processors, 1) * kItemsPerProcessor);
  *item_edges = std::clamp(share / kItemLeast * kItemLeast, kItemLeast, kItemMost);
}

Decision decide(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device, bool explain) {
  if (!device.cuda) return explain ? decide_cpu(device) : Decision{};
  Decision decision;
  RowConfig& config = decision.config;
  decide_cut(graph, device, &config.long_row, &config.item_edges);

  const double degree = average_degree(graph);
  const int64_t width = std::max<int64_t>(layer.width, 1);
  std::string why_scalar, why_tile;

  config.vector_width = vector_width(layer, &why_scalar);
  const bool scalar = config.vector_width == 1;
  Cover cover = cover_width(ceil_div(width, config.vector_width), degree < kShortDegree, scalar);
  if (!scalar && degree >= kTileDegree && graph.cols * width * layer.itemsize > device.l2_bytes) {
    for (const int64_t bytes : kTileBytes) {
      const bool fits = graph.cols * bytes <= device.l2_bytes + device.l2_bytes / 4;
      if (!fits || width * layer.itemsize <= bytes) continue;
      cover = cover_width(bytes / 16, false, false);
      why_tile = ", in column tiles of " + number(bytes) + " bytes that fit the L2 cache of " +
                 number(device.l2_bytes >> 20) + " MiB";
      break;
    }
  }
  config.lanes = cover.lanes;
  config.vectors = cover.vectors;
  const int64_t tiles = ceil_div(width, cover.pieces() * config.vector_width);

  int degree_class = 0;
  while (degree_class < 3 && degree >= static_cast<double>(kGroupDegrees[degree_class])) ++degree_class;
  const int most_groups = kWarp / config.lanes;
  config.groups = std::min(1 << degree_class, most_groups);
  const int by_degree = config.groups;
  const int64_t processors = std::max<int64_t>(device.processors, 1);
  const auto warps = [&] { return ceil_div(graph.rows * config.lanes * config.groups, kWarp) * tiles; };
  const int64_t warps_before = warps();
  while (config.groups < most_groups && warps() < kBusyWarps * processors) config.groups *= 2;
  config.block = graph.rows * tiles < kTinyWarps * processors ? kTinyBlock : kBlock;

  if (!explain) return decision;

  std::string& reason = decision.reason;
  reason = "average degree " + one_digit(degree) +
           (degree_class < 3 ? " below " + number(kGroupDegrees[degree_class]) : " from " + number(kGroupDegrees[2]));
  reason += ": " + (by_degree == 1 ? std::string("one neighbour group") : number(by_degree) + " neighbour groups") +
            " per row";
  if (by_degree < 1 << degree_class) reason += " (all that a warp has room for)";
  if (config.groups > by_degree) {
    reason += ", raised to " + number(config.groups) + " because " + number(warps_before) + " warps are fewer than " +
              number(kBusyWarps) + " for each of " + number(processors) + " processors";
  }
  reason += "; width " + number(layer.width) + (why_scalar.empty() ? "" : " " + why_scalar) + ": " +
            number(config.lanes) + (config.lanes == 1 ? " lane x " : " lanes x ") + number(config.vectors) +
            (scalar ? " single elements" : " vectors of " + number(config.vector_width)) + why_tile;
  if (config.block == kTinyBlock) reason += "; blocks of 256 threads because the graph is tiny";
  if (graph.max_degree > config.long_row) {
    reason +=
        "; rows of more than " + number(config.long_row) + " edges are cut into items of " + number(config.item_edges);
  }
  return decision;
}

}  // namespace gnna
