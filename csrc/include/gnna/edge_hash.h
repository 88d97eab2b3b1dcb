// A hash of a directed edge, to compare an edge list with its reverse. The sum over the edges of hash(row, col) -
// hash(col, row), modulo 2^64, is 0 if every edge occurs as often as its reverse. Otherwise it is 0 with a probability
// of about 2^-64.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define GNNA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define GNNA_HOST_DEVICE inline
#endif

namespace gnna {

// splitmix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit over the whole result.
GNNA_HOST_DEVICE uint64_t mix_bits(uint64_t value) {
  uint64_t h = value + 0x9e3779b97f4a7c15u;
  h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
  h = (h ^ h >> 27) * 0x94d049bb133111ebu;
  return h ^ h >> 31;
}

// Hashes a pair of ids below 2^31.
GNNA_HOST_DEVICE uint64_t edge_hash(uint64_t from, uint64_t to) { return mix_bits(from << 32 | to); }

// Hashes an element of a list with its position. The element may use all 64 bits.
GNNA_HOST_DEVICE uint64_t element_hash(uint64_t position, uint64_t element) {
  return mix_bits(mix_bits(position) ^ element);
}

GNNA_HOST_DEVICE uint64_t hash_against_reverse(uint64_t row, uint64_t col) {
  return edge_hash(row, col) - edge_hash(col, row);
}

}  // namespace gnna
