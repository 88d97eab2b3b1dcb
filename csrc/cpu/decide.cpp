// The decider's rules, from timings on an H200 of the row kernel with float sums at widths 16, 64, 128, rows in the
// order that decide_schedule.cpp gives them. Fitted on 12 real graphs and a stand-in of amazon0601 (39 cases, 7,104
// launches; 4.0 % over the best launch of each case, geometric mean) they cost 5.5 %, at worst 28 %, on 13 graphs that
// had no part in it (39 cases, 5,916 launches). What those showed has since been added: kBusyDegree and kManyRows.
// Constants marked "estimate" were not timed.
#include "gnna/decide.h"

#include <algorithm>

#include "decide_why.h"

namespace gnna {

namespace {

constexpr int kWarp = 32;

// Average degrees from which 2, 4 and 8 neighbour groups share a row: rows shorter than this leave groups idle. With
// rows sorted by degree more groups pay late, but for narrow ones, whose groups are of up to 4 lanes (musae-github 2,
// amazon-computers 4, fb100-Cornell5 8 at width 16, of degrees 15, 36 and 85).
constexpr int64_t kNarrowGroupDegrees[] = {14, 32, 80}, kGroupDegrees[] = {30, 48, 96};
constexpr int kNarrow = 4;
// Fewer warps per processor do not cover the latency of L2; graphs with fewer rows than that split rows instead: short
// ones up to 8 warps (cora; 24 made pubmed 17 % slower at width 16), up to 48 where every group still gets 4 edges
// (OhmNet-brain-tissues 10 and 22 %, PP-Pathways 8 %).
constexpr int64_t kBusyWarps = 8, kBusyWarpsLong = 48;
constexpr double kBusyDegree = 8;
// Block 256 won on tiny graphs (cora, citeseer), and was 3 to 50 % slower on graphs that fill the device (64 won on
// pubmed).
constexpr int kBlock = 64, kTinyBlock = 256;
// X above L2: column tiles that fit make up for reading the edges again from degree 30 on (reddit twin: width 128 7.1
// -> 6.3 ms, width 256 18.8 -> 12.3 ms). The quarter above L2 that a tile may take is an estimate (gathers from 64 MB
// still ran at 6.8 of 8.2 TB/s).
constexpr double kTileDegree = 30;
constexpr int64_t kTileBytes[] = {256, 128};
// Rows that are short and all alike: fewer lanes with more loads each are more rows per warp (DD, NCI-HIV-H, PROTEINS
// at width 16: 8 to 16 %; DD at width 128: 7 %). Where degrees differ, a warp waits for its longest row.
constexpr double kShortDegree = 8;
// A row of 16 loads takes 4 lanes with 4 each from so many rows per processor on (DD 2 %, NCI-HIV-H 4, Yeast, OVCAR-8H
// and TWITTER stand-ins 12 to 14, road-rome 3), below that 8 with 2 (PROTEINS 8 %).
constexpr int64_t kManyRows = 1024;

// Rows over 4 times the average degree outlast the others (6 times cost 4 % more, geometric mean); in small graphs the
// longest row sets the time, and 16 won (cora, pubmed, PROTEINS). What counts as small is an estimate.
constexpr double kLongRatio = 4;
constexpr int64_t kLongLeast = 32, kLongMost = 512, kLongSmall = 16, kSmallEdges = 200000;
// Edges per neighbour group, and threads per block of that kernel: it won 7 of 91 timed cases (DD at widths 32 and 64,
// artist, arxiv and amazon-computers at 16, blog at 256) with groups of 16 to 64 in blocks of 256.
constexpr int kGroupEdges = 32, kGroupBlock = 256;
// Items are 256 edges, and larger where 64 items a processor are more than enough, so that partial results cost less
// memory (an estimate; 1024 to 4096 edges did well on large graphs).
constexpr int64_t kItemLeast = 256, kItemMost = 2048, kItemsPerProcessor = 64;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t round_up_to_power(int64_t n) {
  int64_t power = 1;
  while (power < n) power *= 2;
  return power;
}

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
// 96). A lane computes with twice the registers it loads in 16-bit types: one vector up to 32 pieces (bfloat16 at
// widths 64 and 128; two were 10 to 28 % slower).
Cover cover_width(int64_t pieces, bool short_even, bool many_rows, bool scalar, bool half) {
  const int64_t power = std::min<int64_t>(round_up_to_power(pieces), 64);
  if (half && !scalar) return power <= kWarp ? Cover{static_cast<int>(power), 1} : Cover{kWarp, 2};
  if (short_even && !scalar && pieces >= 4) {
    const bool four = power > 16 || (power == 16 && many_rows);
    return four ? Cover{static_cast<int>(power / 4), 4} : Cover{static_cast<int>(power / 2), 2};
  }
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
    *why_scalar = "not a multiple of " + std::to_string(full);
  } else if (layer.weighted && layer.head_dim % full != 0) {
    *why_scalar = "with heads of " + std::to_string(layer.head_dim);
  } else if (!layer.aligned) {
    *why_scalar = "in rows that do not start on 16 bytes";
  } else {
    return static_cast<int>(full);
  }
  return 1;
}

// Lanes, loads and elements per load, which both kernels cover the width with.
void cover(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device, const Manual& manual,
           KernelConfig& config, Why& why) {
  const int64_t width = std::max<int64_t>(layer.width, 1);
  config.vector_width = vector_width(layer, &why.scalar);
  if (manual.vector_width == 1 && config.vector_width > 1) {
    config.vector_width = 1;
    why.scalar = "as set by hand";
  }
  const bool scalar = config.vector_width == 1;
  const int64_t pieces = ceil_div(width, config.vector_width);
  const bool half = layer.itemsize == 2;
  why.short_even = !uneven_degrees(graph) && why.degree < kShortDegree && !is_tiny(graph.rows, device);
  const bool many_rows = graph.rows >= kManyRows * device.processors;
  Cover cover = cover_width(pieces, why.short_even, many_rows, scalar, half);
  if (!scalar && why.degree >= kTileDegree && graph.cols * width * layer.itemsize > device.l2_bytes) {
    for (const int64_t bytes : kTileBytes) {
      const bool fits = graph.cols * bytes <= device.l2_bytes + device.l2_bytes / 4;
      if (!fits || width * layer.itemsize <= bytes) continue;
      cover = cover_width(bytes / 16, false, many_rows, false, half);
      why.tile_bytes = bytes;
      break;
    }
  }
  const int most_vectors = config.kernel == Kernel::Groups ? 2 : 4;
  if (cover.vectors > most_vectors) cover = {std::min(2 * cover.lanes, kWarp), most_vectors};
  // Of lanes and vectors, what the user leaves open follows from what he fixed.
  if (manual.lanes && !manual.vectors) {
    cover.vectors = 1;
    while (cover.vectors < most_vectors && manual.lanes * cover.vectors < pieces) cover.vectors *= 2;
  }
  if (manual.vectors && !manual.lanes) {
    cover.lanes = 1;
    while (cover.lanes < kWarp && std::min(manual.vectors, most_vectors) * cover.lanes < pieces) cover.lanes *= 2;
  }
  if (manual.lanes || manual.vectors) why.tile_bytes = 0;
  config.lanes = manual.lanes ? manual.lanes : cover.lanes;
  config.vectors = manual.vectors ? std::min(manual.vectors, most_vectors) : cover.vectors;
}

// Partial results take shared memory; fewer loads per lane, then smaller blocks, take less.
void fit_shared_memory(const LayerFacts& layer, KernelConfig& config, Why& why) {
  const int64_t itemsize = std::max<int64_t>(layer.itemsize, 4);  // 16-bit features are summed in float
  while (shared_elements(config) * itemsize > kMaxShared) {
    (config.vectors > 1 ? config.vectors : config.block) /= 2;
    why.shrunk = true;
  }
}

KernelConfig configure_groups(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device,
                              const Manual& manual, Why& why) {
  KernelConfig config;
  config.kernel = Kernel::Groups;
  config.ngs = manual.ngs ? manual.ngs : kGroupEdges;
  config.block = manual.block ? manual.block : kGroupBlock;
  cover(graph, layer, device, manual, config, why);
  fit_shared_memory(layer, config, why);
  const int64_t most = static_cast<int64_t>(config.ngs) * (config.block / config.lanes);  // a group for each team
  config.long_row = manual.long_row ? std::min(manual.long_row, most) : most;
  config.item_edges = manual.item_edges ? manual.item_edges : most;
  return config;
}

// Which rows are cut, and how finely.
void decide_cut(const GraphFacts& graph, const DeviceFacts& device, const Manual& manual, int64_t* long_row,
                int64_t* item_edges) {
  const auto wanted = static_cast<int64_t>(kLongRatio * average_degree(graph));
  *long_row = graph.edges < kSmallEdges ? kLongSmall : std::clamp(wanted, kLongLeast, kLongMost);
  const int64_t share = graph.edges / (device.processors * kItemsPerProcessor);
  *item_edges = std::clamp(share / kItemLeast * kItemLeast, kItemLeast, kItemMost);
  if (manual.long_row) *long_row = manual.long_row;
  if (manual.item_edges) *item_edges = manual.item_edges;
}

KernelConfig configure_rows(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device,
                            const Manual& manual, Why& why) {
  KernelConfig config;
  decide_cut(graph, device, manual, &config.long_row, &config.item_edges);
  cover(graph, layer, device, manual, config, why);
  const int64_t tiles = ceil_div(std::max<int64_t>(layer.width, 1),
                                 static_cast<int64_t>(config.lanes) * config.vectors * config.vector_width);
  const int64_t* const degrees = config.lanes <= kNarrow ? kNarrowGroupDegrees : kGroupDegrees;
  int degree_class = 0;
  while (degree_class < 3 && why.degree >= static_cast<double>(degrees[degree_class])) ++degree_class;
  const int most_groups = kWarp / config.lanes;
  config.groups = std::min(1 << degree_class, most_groups);
  const auto warps = [&] { return ceil_div(graph.rows * config.lanes * config.groups, kWarp) * tiles; };
  why.below_bound = degree_class < 3;
  why.degree_bound = degrees[std::min(degree_class, 2)];
  why.warp_full = config.groups < 1 << degree_class;
  why.groups_by_degree = config.groups;
  why.warps = warps();
  const auto busy_warps = [&] { return why.degree >= kBusyDegree * config.groups ? kBusyWarpsLong : kBusyWarps; };
  why.busy_warps = busy_warps();
  while (config.groups < most_groups && warps() < busy_warps() * device.processors) config.groups *= 2;
  if (manual.groups) config.groups = std::min(manual.groups, most_groups);
  why.tiny = !manual.block && is_tiny(graph.rows * tiles, device);
  config.block = manual.block ? manual.block : (why.tiny ? kTinyBlock : kBlock);
  fit_shared_memory(layer, config, why);
  return config;
}

KernelConfig configure(Kernel kernel, const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device,
                       const Manual& manual, Why& why) {
  why.degree = average_degree(graph);
  return kernel == Kernel::Groups ? configure_groups(graph, layer, device, manual, why)
                                  : configure_rows(graph, layer, device, manual, why);
}

}  // namespace

Decision decide(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device, const Manual& manual,
                bool explain) {
  Decision decision;
  if (!device.cuda) {
    if (explain) decision.reason = reason_on_cpu(device, manual);
    return decision;
  }
  const Kernel kernel = manual.kernel.value_or(Kernel::Rows);
  Why why;
  decision.config = configure(kernel, graph, layer, device, manual, why);
  if (!explain) return decision;
  decision.reason = reason_of(decision.config, graph, layer, device, manual, why);
  Why of_other;
  const Kernel other = kernel == Kernel::Rows ? Kernel::Groups : Kernel::Rows;
  decision.runner_up = as_runner_up(configure(other, graph, layer, device, {}, of_other));
  return decision;
}

}  // namespace gnna
