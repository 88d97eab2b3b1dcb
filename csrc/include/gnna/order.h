// Orders of a graph's nodes: by community (Rabbit order) and by degree. What they serve: a schedule, which says which
// row of a plan is processed when, and renumbering, which moves the nodes themselves. Functions on raw pointers, free
// of torch; the same graph gives the same order on any number of threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "gnna/cpu_api.h"

namespace gnna::cpu {

struct Communities {
  std::vector<int32_t> order;      // [nodes] the node at each place; members of a community are neighbours in it
  std::vector<int32_t> community;  // [nodes] each node's community, numbered 0 .. count - 1 along the order
  int32_t count = 0;
};

// Rabbit order (Arai et al., IPDPS 2016): nodes are visited by ascending degree, each joins the neighbouring community
// that gains most modularity, and the resulting dendrograms are numbered depth first. Directions are ignored, repeated
// edges weigh as often as they occur, loops nothing; nodes without edges come last, each its own community. Where csr's
// rows and columns differ in number they are two sets of nodes, and rows come before columns in the numbering.
//
// *stop, where given, may become true at any time and ends the work early with an empty result.
Communities rabbit_order(const CsrView& csr, const Executor& executor, const std::atomic<bool>* stop = nullptr);

// Places by descending degree; places of one degree keep their order. start [rows] is the row at each place to begin
// with (nullptr: ascending), group [rows] the group of every row, ascending along start, which rows do not leave
// (nullptr: one group). rowptr belongs to a plan without an order. out [rows].
void degree_order(const int64_t* rowptr, int64_t rows, const int32_t* start, const int32_t* group, int32_t* out);

// The schedule by communities: rows community after community, inside one by descending degree (and in Rabbit order
// where that is equal). Row r is node first_row + r of the communities: 0, or, for the columns' side of a plan whose
// rows and columns are two sets, the number of rows there. out [rows].
void community_schedule(const CsrView& csr, const Communities& communities, int64_t first_row, int32_t* out);

// The same neighbour lists stored in another order: places [rows] says where in csr each now comes from, whatever row
// that is. rowptr [rows + 1], col [edges] and perm [edges]; edges keep their order inside a row.
void schedule_csr(const CsrView& csr, const int32_t* places, int64_t* rowptr, int32_t* col, int32_t* perm,
                  const Executor& executor);

// How many gathers miss a cache of `capacity` feature rows when rows are processed in an order (nullptr: ascending):
// the cache keeps what was gathered since half to all of its capacity ago. The first gather of a column always misses.
int64_t cold_gathers(const CsrView& csr, const int32_t* order, int64_t capacity);

// Mean of |row - column| over the edges: the paper's average edge span, where rows and columns are the same nodes.
double average_edge_span(const CsrView& csr);

}  // namespace gnna::cpu
