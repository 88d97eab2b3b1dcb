// The decider: facts of graph, layer and device in, a kernel configuration and the reason out. One pure function, the
// same for the run time and for whoever asks why. Sources: GNNAdvisor (OSDI 2021) and timings on an H200.
#pragma once

#include <cstdint>
#include <string>

#include "gnna/types.h"

namespace gnna {

struct GraphFacts {
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t edges = 0;
  int64_t max_degree = 0;
};

struct LayerFacts {
  int64_t width = 0;     // heads * head_dim elements in a feature row
  int64_t head_dim = 0;  // elements that share one weight
  int64_t itemsize = 4;  // bytes of an element
  bool weighted = false;
  bool aligned = true;  // x, out and every row of them start on 16 bytes
  Reduce reduce = Reduce::Sum;
};

struct DeviceFacts {
  bool cuda = false;
  int64_t processors = 1;  // streaming multiprocessors, or threads on a CPU
  int64_t l2_bytes = 0;
};

// The row kernel on CUDA. `lanes` threads are the dimension workers (dw) of one neighbour group; `groups` neighbour
// groups share a row; a lane holds `vectors` pieces of `vector_width` elements in registers. A row wider than the
// product of lanes, vectors and vector_width is processed in column tiles of that size, which must be 4 elements at
// least, or the whole width. Where items are cut, warps meet in shared memory: block / 32 tiles of what the kernel
// computes in (float for the 16-bit types) must fit 48 KiB.
struct RowConfig {
  int lanes = 32;            // dw: a power of two, at most 32
  int groups = 1;            // neighbour groups per row: a power of two, lanes * groups <= 32
  int vector_width = 1;      // elements per load: 16 bytes' worth, or 1
  int vectors = 1;           // loads per lane and neighbour: 1, 2 or 4
  int block = 64;            // threads per block (warps per block * 32): 32 to 512
  int64_t long_row = 512;    // rows with more edges are cut into items
  int64_t item_edges = 256;  // edges per item
};

struct Decision {
  RowConfig config;
  std::string reason;
};

// Which rows are cut, and how finely: a matter of the graph and the device alone, so that a plan holds one list of
// items.
void decide_cut(const GraphFacts& graph, const DeviceFacts& device, int64_t* long_row, int64_t* item_edges);

// explain = false leaves the reason empty: launches need none, and composing it costs more than the rules themselves.
Decision decide(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device, bool explain = true);

}  // namespace gnna
