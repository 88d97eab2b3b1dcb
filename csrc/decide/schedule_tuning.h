// The data of the schedule's rules, read by schedule.cpp. Each entry names the table of docs/tuning.md that set it.
#pragma once

#include <cstdint>

namespace gnna {

struct ScheduleTuning {
  // CUDA, bytes per second: gathers that hit L2, that miss it, and that miss it in rows of up to `short_row` bytes
  // (S1).
  double hit = 8.2e12, miss = 4.15e12, miss_short = 2.6e12;
  int64_t short_row = 64;

  // CPU: the extra time of a miss as a share of a hit's, in rows of up to `short_row` bytes and in longer ones; the
  // factor that processing rows in another order costs; and the cache in units of L2, because communities also save L3
  // and TLB misses (S2).
  double cpu_miss_short = 0.35, cpu_miss = 1.0, cpu_overhead = 1.1;
  int64_t cpu_caches = 4;

  // CUDA, uneven degrees: rows by descending degree, over the whole graph if rows of x of `sorted_row` bytes fit L2,
  // otherwise in windows of so many rows, which keep the locality of the ids (S3).
  int64_t window = 1024, sorted_row = 256;

  // Expected gain of a community order before the communities are known (S4).
  double community_gain = 1.25;

  // Seconds per edge: Rabbit order on one thread, storing a plan in another order on a CPU, and moving the edges to the
  // host, which is all that a GPU's caller waits for; seconds per plan for the order's way back (S5; the last two are
  // estimates).
  double rabbit = 1.2e-7, store = 1e-8, download = 1.5e-9, upload = 5e-4;
};

constexpr ScheduleTuning kScheduleTuning{};

}  // namespace gnna
