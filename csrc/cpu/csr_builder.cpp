// COO to CSR on the CPU: a range check of every index, and a stable counting sort on several threads. A plan takes one
// pass over the edges for the check and two for the sort.
#include <algorithm>
#include <atomic>
#include <numeric>
#include <vector>

#include "gnna/cpu_api.h"
#include "gnna/edge_hash.h"

namespace gnna::cpu {
namespace {

// Number of edges below which one thread does the work, because waking a second one costs more than the pass itself.
constexpr int64_t kSerialEdges = 1 << 15;

int64_t task_count(int64_t edges, const Executor& executor) {
  return edges < kSerialEdges ? 1 : std::max(1, executor.threads);
}

struct Range {
  int64_t begin, end;
};

Range slice(int64_t total, int64_t tasks, int64_t task) { return {total * task / tasks, total * (task + 1) / tasks}; }

template <typename Id>
EdgeCheck check_range(const Id* row, const Id* col, Range range, int64_t rows, int64_t cols) {
  using Unsigned = std::make_unsigned_t<Id>;  // one comparison rejects negative and too large ids
  const auto row_limit = static_cast<uint64_t>(rows), col_limit = static_cast<uint64_t>(cols);
  EdgeCheck found;
  bool bad = false, unsorted = false;
  for (int64_t i = range.begin; i < range.end; ++i) {
    bad |= static_cast<Unsigned>(row[i]) >= row_limit || static_cast<Unsigned>(col[i]) >= col_limit;
    unsorted |= i > 0 && row[i - 1] > row[i];
  }
  found.unsorted = unsorted;
  if (bad) {
    for (int64_t i = range.end - 1; i >= range.begin; --i) {
      if (static_cast<Unsigned>(row[i]) >= row_limit) found.bad_row = i;
      if (static_cast<Unsigned>(col[i]) >= col_limit) found.bad_col = i;
    }
  }
  return found;
}

}  // namespace

template <typename Id>
EdgeCheck check_edges(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t cols,
                      const Executor& executor) {
  const int64_t tasks = task_count(edges, executor);
  std::vector<EdgeCheck> found(tasks);
  executor.run(tasks, [&](int64_t t) { found[t] = check_range(row, col, slice(edges, tasks, t), rows, cols); });
  EdgeCheck result;
  for (const EdgeCheck& part : found) {  // in order, so that the smallest position is reported
    if (result.bad_row < 0) result.bad_row = part.bad_row;
    if (result.bad_col < 0) result.bad_col = part.bad_col;
    result.unsorted |= part.unsorted;
  }
  return result;
}

template <typename Id>
uint64_t reversal_sum(const Id* row, const Id* col, int64_t edges, const Executor& executor) {
  const int64_t tasks = task_count(edges, executor);
  std::vector<uint64_t> sums(tasks, 0);
  executor.run(tasks, [&](int64_t t) {
    const Range range = slice(edges, tasks, t);
    uint64_t sum = 0;
    for (int64_t i = range.begin; i < range.end; ++i) sum += hash_against_reverse(row[i], col[i]);
    sums[t] = sum;
  });
  return std::accumulate(sums.begin(), sums.end(), uint64_t{0});
}

template <typename Id>
void build_csr(const Id* row, const Id* col, int64_t edges, int64_t rows, int64_t* rowptr, int32_t* out_col,
               int32_t* out_perm, const Executor& executor) {
  int64_t tasks = task_count(edges, executor);
  if (out_perm == nullptr) {
    executor.run(tasks, [&](int64_t t) {
      const Range range = slice(edges, tasks, t);
      for (int64_t i = range.begin; i < range.end; ++i) {
        out_col[i] = static_cast<int32_t>(col[i]);
        // The first edge of a row also sets the starts of the empty rows before it.
        const int64_t previous = i == 0 ? -1 : static_cast<int64_t>(row[i - 1]);
        for (int64_t r = previous + 1; r <= static_cast<int64_t>(row[i]); ++r) rowptr[r] = i;
      }
    });
    const int64_t last = edges == 0 ? -1 : static_cast<int64_t>(row[edges - 1]);
    for (int64_t r = last + 1; r <= rows; ++r) rowptr[r] = edges;
    return;
  }

  // Each task has a histogram of all rows. Uses fewer tasks if the histograms would be much larger than the edge list,
  // because clearing and scanning them would cost more than the tasks save.
  while (tasks > 1 && tasks * rows > 4 * edges) tasks /= 2;
  std::vector<int32_t> cursor(static_cast<size_t>(tasks) * rows, 0);
  executor.run(tasks, [&](int64_t t) {
    int32_t* count = cursor.data() + t * rows;
    const Range range = slice(edges, tasks, t);
    for (int64_t i = range.begin; i < range.end; ++i) ++count[row[i]];
  });
  int64_t total = 0;
  for (int64_t r = 0; r < rows; ++r) {
    rowptr[r] = total;
    for (int64_t t = 0; t < tasks; ++t) {
      int32_t& slot = cursor[t * rows + r];
      const int32_t count = slot;
      slot = static_cast<int32_t>(total);
      total += count;
    }
  }
  rowptr[rows] = total;
  executor.run(tasks, [&](int64_t t) {
    int32_t* next = cursor.data() + t * rows;
    const Range range = slice(edges, tasks, t);
    for (int64_t i = range.begin; i < range.end; ++i) {
      const int32_t slot = next[row[i]]++;
      out_col[slot] = static_cast<int32_t>(col[i]);
      out_perm[slot] = static_cast<int32_t>(i);
    }
  });
}

int64_t max_degree(const int64_t* rowptr, int64_t rows) {
  int64_t largest = 0;
  for (int64_t r = 0; r < rows; ++r) largest = std::max(largest, rowptr[r + 1] - rowptr[r]);
  return largest;
}

#define GNNA_INSTANTIATE(Id)                                                                            \
  template EdgeCheck check_edges<Id>(const Id*, const Id*, int64_t, int64_t, int64_t, const Executor&); \
  template uint64_t reversal_sum<Id>(const Id*, const Id*, int64_t, const Executor&);                   \
  template void build_csr<Id>(const Id*, const Id*, int64_t, int64_t, int64_t*, int32_t*, int32_t*, const Executor&);
GNNA_INSTANTIATE(int32_t)
GNNA_INSTANTIATE(int64_t)
#undef GNNA_INSTANTIATE

}  // namespace gnna::cpu
