// Orders of a graph's nodes by community (Rabbit order) and by degree. A schedule uses them for the order in which a
// plan's rows are processed, renumbering to move the nodes themselves. Functions on raw pointers, without torch. The
// result does not depend on the number of threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "gnna/cpu_api.h"

namespace gnna::cpu {

struct Communities {
  std::vector<int32_t> order;      // [nodes] the node at each place; a community is contiguous
  std::vector<int32_t> community;  // [nodes] community of each node, numbered 0 .. count - 1 along the order
  int32_t count = 0;
};

// Rabbit order (Arai et al., IPDPS 2016). In ascending order of degree, each node joins the neighbouring community with
// the highest gain in modularity. The resulting dendrograms are numbered depth first. Edge directions and self-loops
// are ignored, and repeated edges count each time. Nodes without edges come last, each as its own community. If csr has
// different numbers of rows and columns, they are two sets of nodes: column c is then node csr.rows + c.
//
// If *stop becomes true, which may happen at any time, the function returns an empty result early.
Communities rabbit_order(const CsrView& csr, const Executor& executor, const std::atomic<bool>* stop = nullptr);

// Sorts rows by descending degree. Rows of equal degree keep their order.
//   rowptr [rows + 1]: of a plan without an order.
//   start [rows]: the row at each place before the sort; nullptr means ascending rows.
//   group [rows]: the group of each row, contiguous along start. Rows stay in their group. nullptr means one group.
//   out [rows]: the row at each place after the sort.
void degree_order(const int64_t* rowptr, int64_t rows, const int32_t* start, const int32_t* group, int32_t* out);

// Orders rows by community, and inside a community by descending degree. Rows of equal degree are in Rabbit order.
//   first_row: row r of csr is node first_row + r of the communities. It is the number of rows of the CSR form that the
//     communities were found on, if csr is its transpose and its rows and columns are two sets of nodes. Otherwise 0.
//   out [rows]: the row at each place.
void community_schedule(const CsrView& csr, const Communities& communities, int64_t first_row, int32_t* out);

// Copies csr's neighbour lists in another order: list p of the result is the list at place places[p] of csr, whatever
// csr.order is. Edges keep their order inside a list. places [rows]; outputs rowptr [rows + 1], col and perm [edges].
void schedule_csr(const CsrView& csr, const int32_t* places, int64_t* rowptr, int32_t* col, int32_t* perm,
                  const Executor& executor);

// Returns how many gathers miss a cache of `capacity` feature rows if rows are processed in this order (nullptr:
// ascending). The modelled cache holds the most recently gathered columns, between half of its capacity and all of it.
// The first gather of a column always misses. csr must be without an order.
int64_t cold_gathers(const CsrView& csr, const int32_t* order, int64_t capacity);

// Returns the mean of |row - column| over the edges. If rows and columns are the same nodes, this is the paper's
// average edge span. csr must be without an order.
double average_edge_span(const CsrView& csr);

}  // namespace gnna::cpu
