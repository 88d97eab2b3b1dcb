// Sorts rows by degree, stores neighbour lists in a given order, and estimates how well a cache serves an order. The
// communities come from rabbit.cpp.
#include "gnna/order.h"

#include <algorithm>
#include <cstdlib>

namespace gnna::cpu {

void degree_order(const int64_t* rowptr, int64_t rows, const int32_t* start, const int32_t* group, int32_t* out) {
  const auto row_of = [&](int64_t place) { return start ? start[place] : static_cast<int32_t>(place); };
  const auto degree_of = [&](int32_t row) { return rowptr[row + 1] - rowptr[row]; };
  std::vector<int64_t> count;
  for (int64_t begin = 0, end = 0; begin < rows; begin = end) {
    int64_t most = 0;
    for (end = begin; end < rows && (!group || group[row_of(end)] == group[row_of(begin)]); ++end)
      most = std::max(most, degree_of(row_of(end)));
    if (most > 4 * (end - begin) + 64) {  // a counting sort up to a hub's degree would take longer
      for (int64_t place = begin; place < end; ++place) out[place] = row_of(place);
      std::stable_sort(out + begin, out + end, [&](int32_t a, int32_t b) { return degree_of(a) > degree_of(b); });
      continue;
    }
    count.assign(most + 2, 0);  // becomes: count[d] is the first free place for degree most - d
    for (int64_t place = begin; place < end; ++place) ++count[most - degree_of(row_of(place)) + 1];
    for (int64_t degree = 0; degree <= most; ++degree) count[degree + 1] += count[degree];
    for (int64_t place = begin; place < end; ++place) {
      const int32_t row = row_of(place);
      out[begin + count[most - degree_of(row)]++] = row;
    }
  }
}

void community_schedule(const CsrView& csr, const Communities& communities, int64_t first_row, int32_t* out) {
  std::vector<int32_t> start;
  start.reserve(csr.rows);
  for (const int32_t node : communities.order)
    if (node >= first_row && node < first_row + csr.rows) start.push_back(static_cast<int32_t>(node - first_row));
  degree_order(csr.rowptr, csr.rows, start.data(), communities.community.data() + first_row, out);
}

void schedule_csr(const CsrView& csr, const int32_t* places, int64_t* rowptr, int32_t* col, int32_t* perm,
                  const Executor& executor) {
  rowptr[0] = 0;
  for (int64_t place = 0; place < csr.rows; ++place) {
    const int64_t row = places[place];
    rowptr[place + 1] = rowptr[place] + csr.rowptr[row + 1] - csr.rowptr[row];
  }
  const int64_t tasks = std::max(1, executor.threads);
  executor.run(tasks, [&](int64_t task) {
    // A task copies the lists that start in its share of the slots. All shares have about the same number of edges.
    const auto first = [&](int64_t t) {
      return t == tasks ? csr.rows : std::lower_bound(rowptr, rowptr + csr.rows, csr.edges * t / tasks) - rowptr;
    };
    for (int64_t place = first(task); place < first(task + 1); ++place) {
      const int64_t from = csr.rowptr[places[place]], to = rowptr[place], degree = rowptr[place + 1] - to;
      for (int64_t k = 0; k < degree; ++k) {
        col[to + k] = csr.col[from + k];
        perm[to + k] = csr.perm ? csr.perm[from + k] : static_cast<int32_t>(from + k);
      }
    }
  });
}

int64_t cold_gathers(const CsrView& csr, const int32_t* order, int64_t capacity) {
  // Approximates an LRU cache by two generations. When the younger fills half the capacity, the older is evicted.
  const int64_t half = std::max<int64_t>(capacity / 2, 1);
  std::vector<int32_t> generation(csr.cols, -2);
  int32_t now = 0;
  int64_t young = 0, cold = 0;
  for (int64_t place = 0; place < csr.rows; ++place) {
    const int64_t row = order ? order[place] : place;
    for (int64_t slot = csr.rowptr[row]; slot < csr.rowptr[row + 1]; ++slot) {
      int32_t& last = generation[csr.col[slot]];
      if (last == now) continue;
      cold += last < now - 1;
      last = now;
      if (++young == half) {
        young = 0;
        ++now;
      }
    }
  }
  return cold;
}

double average_edge_span(const CsrView& csr) {
  double total = 0;
  for (int64_t row = 0; row < csr.rows; ++row)
    for (int64_t slot = csr.rowptr[row]; slot < csr.rowptr[row + 1]; ++slot)
      total += static_cast<double>(std::abs(row - csr.col[slot]));
  return csr.edges > 0 ? total / static_cast<double>(csr.edges) : 0.0;
}

}  // namespace gnna::cpu
