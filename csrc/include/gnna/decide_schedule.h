// Whether a plan's rows should be processed in another order, and when that is expected to repay its cost. Pure
// functions of facts, like the decider's (decide.h).
#pragma once

#include <cstdint>
#include <string>

#include "gnna/decide.h"

namespace gnna {

enum class ScheduleKind : int { Ascending, Degree, Community, ByHand };

// How a plan's rows are kept from its second call on: 0 ascending, otherwise by descending degree inside windows of so
// many rows, so that rows that run beside each other end together.
int64_t degree_window(const GraphFacts& graph, const DeviceFacts& device);
// The same in words: "rows ascend", "rows by degree", "rows by degree in windows of 1024".
std::string describe_default_order(const GraphFacts& graph, const DeviceFacts& device);

struct ScheduleFacts {
  GraphFacts graph;
  DeviceFacts device;     // l2_bytes on a CPU: of one core
  int64_t row_bytes = 0;  // a feature row of the calls that took longest
  int64_t calls = 0;      // of the plan so far
  double seconds = 0;     // that they took together
  bool communities_known = false;
};

struct ScheduleChoice {
  ScheduleKind kind = ScheduleKind::Ascending;  // Degree: that it stays as degree_window says
  bool repays = false;                          // had it been in force all along, it would have saved its cost by now
  double gain = 1;                              // expected: time before / time after
  double cost = 0;                              // seconds, expected
  std::string reason;
};

// What to build, before anything is known of the graph's communities. How often a plan will still be used nobody knows;
// as often again as it has been is the guess that never costs more than twice the best choice. explain = false leaves
// the reason empty.
ScheduleChoice choose_schedule(const ScheduleFacts& facts, bool explain = true);

// Feature rows that the cache in question holds: what cold_gathers (order.h) is to be asked for.
int64_t cached_rows(const DeviceFacts& device, int64_t row_bytes);

// Time before / time after, expected from the shares of gathers that miss this cache.
double forecast_gain(const ScheduleFacts& facts, double cold_before, double cold_after);

// Below this forecast a schedule that has been found is not applied.
constexpr double kLeastGain = 1.05;

const char* name_of(ScheduleKind kind);

}  // namespace gnna
