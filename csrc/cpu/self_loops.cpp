// Self-loops and the symmetric normalisation, in one sequential pass over the edges per function.
#include "gnna/self_loops.h"

namespace gnna::cpu {
namespace {

bool below(int64_t id, int64_t limit) { return static_cast<uint64_t>(id) < static_cast<uint64_t>(limit); }

}  // namespace

int64_t count_self_loops(const EdgeList& list) {
  int64_t loops = 0;
  for (int64_t e = 0; e < list.edges; ++e) loops += list.row[e * list.stride] == list.col[e * list.stride];
  return loops;
}

template <typename T>
int64_t copy_edges(const EdgeList& list, bool all, const T* weight, int64_t* row, int64_t* col, T* out_weight) {
  int64_t kept = 0;
  for (int64_t e = 0; e < list.edges; ++e) {
    const int64_t from = list.row[e * list.stride], to = list.col[e * list.stride];
    if (!all && from == to) continue;
    row[kept] = from;
    col[kept] = to;
    if (weight != nullptr) out_weight[kept] = weight[e];
    ++kept;
  }
  return kept;
}

template <typename T>
bool take_loop_weights(const EdgeList& list, const T* weight, int64_t nodes, T* out) {
  for (int64_t e = 0; e < list.edges; ++e) {
    const int64_t node = list.row[e * list.stride];
    if (node != list.col[e * list.stride]) continue;
    if (!below(node, nodes)) return false;
    out[node] = weight[e];
  }
  return true;
}

template <typename T>
bool add_degrees(const int64_t* id, int64_t stride, int64_t edges, const T* weight, int64_t nodes, T* degree) {
  for (int64_t e = 0; e < edges; ++e) {
    const int64_t node = id[e * stride];
    if (!below(node, nodes)) return false;
    degree[node] += weight == nullptr ? T(1) : weight[e];
  }
  return true;
}

template <typename T>
void scale_by_ends(const EdgeList& list, const T* weight, const T* scale, T* out, int64_t begin, int64_t end) {
  for (int64_t e = begin; e < end; ++e) {
    const T first = scale[list.row[e * list.stride]];
    out[e] = (weight == nullptr ? first : first * weight[e]) * scale[list.col[e * list.stride]];
  }
}

#define GNNA_INSTANTIATE(T)                                                                \
  template int64_t copy_edges<T>(const EdgeList&, bool, const T*, int64_t*, int64_t*, T*); \
  template bool take_loop_weights<T>(const EdgeList&, const T*, int64_t, T*);              \
  template bool add_degrees<T>(const int64_t*, int64_t, int64_t, const T*, int64_t, T*);   \
  template void scale_by_ends<T>(const EdgeList&, const T*, const T*, T*, int64_t, int64_t);
GNNA_INSTANTIATE(float)
GNNA_INSTANTIATE(double)
#undef GNNA_INSTANTIATE

}  // namespace gnna::cpu
