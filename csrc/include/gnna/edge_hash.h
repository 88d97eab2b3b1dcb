// A number for each direction of an edge, by which a list of edges is compared with its reverse: the sum over the edges
// of hash(row, col) - hash(col, row) is 0 when every edge comes as often as its reverse. Otherwise it is 0 with a
// chance of 2^-64.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define GNNA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define GNNA_HOST_DEVICE inline
#endif

namespace gnna {

// splitmix64's finalizer (Steele, Lea, Flood 2014) of both ids, which are below 2^31.
GNNA_HOST_DEVICE uint64_t edge_hash(uint64_t from, uint64_t to) {
  uint64_t h = (from << 32 | to) + 0x9e3779b97f4a7c15u;
  h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
  h = (h ^ h >> 27) * 0x94d049bb133111ebu;
  return h ^ h >> 31;
}

GNNA_HOST_DEVICE uint64_t hash_against_reverse(uint64_t row, uint64_t col) {
  return edge_hash(row, col) - edge_hash(col, row);
}

}  // namespace gnna
