// What layers compute from an edge list before they aggregate: self-loops removed or added, and the symmetric
// normalisation. Functions on raw pointers, each with one pass over the edges.
#pragma once

#include <cstdint>

namespace gnna::cpu {

// Row ids and column ids of edges, `stride` elements apart.
struct EdgeList {
  const int64_t* row;
  const int64_t* col;
  int64_t stride;
  int64_t edges;
};

int64_t count_self_loops(const EdgeList& list);

// Copies the edges that are not self-loops, or all edges if `all`, in their order. Returns their number. weight and
// out_weight [edges] may both be nullptr.
template <typename T>
int64_t copy_edges(const EdgeList& list, bool all, const T* weight, int64_t* row, int64_t* col, T* out_weight);

// Overwrites out [nodes] with the weights of the self-loops in the list. The last of several loops of a node counts.
// Returns false if the id of a self-loop is out of range.
template <typename T>
bool take_loop_weights(const EdgeList& list, const T* weight, int64_t nodes, T* out);

// Adds weight[e] of every edge e to degree[id[e * stride]], in the order of the edges. A nullptr weight means ones.
// Returns false if an id is out of range [0, nodes).
template <typename T>
bool add_degrees(const int64_t* id, int64_t stride, int64_t edges, const T* weight, int64_t nodes, T* degree);

// out[e] = scale[row[e]] * weight[e] * scale[col[e]] for edges begin to end - 1. A nullptr weight means ones.
template <typename T>
void scale_by_ends(const EdgeList& list, const T* weight, const T* scale, T* out, int64_t begin, int64_t end);

}  // namespace gnna::cpu
