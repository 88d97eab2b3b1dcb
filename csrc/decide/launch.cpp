// The decider's rules, from timings on an H200 of the row kernel with sums at widths 16 to 256, rows in the order that
// decide_schedule.cpp gives them, of 11 real graphs and 4 stand-ins; benchmarks/regret.py says what they cost: on 8
// others and 4 that only block sizes and busy warps were set by (36 cases, 5,600 launches) 2.2 % over the best launch
// of each case, geometric mean, at worst 7 % (15 % below 10 us); with weights, where two of the five graphs had set one
// entry, 0.7 %, with weights per head 1.0 %, in bfloat16 0.3 %. Constants marked "estimate" were not timed.
#include <algorithm>

#include "gnna/decide.h"
#include "why.h"

namespace gnna {

namespace {

constexpr int kWarp = 32;

// Average degrees from which 2, 4 and 8 neighbour groups share a row: rows shorter than this leave groups idle. With
// rows sorted by degree more groups pay late, but for narrow ones, whose groups are of up to 4 lanes (musae-github 2,
// amazon-computers 4 at width 16, of degrees 15 and 36; artist, of 32, half of what amazon-computers wants at all). No
// graph above degree 85 was timed: the last bound of each is an estimate.
constexpr int64_t kNarrowGroupDegrees[] = {14, 34, 96}, kGroupDegrees[] = {34, 96, 200};
constexpr int kNarrow = 4;
// Fewer warps per processor do not cover the latency of L2; graphs with fewer rows than that split rows instead: short
// ones up to 8 warps (cora; 24 made pubmed 17 % slower at width 16), up to 48 where every group still gets 4 edges
// (OhmNet-brain-tissues 10 and 22 %, PP-Pathways 8 %), and in floats up to 96 where two get 12 (the same two, with 64
// and 82 warps, 10 to 16 % at widths 64 and 128; in 16 bits 2 to 11 % slower). In tiny graphs every row has a warp.
constexpr int64_t kBusyWarps = 8, kBusyWarpsLong = 48, kBusyWarpsTwo = 96, kBusyWarpsTiny = 32;
constexpr double kBusyDegree = 8, kBusyDegreeTwo = 24;
// Block 256 won on tiny graphs (cora, citeseer), and was 3 to 50 % slower on graphs that fill the device. Between them
// are small ones, whose longest rows a block of few groups takes long over: with 16 lanes or more 128 were 3 to 18 %
// faster (pubmed; for floats without weights also musae-github, amazon-computers, gemsec-new_sites, PP-Pathways and
// OhmNet-brain-tissues, of 0.4 to 0.7 M edges, and not those of 1.2 M and more).
constexpr int kBlock = 64, kSmallBlock = 128, kSmallBlockLanes = 16, kTinyBlock = 256;
constexpr int64_t kSmallPlainEdges = 1000000;
// X above L2: column tiles that fit make up for reading the edges again from degree 30 on (reddit twin: width 128 7.1
// -> 6.3 ms, width 256 18.8 -> 12.3 ms). The quarter above L2 that a tile may take is an estimate (gathers from 64 MB
// still ran at 6.8 of 8.2 TB/s).
constexpr double kTileDegree = 30;
constexpr int64_t kTileBytes[] = {256, 128};
// Where memory is slow beside L2 they pay from degree 6 on, also where they do not fit. H100 (3.4 TB/s; the H200 has
// 4.9), widths 128 / 256 / 512, without weights: ogbn-arxiv's stand-in 1.20 / 1.41 / 1.39 times as fast, com-dblp 1.10
// / 1.22 / 1.26, amazon0505's 1.08 / 1.07 / 1.06, amazon0601's 1.02 / 1.03 / 1.04; 16 bits alike. Graphs whose
// ids are local lose: cnr-2000 0.91 to 0.96, com-amazon's (degree 5.5) and DD (rows of one length) 0.86 to 0.97.
// Weights are read again for every tile: theirs are twice as wide (1.14 to 1.2, cnr-2000 0.98). Other devices were not
// timed.
constexpr int64_t kFastMemory = 4'000'000'000'000;
constexpr double kTileDegreeSlow = 6;
constexpr int64_t kTileBytesSlow = 256;
// Loads of 16 bytes a lane makes of a row of 4, 8, 16, 32 and 64 of them: `many` where the average degree is below the
// bound, so that more rows are on their way at once, `few` elsewhere. Winners at widths 16 to 256 of 15 graphs, of
// degree 2 to 85; degrees between 10 and 15 were not among them. 64 loads by 32 lanes in two column tiles beat 32 lanes
// with two each by 5 to 20 % where X lies inside L2.
struct Loads {
  int many;
  double below;
  int few;
};
constexpr double kShort = 12, kMiddling = 30;
constexpr Loads kLoads[] = {{1, 0, 1}, {1, 0, 1}, {2, kShort, 1}, {4, kShort, 2}, {4, kShort, 1}};
constexpr Loads kLoadsWeighted[] = {{1, 0, 1}, {2, kShort, 1}, {2, 0, 2}, {4, kShort, 2}, {4, kShort, 2}};
constexpr Loads kLoadsPerHead[] = {{1, 0, 1}, {2, kShort, 1}, {2, 0, 2}, {4, 8, 2}, {4, kShort, 2}};
// A lane computes with twice the registers it loads in 16-bit types.
constexpr Loads kLoads16[] = {{1, 0, 1}, {1, 0, 1}, {2, kShort, 1}, {2, kShort, 1}, {2, kShort, 1}};
constexpr Loads kLoads16Weighted[] = {{1, 0, 1}, {2, kShort, 1}, {2, kShort, 1}, {2, kMiddling, 1}, {2, 0, 2}};
constexpr int64_t kTabled = 4;  // the loads of a row that the tables start with
constexpr int kLastRow = 4;     // which serves all wider rows, too
// From this row of the tables on (17 pieces) a lane takes as many of a weighted row in small graphs as in others.
constexpr int kWeightedRow = 3;
// The same for rows that are short and all alike (DD), and, in 16 bits too, for very short ones (NCI-HIV-H: degree 2).
constexpr double kShortDegree = 8, kVeryShortDegree = 4;
constexpr int kLoadsEven[] = {1, 2, 4, 4, 4}, kLoadsEven16[] = {1, 2, 2, 2, 2}, kLoadsVeryShort[] = {2, 4, 4, 4, 4};
// Many loads want so many warps per processor: PROTEINS gained with 82 and lost with 41, pubmed lost with 75.
constexpr int64_t kManyLoadsWarps = 80;

// Rows over 4 times the average degree outlast the others (6 times cost 4 % more, geometric mean), and rows over 256
// where the average is less (fb100-Cornell5: 339, which is 4 times, cost 8 to 9 % more at widths 16 and 64); in small
// graphs the longest row sets the time, and 16 won (cora, pubmed, PROTEINS). What counts as small is an estimate.
constexpr double kLongRatio = 4;
constexpr int64_t kLongLeast = 32, kLongMost = 256, kLongMostDense = 512, kLongSmall = 16, kSmallEdges = 200000;
// x is copied into rows of whole loads where these are not possible otherwise: 1.02 to 1.67 times as fast as element by
// element at widths 18 to 62 (DD, com-dblp, cnr-2000, facebook-links), in 16 bits 0.94 to 1.92 times; at 10 and 14 it
// gains little. Small graphs and double were not tried.
constexpr int64_t kPadWidth = 16, kPadDegree = 4, kPadMostBytes = 4;
// Edges per neighbour group, and threads per block of that kernel: it won 7 of 91 timed cases (DD at widths 32 and 64,
// artist, arxiv and amazon-computers at 16, blog at 256) with groups of 16 to 64 in blocks of 256.
constexpr int kGroupEdges = 32, kGroupBlock = 256;
// Items are 256 edges, and larger where 64 chunks a processor are more than enough, so that partial results cost less
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
};

// Rows that are short and all alike. Where degrees differ, a warp waits for its longest.
bool short_even(const GraphFacts& graph) { return !uneven_degrees(graph) && average_degree(graph) < kShortDegree; }

// Lanes and loads for a row of so many pieces, `loads` of them by one lane where the row has enough of them.
Cover cover_width(int64_t pieces, int loads) {
  const int64_t power = std::min<int64_t>(round_up_to_power(pieces), int64_t{kWarp} * loads);
  const auto vectors = static_cast<int>(std::min<int64_t>(loads, power));
  return {static_cast<int>(power / vectors), vectors};
}

// What a layer finds small: a longest row takes a noticeable share of the time.
bool is_small(const GraphFacts& graph, const LayerFacts& layer) {
  return graph.edges < (layer.itemsize == 4 && !layer.weighted ? kSmallPlainEdges : kSmallEdges);
}

const Loads* table_of(const LayerFacts& layer) {
  if (layer.itemsize == 2) return layer.weighted ? kLoads16Weighted : kLoads16;
  if (!layer.weighted) return kLoads;
  return layer.head_dim < layer.width ? kLoadsPerHead : kLoadsWeighted;
}

// Loads a lane makes of a row of so many pieces: one in tiny graphs, where every row has a warp (cora and citeseer: 10
// to 15 % at widths 64 to 256), and in small ones where no more are wanted for many short rows (pubmed, musae-github)
// or, from 17 pieces on, for weights, which every lane reads (pubmed, in the user's order or per head: 5 to 19 %
// faster).
int loads_of(int64_t pieces, const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device, Why& why) {
  const bool half = layer.itemsize == 2;
  if (pieces < kTabled || is_tiny(graph.rows, device)) return 1;
  int row = 0;
  while (row < kLastRow && kTabled << row < pieces) ++row;
  const Loads& loads = table_of(layer)[row];
  const bool weights = layer.weighted && layer.itemsize == 4 && row >= kWeightedRow;
  const int few = is_small(graph, layer) && !weights ? 1 : loads.few;
  if (layer.itemsize == 8) return few;
  int many = why.degree < loads.below ? loads.many : 0;
  if (short_even(graph)) {
    many = (why.degree < kVeryShortDegree ? kLoadsVeryShort : half ? kLoadsEven16 : kLoadsEven)[row];
  }
  const int64_t warps = many > 0 ? graph.rows * ((kTabled << row) / many) / kWarp : 0;
  if (many <= few || warps < kManyLoadsWarps * device.processors) return few;
  why.many_loads = true;
  return many;
}

// Elements per load, and why it is one where 16 bytes are not possible.
int vector_width(const GraphFacts& graph, const LayerFacts& layer, Why& why) {
  const int64_t full = 16 / std::max<int64_t>(layer.itemsize, 1);
  const bool whole = layer.width % full == 0;
  if (layer.weighted && layer.head_dim < layer.width && layer.head_dim % full != 0) {
    why.scalar = "with heads of " + std::to_string(layer.head_dim);
  } else if (whole && layer.aligned) {
    return static_cast<int>(full);
  } else if (layer.itemsize <= kPadMostBytes && layer.width >= kPadWidth && graph.edges >= kSmallEdges &&
             graph.edges >= kPadDegree * graph.cols) {
    why.padded = ceil_div(layer.width, full) * full;
    return static_cast<int>(full);
  } else {
    why.scalar = whole ? "in rows that do not start on 16 bytes" : "not a multiple of " + std::to_string(full);
  }
  return 1;
}

// Bytes of the column tiles in which x is gathered; 0: whole rows.
int64_t tile_bytes(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device, Why& why) {
  const int64_t row = layer.width * layer.itemsize;
  if (graph.cols * row <= device.l2_bytes) return 0;
  if (why.degree >= kTileDegree) {
    for (const int64_t bytes : kTileBytes) {
      why.tiles_fit = graph.cols * bytes <= device.l2_bytes + device.l2_bytes / 4;
      if (why.tiles_fit && row > bytes) return bytes;
    }
  }
  why.tiles_fit = false;
  const bool slow = device.bandwidth > 0 && device.bandwidth < kFastMemory;
  const int64_t bytes = kTileBytesSlow * (layer.weighted ? 2 : 1);
  return slow && why.degree >= kTileDegreeSlow && uneven_degrees(graph) && row > bytes ? bytes : 0;
}

// Lanes, loads and elements per load, which both kernels cover the width with.
void cover(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device, const Manual& manual,
           KernelConfig& config, Why& why) {
  const int64_t width = std::max<int64_t>(layer.width, 1);
  config.vector_width = vector_width(graph, layer, why);
  if (manual.vector_width == 1 && config.vector_width > 1) {
    config.vector_width = 1;
    why.scalar = "as set by hand";
    why.padded = 0;
  }
  const bool scalar = config.vector_width == 1;
  const int64_t pieces = ceil_div(width, config.vector_width);
  const int scalar_loads = pieces > 64 ? 4 : pieces > 8 ? 2 : 1;
  Cover cover = cover_width(pieces, scalar ? scalar_loads : loads_of(pieces, graph, layer, device, why));
  why.tile_bytes = scalar ? 0 : tile_bytes(graph, layer, device, why);
  if (why.tile_bytes > 0) {
    const int64_t of_tile = why.tile_bytes / 16;
    cover = cover_width(of_tile, loads_of(of_tile, graph, layer, device, why));
  }
  const int most_vectors = config.kernel == Kernel::Group ? 2 : 4;
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
  why.many_loads = why.many_loads && !manual.lanes && !manual.vectors && config.kernel == Kernel::Row;
  config.lanes = manual.lanes ? manual.lanes : cover.lanes;
  config.vectors = manual.vectors ? std::min(manual.vectors, most_vectors) : cover.vectors;
}

// The neighbour-group kernel's partial results take shared memory; fewer loads per lane, then smaller blocks, take
// less. The row kernel's fit as its blocks are.
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
  config.kernel = Kernel::Group;
  config.group_size = manual.group_size ? manual.group_size : kGroupEdges;
  config.block = manual.block ? manual.block : kGroupBlock;
  cover(graph, layer, device, manual, config, why);
  fit_shared_memory(layer, config, why);
  const int64_t most =
      static_cast<int64_t>(config.group_size) * (config.block / config.lanes);  // a group for each team
  config.split_above = manual.split_above ? std::min(manual.split_above, most) : most;
  config.chunk_edges = manual.chunk_edges ? manual.chunk_edges : most;
  return config;
}

