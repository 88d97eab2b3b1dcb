// How often the calls of one plan came and how long they took, by kind of call: what the schedule's decision and its
// verdict rest on. Safe from several threads.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "gnna/types.h"

namespace gnna {

class Usage {
 public:
  // One kind: calls of one width, dtype, weighting and reduction take the same time.
  struct Kind {
    int64_t row_bytes = 0;
    int64_t variant = 0;  // what else tells kinds apart, as the caller numbers it
    bool operator==(const Kind& other) const { return row_bytes == other.row_bytes && variant == other.variant; }
  };

  static constexpr int kKinds = 8, kSamples = 16;

  // Counts a call and returns its number among its kind, from 1; 0 where its time is of no use: the first ones read a
  // cold plan and gather its weights anew, and nobody asks once the plan's schedule is settled.
  int64_t count(Kind kind);
  void close() { closed_.store(true, std::memory_order_relaxed); }
  void time(Kind kind, double seconds);
  int64_t calls() const { return calls_.load(std::memory_order_relaxed); }

  struct Summary {
    struct Line {
      Kind kind;
      int64_t calls = 0;
      int samples = 0;
      double typical = 0;  // seconds of a call, the lower quartile: others only ever make it slower. 0: none was timed
    };
    std::array<Line, kKinds> lines;
    int kinds = 0;
    int64_t calls = 0;
    double seconds = 0;         // all calls, those not timed as is typical of their kind
    int64_t longest_bytes = 0;  // row bytes of the kind that took most time
  };
  Summary summary() const;

  // Seconds of the same calls before and after: kinds with at least `least` timed calls on both sides, weighted by the
  // calls before. kinds = 0: there are none yet.
  struct Comparison {
    int kinds = 0;
    double before = 0, after = 0;  // mean seconds of a call
  };
  static Comparison compare(const Summary& before, const Summary& after, int least);

 private:
  struct Record {
    Kind kind;
    int64_t calls = 0;
    int64_t timed = 0;
    std::array<float, kSamples> samples{};  // the latest
  };
  Record* find(Kind kind);  // nullptr when there are more kinds than places; the mutex is held

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
