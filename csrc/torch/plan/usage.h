// Counts and times the calls of one plan by kind of call, for the decisions of its schedule. Thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "gnna/types.h"

namespace gnna {

class Usage {
 public:
  // Calls of one kind have the same width, dtype, weighting and reduction, so they take about the same time.
  struct Kind {
    int64_t row_bytes = 0;
    int64_t variant = 0;  // the other properties, as a number that the caller defines
    bool operator==(const Kind& other) const { return row_bytes == other.row_bytes && variant == other.variant; }
  };

  static constexpr int kKinds = 8, kSamples = 16;

  // Counts a call and returns its number within its kind, from 1. Returns 0 if the call need not be timed: the first
  // calls read a cold plan and reorder its weights, and after close() nothing uses the times.
  int64_t count(Kind kind);
  // Ends timing, because the schedule has been settled.
  void close() { closed_.store(true, std::memory_order_relaxed); }
  void time(Kind kind, double seconds);
  int64_t calls() const { return calls_.load(std::memory_order_relaxed); }

  struct Summary {
    struct Line {
      Kind kind;
      int64_t calls = 0;
      int samples = 0;
      double typical = 0;  // seconds of a call: the lower quartile, because disturbances only slow calls. 0: none timed
    };
    std::array<Line, kKinds> lines;
    int kinds = 0;
    int64_t calls = 0;
    double seconds = 0;         // of all calls: for each kind, calls x typical
    int64_t longest_bytes = 0;  // row_bytes of the kind that took most time
  };
  Summary summary() const;

  // Compares the times of kinds that have at least `least` timed calls in both summaries. Kinds are weighted by their
  // calls in `before`.
  struct Comparison {
    int kinds = 0;                 // that were compared; 0 if none has enough timed calls
    double before = 0, after = 0;  // mean seconds of a call
  };
  static Comparison compare(const Summary& before, const Summary& after, int least);

 private:
  struct Record {
    Kind kind;
    int64_t calls = 0;
    int64_t timed = 0;
    std::array<float, kSamples> samples{};  // seconds of the latest timed calls, a ring
  };
  Record* find(Kind kind);  // nullptr if all kKinds are taken; the mutex is held

  mutable std::mutex mutex_;
  std::array<Record, kKinds> records_;
  int kinds_ = 0;
  std::atomic<int64_t> calls_{0};
  std::atomic<bool> closed_{false};
};

template <typename T>
Usage::Kind kind_of(const SpmmArgs<T>& args) {
  const int64_t weights = args.weight ? args.heads : 0;
  return {args.heads * args.head_dim * static_cast<int64_t>(sizeof(T)),
          weights * 4 + static_cast<int64_t>(args.reduce)};
}

}  // namespace gnna
