// The decider: a pure function from facts about graph, layer and device to a launch configuration. Launches, status()
// and `gnna explain` share it. Source: the Decider of GNNAdvisor (OSDI 2021, section 7), with rules from timings on
// H100 and H200 (docs/tuning.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gnna/types.h"

namespace gnna {

// to_vector and from_vector are the form in which these values cross between C++ and Python: the fields in
// their order, as gnna_plugin/decider.py lists them. from_vector throws std::invalid_argument for a list of another
// length.

struct GraphFacts {
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t edges = 0;
  int64_t max_degree = 0;

  std::vector<int64_t> to_vector() const;
};

struct LayerFacts {
  int64_t width = 0;     // heads * head_dim elements in a feature row
  int64_t head_dim = 0;  // elements that share one weight
  int64_t itemsize = 4;  // bytes of an element
  bool weighted = false;
  Reduce reduce = Reduce::Sum;
  bool aligned = true;  // x and every row of it start on 16 bytes

  std::vector<int64_t> to_vector() const;
};

struct DeviceFacts {
  bool cuda = false;
  int64_t processors = 1;  // streaming multiprocessors, or threads on a CPU
  int64_t l2_bytes = 0;

  std::vector<int64_t> to_vector() const;
  static DeviceFacts from_vector(const std::vector<int64_t>& values);
};

inline double average_degree(const GraphFacts& graph) {
  return graph.rows > 0 ? static_cast<double>(graph.edges) / static_cast<double>(graph.rows) : 0.0;
}

// Whether some row is so much longer than the average that warps wait for it, and rows gain by being sorted. Between
// PROTEINS, DD and NCI-HIV-H (3 to 7 times the average) and pubmed, facebook-links and com-dblp (38 to 52).
inline bool uneven_degrees(const GraphFacts& graph) {
  return static_cast<double>(graph.max_degree) >= 8 * average_degree(graph);
}

// Whether so many rows, a warp each, fill less than half of one wave on the device: those of cora and citeseer do,
// pubmed's do not (an estimate that separates these graphs).
inline bool is_tiny(int64_t rows, const DeviceFacts& device) { return rows < 32 * device.processors; }

// Two kernels aggregate on CUDA. Row (spmm_row.cuh): the groups of a row share its edges in turn, inside one warp.
// Group (spmm_group.cuh), the paper's: a row's edges are cut into neighbour groups of group_size.
enum class Kernel : int { Row = 0, Group = 1 };

// How a launch is laid out. `lanes` threads are the dimension workers (dw) of one neighbour group; a lane holds
// `vectors` pieces of `vector_width` elements in registers. A row wider than the product of lanes, vectors and
// vector_width is processed in column tiles of that size. A block's shared memory (shared_elements of what the kernel
// computes in, float for the 16-bit types) must fit kMaxShared.
struct KernelConfig {
  Kernel kernel = Kernel::Row;
  int lanes = 32;             // dw: a power of two, at most 32
  int groups = 1;             // Row: neighbour groups per row: a power of two, lanes * groups <= 32
  int group_size = 0;         // Group: edges per neighbour group, at least 1
  int vector_width = 1;       // elements per load: 16 bytes' worth, or 1
  int vectors = 1;            // loads per lane and neighbour: 1, 2 or 4; Group: 1 or 2
  int block = 64;             // threads per block (warps per block * 32): 32 to most_threads
  int64_t split_above = 512;  // rows with more edges are cut into chunks
  int64_t chunk_edges = 256;  // edges per chunk
};

// Threads that a block of the kernel may have: of the row kernel the smallest launch bound, that of single elements.
constexpr int most_threads(Kernel kernel) { return kernel == Kernel::Row ? 256 : 512; }

// What a launch may have without asking for more, but for the kernels' own few bytes.
constexpr int64_t kMaxShared = (48 << 10) - 64;

// Elements of shared memory that a block takes. Row: one tile per warp, to combine the warps of a chunk's block. Group:
// one tile per neighbour group. A block may have up to twice as many groups as teams of lanes, because its last row may
// have one for each team.
inline int64_t shared_elements(const KernelConfig& c) {
  const int64_t tile = static_cast<int64_t>(c.lanes) * c.vectors * c.vector_width;
  return c.kernel == Kernel::Group ? tile * 2 * (c.block / c.lanes) : tile * (c.block / 32);
}

// Parameters of KernelConfig that are not left to the rules. 0, and an empty kernel, leave a parameter open.
struct Overrides {
  std::optional<Kernel> kernel;
  int lanes = 0, groups = 0, group_size = 0, vector_width = 0, vectors = 0, block = 0;
  int64_t split_above = 0, chunk_edges = 0;

  bool any() const;
  static Overrides from_vector(const std::vector<int64_t>& values);  // kernel: -1 for open
};

// Where a decision's overrides come from.
enum class OverrideSource : int { Rules = 0, Tuned = 1, ByHand = 2 };

// One launch: what it was decided from, and the outcome. On a CPU `config` does not apply.
struct Decision {
  GraphFacts graph;
  LayerFacts layer;
  DeviceFacts device;
  Overrides overrides;
  OverrideSource source = OverrideSource::Rules;
  KernelConfig config;

  std::vector<int64_t> to_vector() const;
  static Decision from_vector(const std::vector<int64_t>& values);
};

// The facts of one call of spmm.
template <typename T>
LayerFacts layer_facts(const SpmmArgs<T>& args) {
  const bool aligned = reinterpret_cast<uintptr_t>(args.x) % 16 == 0 && args.x_stride * sizeof(T) % 16 == 0;
  return {args.heads * args.head_dim, args.head_dim, sizeof(T), args.weight != nullptr, args.reduce, aligned};
}

// GraphFacts and LayerFacts as one list, as Python passes them.
struct LaunchFacts {
  GraphFacts graph;
  LayerFacts layer;
  static LaunchFacts from_vector(const std::vector<int64_t>& values);
};

// Completes `overrides` by the rules. `source` is kept for whoever reads the decision.
Decision decide(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device,
                const Overrides& overrides = {}, OverrideSource source = OverrideSource::Rules);

// Why the decision is as it is, in one sentence for people.
std::string reason_of(const Decision& decision);

// The other kernel, as it would have been launched.
std::string runner_up_of(const Decision& decision);

}  // namespace gnna
