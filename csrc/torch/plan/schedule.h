// Manages the order of one cached plan's rows (its schedule):
//  1. On a GPU, the rows are sorted by degree after a few calls, which takes less than a millisecond.
//  2. Calls are counted and timed until an order by community is expected to repay its cost (gnna/decide_schedule.h).
//  3. The background thread finds that order, and the next call applies it.
//  4. Later calls are compared with those before. The order is kept or dropped.
// The user's tensors are not moved, and results are bit-identical.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "gnna/decide_schedule.h"
#include "plan/builder.h"
#include "plan/plan.h"
#include "plan/usage.h"

namespace gnna {

struct OrderJob;
struct CommunityStore;

// The state, cost and gain of a schedule, for status(). Times are in seconds.
struct ScheduleInfo {
  int64_t rows = 0, cols = 0, edges = 0, calls = 0;
  std::string device, state, kind, reason;
  double found_in = 0, stored_in = 0;          // on the background thread, and on threads of callers
  double forecast = 0, before = 0, after = 0;  // expected gain; mean times of the compared calls
  double cold_before = 0, cold_after = 0;      // shares of gathers that are expected to miss the cache
  double edge_span = -1;                       // the paper's AES; -1 if unknown or for two sets of nodes
};

// Thread-safe. due() and advance() do not wait for another thread that is in advance().
class Schedule {
 public:
  // store: shared by the forward and the transposed plan of an edge list, so that communities are found once.
  Schedule(std::shared_ptr<CommunityStore> store, bool transposed);
  ~Schedule();  // asks the background task to stop

  // Returns whether advance() has a step to take. Cheap, because it runs on every call.
  bool due(const Plan& plan) const;

  // Makes the cache use `better` instead of `now`, counting `held` more bytes for it. Returns false if it cannot.
  using Replace = std::function<bool(const std::shared_ptr<const Plan>& now, const std::shared_ptr<const Plan>& better,
                                     int64_t held)>;
  // Takes the next step. plan is passed by value, because replace() changes the caller's pointer.
  void advance(std::shared_ptr<const Plan> plan, const PlanBuilder& builder, const Replace& replace);

  void settle(const char* state, std::string reason);  // takes no more steps
  ScheduleInfo info(const Plan& plan) const;
  const std::shared_ptr<CommunityStore>& store() const { return store_; }

 private:
  enum class Phase { New, Watching, Ordering, OnTrial, Settled };

  // The following are called with the mutex held.
  bool is_step_due(const Plan& plan) const;
  void sort(const std::shared_ptr<const Plan>& plan, const PlanBuilder& builder, const Replace& replace);
  void watch(const std::shared_ptr<const Plan>& plan, const PlanBuilder& builder);
  void apply(const std::shared_ptr<const Plan>& plan, const PlanBuilder& builder, const Replace& replace);
  void judge(const std::shared_ptr<const Plan>& plan, const Replace& replace);
  void end(const char* state, std::string reason);  // as settle()

  mutable std::mutex mutex_;
  Phase phase_ = Phase::New;
  const char* state_ = "watching";
  std::string reason_;
  int64_t next_check_;
  ScheduleChoice choice_;
  std::shared_ptr<CommunityStore> store_;
  bool transposed_;
  std::shared_ptr<OrderJob> job_;
  Usage::Summary usage_before_;
  std::shared_ptr<const Plan> before_;  // the plan before the trial, until it is judged
  Usage::Comparison comparison_;
  int checks_ = 0;  // comparisons that rejected the schedule
  double stored_in_ = 0;
};

std::shared_ptr<CommunityStore> make_community_store();

// Turns automatic schedules on or off for the process. They are on by default.
void set_auto_schedule(bool on);

}  // namespace gnna
