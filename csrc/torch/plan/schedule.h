// The schedule of one cached plan over its life: on a GPU its rows are sorted by degree once it is used again and
// again, which takes less than a millisecond; then it is watched until an order by community is expected to repay its
// cost, which is found in the background on one thread, applied by whoever calls next, compared with what was before,
// and kept or dropped. Nothing of the user's is moved and no bit of a result changes. What is expected and why:
// gnna/decide_schedule.h.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "gnna/decide_schedule.h"
#include "plan/plan.h"
#include "plan/usage.h"

namespace gnna {

struct OrderJob;
struct CommunityStore;

// For status(): what happened, what it cost (seconds), what it gained.
struct ScheduleInfo {
  int64_t rows = 0, cols = 0, edges = 0, calls = 0;
  std::string device, state, kind, reason;
  double found_in = 0, stored_in = 0;          // seconds in the background, and on a caller's thread
  double forecast = 0, before = 0, after = 0;  // gain expected of the order found; mean seconds of the calls compared
  double cold_before = 0, cold_after = 0;      // shares of gathers expected to miss the cache
  double edge_span = -1;                       // the paper's AES; -1 where unknown or rows and columns are two sets
};

class Schedule {
 public:
  // store: shared by the plans of one edge list, forward and transposed, so that communities are found once.
  Schedule(std::shared_ptr<CommunityStore> store, bool transposed);
  ~Schedule();  // gives up what is being found in the background

  // Whether advance() has something to do; cheap, asked on every call.
  bool due(const Plan& plan) const;

  // Takes the next step. replace(now, better, held) serves `better` instead of `now`, counting `held` bytes beside it,
  // and says whether the cache could; false ends it.
  using Replace = std::function<bool(const std::shared_ptr<const Plan>& now, const std::shared_ptr<const Plan>& better,
                                     int64_t held)>;
  // plan is a copy: replace() changes the caller's.
  void advance(std::shared_ptr<const Plan> plan, const PlanBuilder& builder, const Replace& replace);

  void settle(const char* state, std::string reason);  // no more steps
  ScheduleInfo info(const Plan& plan) const;
  const std::shared_ptr<CommunityStore>& store() const { return store_; }

 private:
  enum class Phase { New, Watching, Ordering, OnTrial, Settled };

  void sort(const std::shared_ptr<const Plan>& plan, const PlanBuilder& builder, const Replace& replace);
  void watch(const std::shared_ptr<const Plan>& plan, const PlanBuilder& builder);
  void apply(const std::shared_ptr<const Plan>& plan, const PlanBuilder& builder, const Replace& replace);
  void judge(const std::shared_ptr<const Plan>& plan, const Replace& replace);
  void end(const char* state, std::string reason);  // settle, with the mutex held

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
  std::shared_ptr<const Plan> before_;  // until the verdict
  Usage::Comparison comparison_;
  int checks_ = 0;  // that spoke against it
  double stored_in_ = 0;
};

std::shared_ptr<CommunityStore> make_community_store();

// Whether plans are watched at all; on at the start.
void set_auto_schedule(bool on);

}  // namespace gnna
