// The schedule's rules. Their data is in schedule_tuning.h, and the timings behind it in docs/tuning.md.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "gnna/decide_schedule.h"
#include "schedule_tuning.h"

namespace gnna {

namespace {

constexpr const ScheduleTuning& tuning = kScheduleTuning;

double transfer_seconds(const ScheduleFacts& f, double cold) {
  const double bytes = static_cast<double>(f.row_bytes);
  const double miss = f.row_bytes <= tuning.short_row ? tuning.miss_short : tuning.miss;
  const double gathered =
      static_cast<double>(f.graph.edges) * bytes * (1 / tuning.hit + cold * (1 / miss - 1 / tuning.hit));
  const double streamed =
      (static_cast<double>(f.graph.rows) * bytes + static_cast<double>(f.graph.edges) * 4) / tuning.miss;
  return gathered + streamed;
}

std::string text(const char* format, double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

std::string mebibytes(double bytes) { return text("%.1f MiB", bytes / (1 << 20)); }

double cache_bytes(const DeviceFacts& device) {
  return static_cast<double>(device.l2_bytes) * (device.cuda ? 1 : tuning.cpu_caches);
}

}  // namespace

int64_t degree_window(const GraphFacts& graph, const DeviceFacts& device) {
  if (!device.cuda || is_tiny(graph.rows, device) || !uneven_degrees(graph)) return 0;
  return graph.cols * tuning.sorted_row <= device.l2_bytes ? graph.rows : std::min(tuning.window, graph.rows);
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
  const double miss = facts.row_bytes <= tuning.short_row ? tuning.cpu_miss_short : tuning.cpu_miss;
  return (1 + miss * cold_before) / (1 + miss * cold_after) / tuning.cpu_overhead;
}

std::string describe_default_order(const GraphFacts& graph, const DeviceFacts& device) {
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
    choice.gain = tuning.community_gain;
    const double found = facts.communities_known ? 0 : tuning.rabbit * edges;
    choice.cost = cuda ? tuning.download * edges + tuning.upload : found + tuning.store * edges;
  } else if (window > 0) {
    choice.kind = ScheduleKind::Degree;
  }
  choice.repays = !fits && facts.seconds * (1 - 1 / choice.gain) >= choice.cost;
  if (!explain) return choice;
  const std::string sizes = mebibytes(features) + " of features " + (fits ? "fit" : "exceed") + " the cache of " +
                            mebibytes(cache_bytes(facts.device));
  const std::string kept = describe_default_order(facts.graph, facts.device);
  if (fits) {
    choice.reason = kept + ", because " + sizes;
    return choice;
  }
  choice.reason = kept + ", by community once that pays, because " + sizes + "; expected " +
                  text("%.2fx", choice.gain) + " for " + text("%.1f ms", choice.cost * 1e3);
  if (facts.calls > 0 && facts.seconds > 0) {
    const double per_call = facts.seconds / static_cast<double>(facts.calls);
    choice.reason += ", repaid after " + text("%.0f", std::ceil(choice.cost / (per_call * (1 - 1 / choice.gain)))) +
                     " calls; so far " + std::to_string(facts.calls) + " of " + text("%.3f ms", per_call * 1e3);
  }
  return choice;
}

}  // namespace gnna