// Which rows are cut, and how finely.
void decide_cut(const GraphFacts& graph, const DeviceFacts& device, const Manual& manual, int64_t* split_above,
                int64_t* chunk_edges) {
  const auto wanted = static_cast<int64_t>(kLongRatio * average_degree(graph));
  const auto most = std::clamp(static_cast<int64_t>(average_degree(graph)), kLongMost, kLongMostDense);
  *split_above = graph.edges < kSmallEdges ? kLongSmall : std::clamp(wanted, kLongLeast, most);
  const int64_t share = graph.edges / (device.processors * kItemsPerProcessor);
  *chunk_edges = std::clamp(share / kItemLeast * kItemLeast, kItemLeast, kItemMost);
  if (manual.split_above) *split_above = manual.split_above;
  if (manual.chunk_edges) *chunk_edges = manual.chunk_edges;
}

KernelConfig configure_rows(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device,
                            const Manual& manual, Why& why) {
  KernelConfig config;
  decide_cut(graph, device, manual, &config.split_above, &config.chunk_edges);
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
  const bool tiny = is_tiny(graph.rows, device);
  const auto busy_warps = [&] {
    if (tiny) return kBusyWarpsTiny;
    if (config.groups == 1 && why.degree >= kBusyDegreeTwo && layer.itemsize == 4) return kBusyWarpsTwo;
    return why.degree >= kBusyDegree * config.groups ? kBusyWarpsLong : kBusyWarps;
  };
  why.busy_warps = busy_warps();
  while (config.groups < most_groups && warps() < busy_warps() * device.processors) config.groups *= 2;
  if (manual.groups) config.groups = std::min(manual.groups, most_groups);
  config.block = kBlock;
  if (manual.block) {
    config.block = std::min(manual.block, most_threads(Kernel::Row));
    why.held = config.block < manual.block;
  } else if (tiny) {
    config.block = kTinyBlock;
    why.size = "tiny";
  } else if (is_small(graph, layer) && config.lanes >= kSmallBlockLanes) {
    config.block = kSmallBlock;
    why.size = "small";
  }
  return config;
}

KernelConfig configure(Kernel kernel, const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device,
                       const Manual& manual, Why& why) {
  why.degree = average_degree(graph);
  return kernel == Kernel::Group ? configure_groups(graph, layer, device, manual, why)
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
  const Kernel kernel = manual.kernel.value_or(Kernel::Row);
  Why why;
  decision.config = configure(kernel, graph, layer, device, manual, why);
  if (!explain) return decision;
  decision.reason = reason_of(decision.config, graph, layer, device, manual, why);
  Why of_other;
  const Kernel other = kernel == Kernel::Row ? Kernel::Group : Kernel::Row;
  decision.runner_up = as_runner_up(configure(other, graph, layer, device, {}, of_other));
  return decision;
}

}  // namespace gnna
