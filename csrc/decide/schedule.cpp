// The schedule's rules. On CUDA from timings of a prototype on an H200 (fp32 sums, synthetic and real graphs, ids as
// given and shuffled); on CPUs from benchmarks/schedule.py on two cores of an AMD EPYC with AVX-512, 2026-11-20.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "gnna/decide_schedule.h"

namespace gnna {

namespace {

// CUDA: bytes a second of gathers that hit L2, that miss it, and that miss it in rows of up to 64 bytes (H200, measured
// with random rows). With these and the misses that cold_gathers counts, com-dblp's gains by communities come out at
// 1.07, 1.14 (own ids, width 64, 128) and 1.14, 1.24 (shuffled), where 1.07, 1.16, 1.13 and 1.34 were measured; DD's,
// shuffled, at 1.27 and 1.37 instead of 1.43 and 1.56.
constexpr double kHit = 8.2e12, kMiss = 4.15e12, kMissShort = 2.6e12;
constexpr int64_t kShortRow = 64;
// CPU: what a miss takes beyond a hit, as a share of a hit, for a cache of four times L2 (beyond L2 it is L3 and the
// reach of the TLB that communities save), in rows of up to 64 bytes and in longer ones, and what the order itself
// costs (the rows' numbers, results stored here and there, ids read through perm). Forecast / measured, shuffled, width
// 16: com-dblp 1.05 / 0.98, DD 1.11 / 1.14, cnr-2000 1.08 / 1.10, amazon0601's stand-in 1.06 / 1.13; width 64: 1.34
// / 1.23, 1.49 / 2.43, 1.28 / 1.34, 1.27 / 1.50; width 128: 1.31 / 1.45, 1.50 / 2.53, 1.26 / 2.07, 1.21 / 1.64. Where
// local ids lost (facebook-links 0.91, cnr-2000 0.95, the stand-in 0.91) it says less than 1.05.
constexpr double kCpuMissShort = 0.35, kCpuMiss = 1.0, kCpuOverhead = 1.1;
constexpr int64_t kCpuCaches = 4;
// CUDA, degrees uneven (H200, widths 16 / 64 / 128): all rows by degree against ascending ones 1.15 / 1.25 / 1.21 on
// pubmed, 1.23 / 1.16 / 1.14 on BlogCatalog3, 1.24 / 1.21 / 1.11 on musae-github, 1.19 / 1.08 / 0.98 on facebook-links,
// 1.18 / 1.15 / 1.12 on fb100-Cornell5; with more rows than L2 serves 1.14 / 0.85 / 0.74 on amazon0601's stand-in,
// where windows of 1024 rows keep what locality the ids have: 1.11 / 1.10 / 1.05 there, 1.17 / 1.23 / 1.11 on com-dblp,
// 1.01 / 1.02 / 1.01 on cnr-2000. Even degrees gain nothing (DD 0.95 / 1.02 / 1.03), nor do graphs that fill less than
// a wave (cora 1.00 / 0.95 / 0.92).
constexpr int64_t kWindow = 1024, kSortedRow = 256;
// Expected of communities before they are known. CPU: 1.2 to 1.7 on shuffled ids, 1.0 to 1.3 on com-dblp's own; H200:
// 1.2 to 2.4 on shuffled ids.
constexpr double kCommunityGain = 1.25;
// Seconds an edge. Rabbit order on one thread: 13 to 28 M edges a second on graphs stored both ways, 6 on a directed
// one (2026-11-20, the CPU above). Storing a plan anew on the same CPU: 5 to 10 ns an edge. On a GPU only what stops
// the caller counts: the lists' way to the host, the order's way back and one kernel (an estimate).
constexpr double kRabbit = 1.2e-7, kStore = 1e-8, kDownload = 1.5e-9, kUpload = 5e-4;

double transfer_seconds(const ScheduleFacts& f, double cold) {
  const double bytes = static_cast<double>(f.row_bytes);
  const double miss = f.row_bytes <= kShortRow ? kMissShort : kMiss;
  const double gathered = static_cast<double>(f.graph.edges) * bytes * (1 / kHit + cold * (1 / miss - 1 / kHit));
  const double streamed = (static_cast<double>(f.graph.rows) * bytes + static_cast<double>(f.graph.edges) * 4) / kMiss;
  return gathered + streamed;
}

std::string text(const char* format, double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

std::string mebibytes(double bytes) { return text("%.1f MiB", bytes / (1 << 20)); }

double cache_bytes(const DeviceFacts& device) {
  return static_cast<double>(device.l2_bytes) * (device.cuda ? 1 : kCpuCaches);
}

}  // namespace

int64_t degree_window(const GraphFacts& graph, const DeviceFacts& device) {
  if (!device.cuda || is_tiny(graph.rows, device) || !uneven_degrees(graph)) return 0;
  return graph.cols * kSortedRow <= device.l2_bytes ? graph.rows : std::min(kWindow, graph.rows);
}

const char* name_of(ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::Ascending:
      return "ascending";
    case ScheduleKind::Degree:
      return "degree";
    case ScheduleKind::Community:
      return "community";
    case ScheduleKind::ByHand:
      return "by hand";
  }
  return "";
}

int64_t cached_rows(const DeviceFacts& device, int64_t row_bytes) {
  return static_cast<int64_t>(cache_bytes(device)) / std::max<int64_t>(row_bytes, 1);
}

double forecast_gain(const ScheduleFacts& facts, double cold_before, double cold_after) {
  if (facts.device.cuda) return transfer_seconds(facts, cold_before) / transfer_seconds(facts, cold_after);
  const double miss = facts.row_bytes <= kShortRow ? kCpuMissShort : kCpuMiss;
  return (1 + miss * cold_before) / (1 + miss * cold_after) / kCpuOverhead;
}

std::string as_kept(const GraphFacts& graph, const DeviceFacts& device) {
  const int64_t window = degree_window(graph, device);
  if (window == 0) return "rows ascend";
  return window < graph.rows ? "rows by degree in windows of " + std::to_string(window) : "rows by degree";
}

ScheduleChoice choose_schedule(const ScheduleFacts& facts, bool explain) {
  ScheduleChoice choice;
  const auto edges = static_cast<double>(facts.graph.edges);
  const double features = static_cast<double>(facts.graph.cols) * static_cast<double>(facts.row_bytes);
  const bool cuda = facts.device.cuda, fits = features <= cache_bytes(facts.device);
  const int64_t window = degree_window(facts.graph, facts.device);
  if (!fits) {
    choice.kind = ScheduleKind::Community;
    choice.gain = kCommunityGain;
    const double found = facts.communities_known ? 0 : kRabbit * edges;
    choice.cost = cuda ? kDownload * edges + kUpload : found + kStore * edges;
  } else if (window > 0) {
    choice.kind = ScheduleKind::Degree;
  }
  choice.repays = !fits && facts.seconds * (1 - 1 / choice.gain) >= choice.cost;
  if (!explain) return choice;
  const std::string sizes = mebibytes(features) + " of features, the cache " + mebibytes(cache_bytes(facts.device));
  const std::string kept = as_kept(facts.graph, facts.device);
  if (fits) {
    choice.reason = kept + ": " + sizes;
    return choice;
  }
  choice.reason = kept + ", by community once that pays: " + sizes + "; expected " + text("%.2fx", choice.gain) +
                  " for " + text("%.1f ms", choice.cost * 1e3);
  if (facts.calls > 0 && facts.seconds > 0) {
    const double per_call = facts.seconds / static_cast<double>(facts.calls);
    choice.reason += ", repaid after " + text("%.0f", std::ceil(choice.cost / (per_call * (1 - 1 / choice.gain)))) +
                     " calls; so far " + std::to_string(facts.calls) + " of " + text("%.3f ms", per_call * 1e3);
  }
  return choice;
}

bool paper_renumbers(double average_edge_span, int64_t nodes) {
  return std::sqrt(average_edge_span) > std::floor(std::sqrt(static_cast<double>(nodes)) / 100);
}

}  // namespace gnna
