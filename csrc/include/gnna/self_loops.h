// What layers compute from a list of edges before they aggregate: self-loops taken out and put in, and the symmetric
// normalisation. One pass over the edges each, on raw pointers.
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

// The edges that are no self-loops, all of them if `all`, in their order; returns their number. weight and out_weight
// may be nullptr.
template <typename T>
int64_t copy_edges(const EdgeList& list, bool all, const T* weight, int64_t* row, int64_t* col, T* out_weight);

// Overwrites weights [nodes] by those of the self-loops in the list: of several the last one. False if an id is not
// below `nodes`.
template <typename T>
bool take_loop_weights(const EdgeList& list, const T* weight, int64_t nodes, T* out);

// degree[i] += the weights of the edges with this id, in their order; nullptr stands for ones. False if an id is not
// below `nodes`.
template <typename T>
bool add_degrees(const int64_t* id, int64_t stride, int64_t edges, const T* weight, int64_t nodes, T* degree);

// out[e] = scale[row[e]] * weight[e] * scale[col[e]], of edges begin to end - 1.
template <typename T>
void scale_by_ends(const EdgeList& list, const T* weight, const T* scale, T* out, int64_t begin, int64_t end);

}  // namespace gnna::cpu
