// The steps of a schedule (schedule.h), and the background task that finds an order.
#include "plan/schedule.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>

#include "gnna/order.h"
#include "plan/background.h"

namespace gnna {
namespace {

// Calls before rows are sorted by degree. This is as many as the layers of a usual model, so that a sampled batch,
// which is used for one pass, is not sorted. It is fewer than three steps of two layers make, because CUDA graphs are
// usually captured after these.
constexpr int64_t kUsedAgain = 5;
// kFirstCheck: calls before the first decision, and the least calls between two checks. kCallsPerKind: calls before a
// schedule on trial is judged, times the kinds of calls. kMostTrialCalls: calls after which a trial ends without times.
constexpr int64_t kFirstCheck = 8, kCallsPerKind = 16, kMostTrialCalls = 200;
constexpr int kChecks = 3;  // comparisons that must reject a schedule, because other load can look like a slowdown
constexpr int kLeastSamples = 4;  // timed calls of a kind, before and after, that a comparison needs
// A schedule is kept from this measured gain on. Smaller gains are within the scatter of the timings.
constexpr double kKeep = 1.02;

std::atomic<bool> automatic{true};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string text(const char* format, double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

// Sorts the rows of an ascending plan by descending degree inside windows of `window` rows. Rows of equal degree
// ascend. Degrees from 1023 on count as equal, because long rows are split. This keeps the sort key below 2^31.
at::Tensor degree_order(const Plan& plan, int64_t window) {
  constexpr int64_t kRanks = 1024;
  const at::Tensor rank = kRanks - 1 - plan.degrees().clamp_max_(kRanks - 1);
  const at::Tensor of_row = at::arange(plan.rows, rank.options()).div_(window, "floor").mul_(kRanks);
  return at::argsort(of_row.add_(rank).to(at::kInt), /*stable=*/true).to(at::kInt);
}

}  // namespace

// The communities of one edge list. Written once, by the background thread, and read by any thread.
struct CommunityStore {
  struct Found {
    cpu::Communities communities;
    int64_t rows, cols;
    bool transposed;  // whether they were found on the transposed plan
  };
  std::atomic<const Found*> found{nullptr};
  ~CommunityStore() { delete found.load(); }
};

std::shared_ptr<CommunityStore> make_community_store() { return std::make_shared<CommunityStore>(); }

void set_auto_schedule(bool on) { automatic = on; }

// Finds an order for one plan's rows. After the task is queued, only the background thread accesses its members, except
// `owner`, `stop` and `done`. Once `done` is true, other threads may access the results.
struct OrderJob : BackgroundTask {
  ScheduleFacts facts;
  at::Tensor rowptr, col;  // of the plan with ascending rows, on the host
  std::shared_ptr<CommunityStore> store;
  bool transposed = false;
  const pid_t owner = getpid();

  std::vector<int32_t> order;  // empty if no order is worth its cost; `reason` says why
  std::string reason;
  double seconds = 0, forecast = 0, cold_before = 0, cold_after = 0, edge_span = -1;
  std::atomic<bool> stop{false}, done{false};

  void give_up() override { stop = true; }

  void run() override {
    const auto start = std::chrono::steady_clock::now();
    try {
      if (!stop) find();
    } catch (const std::bad_alloc&) {
      order.clear();
      reason = describe_default_order(facts.graph, facts.device) + ": not enough memory to find an order";
    }
    rowptr.reset();
    col.reset();
    seconds = seconds_since(start);
    done.store(true, std::memory_order_release);
  }

 private:
  void find() {
    CsrView csr;
    csr.rows = facts.graph.rows;
    csr.cols = facts.graph.cols;
    csr.edges = facts.graph.edges;
    csr.rowptr = rowptr.const_data_ptr<int64_t>();
    csr.col = col.const_data_ptr<int32_t>();
    if (csr.rows == csr.cols) edge_span = cpu::average_edge_span(csr);
    const int64_t capacity = cached_rows(facts.device, facts.row_bytes);
    const auto edges = static_cast<double>(csr.edges);
    cold_before = static_cast<double>(cpu::cold_gathers(csr, nullptr, capacity)) / edges;
    // With any order, the first gather of a column misses.
    const double least = static_cast<double>(cpu::cold_gathers(csr, nullptr, csr.cols * 2 + 2)) / edges;
    const double best = forecast_gain(facts, cold_before, least);
    if (best < kLeastGain) {
      reason = describe_default_order(facts.graph, facts.device) + ": " + text("%.0f %%", cold_before * 100) +
               " of the gathers miss the cache, at least " + text("%.0f %%", least * 100) +
               " with any order: at best " + text("%.2fx", best);
      return;
    }
    const CommunityStore::Found* known = store->found.load(std::memory_order_acquire);
    if (!known) {
      const cpu::Executor alone{1, [](int64_t tasks, const std::function<void(int64_t)>& body) {
                                  for (int64_t task = 0; task < tasks; ++task) body(task);
                                }};
      auto* made = new CommunityStore::Found{cpu::rabbit_order(csr, alone, &stop), csr.rows, csr.cols, transposed};
      if (stop) {
        delete made;
        return;
      }
      store->found.store(made, std::memory_order_release);
      known = made;
    }
    std::vector<int32_t> found(csr.rows);
    // If rows and columns are two sets, the columns of the plan that the communities were found on come after its rows.
    const int64_t first = known->transposed != transposed && known->rows != known->cols ? known->rows : 0;
    cpu::community_schedule(csr, known->communities, first, found.data());
    cold_after = static_cast<double>(cpu::cold_gathers(csr, found.data(), capacity)) / edges;
    forecast = forecast_gain(facts, cold_before, cold_after);
    const std::string misses = text("%.0f %% ", cold_before * 100) + "of the gathers miss the cache, by community " +
                               text("%.0f %%", cold_after * 100) + text(": %.2fx expected", forecast);
    reason = (forecast < kLeastGain ? describe_default_order(facts.graph, facts.device) : "rows by community") + ": " +
             misses;
    if (forecast >= kLeastGain) order = std::move(found);
  }
};

Schedule::Schedule(std::shared_ptr<CommunityStore> store, bool transposed)
    : next_check_(kUsedAgain), store_(std::move(store)), transposed_(transposed) {}

Schedule::~Schedule() {
  if (job_) job_->give_up();
}

bool Schedule::due(const Plan& plan) const {
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  return lock.owns_lock() && is_step_due(plan);  // otherwise another thread advances the schedule
}

bool Schedule::is_step_due(const Plan& plan) const {
  switch (phase_) {
    case Phase::New:
    case Phase::Watching:
      return plan.usage->calls() >= next_check_ && automatic;
    case Phase::Ordering:
      return job_->done.load(std::memory_order_acquire) || job_->owner != getpid();
    case Phase::OnTrial:
      return plan.usage->calls() >= next_check_;
    case Phase::Settled:
      return false;
  }
  return false;
}

// NOLINTNEXTLINE(performance-unnecessary-value-param): replace() changes the caller's pointer
void Schedule::advance(std::shared_ptr<const Plan> plan, const PlanBuilder& builder, const Replace& replace) {
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  // Another thread may have taken the step since due().
  if (!lock.owns_lock() || !is_step_due(*plan)) return;
  const c10::InferenceMode normal(false);
  try {
    if (phase_ == Phase::New)
      sort(plan, builder, replace);
    else if (phase_ == Phase::Watching)
      watch(plan, builder);
    else if (phase_ == Phase::Ordering)
      apply(plan, builder, replace);
    else if (phase_ == Phase::OnTrial)
      judge(plan, replace);
  } catch (const c10::OutOfMemoryError&) {  // the call itself can go on without a schedule
    before_.reset();
    end("unchanged", "not enough device memory to store the plan in another order");
  }
}

void Schedule::sort(const std::shared_ptr<const Plan>& plan, const PlanBuilder& builder, const Replace& replace) {
  phase_ = Phase::Watching;
  next_check_ = kFirstCheck;
  const int64_t window = degree_window(plan->facts(), builder.facts(plan->rowptr.device()));
  if (window == 0 || plan->order.defined()) return;
  const auto start = std::chrono::steady_clock::now();
  const auto sorted = reorder_rows(*plan, builder, degree_order(*plan, window), ScheduleKind::Degree);
  sorted->usage = plan->usage;
  stored_in_ = seconds_since(start);
  replace(plan, sorted, 0);  // has no effect if the plan is held for captures
}

void Schedule::watch(const std::shared_ptr<const Plan>& plan, const PlanBuilder& builder) {
  const Usage::Summary usage = plan->usage->summary();
  ScheduleFacts facts;
  facts.graph = plan->facts();
  facts.device = builder.facts(plan->rowptr.device());
  facts.row_bytes = usage.longest_bytes;
  facts.calls = usage.calls;
  facts.seconds = usage.seconds;
  facts.communities_known = store_->found.load(std::memory_order_acquire) != nullptr;
  choice_ = choose_schedule(facts);
  reason_ = choice_.reason;
  next_check_ = usage.calls + std::max(kFirstCheck, usage.calls / 4);
  if (!choice_.repays) return;

  auto job = std::make_shared<OrderJob>();
  job->facts = facts;
  job->reason = choice_.reason;
  job->forecast = choice_.gain;
  job->store = store_;
  job->transposed = transposed_;
  const auto start = std::chrono::steady_clock::now();
  const auto ascending = plan->order.defined() ? reorder_rows(*plan, builder, {}, ScheduleKind::Ascending)
                                               : std::shared_ptr<const Plan>(plan);
  job->rowptr = ascending->rowptr.cpu();
  job->col = ascending->col.cpu();
  stored_in_ += seconds_since(start);
  if (!run_in_background(job)) return end("unchanged", "no background thread could be started");
  job_ = std::move(job);
  usage_before_ = usage;
  phase_ = Phase::Ordering;
  state_ = "ordering";
}

void Schedule::apply(const std::shared_ptr<const Plan>& plan, const PlanBuilder& builder, const Replace& replace) {
  if (job_->owner != getpid()) {  // in a forked child, which does not have the parent's thread
    job_.reset();
    // The parent's thread may have been writing to the store when the process forked.
    if (!store_->found.load(std::memory_order_acquire)) store_ = make_community_store();
    phase_ = Phase::Watching;
    state_ = "watching";
    next_check_ = plan->usage->calls() + kFirstCheck;
    return;
  }
  reason_ = job_->reason;
  if (job_->order.empty()) return end("unchanged", job_->reason);
  const auto start = std::chrono::steady_clock::now();
  at::Tensor order = at::empty({plan->rows}, at::kInt);
  std::copy(job_->order.begin(), job_->order.end(), order.mutable_data_ptr<int32_t>());
  std::vector<int32_t>().swap(job_->order);
  order = order.to(plan->rowptr.device());
  const std::shared_ptr<const Plan> scheduled = reorder_rows(*plan, builder, order, ScheduleKind::Community);
  stored_in_ += seconds_since(start);
  if (!replace(plan, scheduled, plan->bytes()))
    return end("unchanged", "a captured CUDA graph reads the plan, or two plans exceed max_plan_bytes");
  before_ = plan;
  next_check_ = kCallsPerKind * std::max(usage_before_.kinds, 1);
  phase_ = Phase::OnTrial;
  state_ = "on trial";
}

void Schedule::judge(const std::shared_ptr<const Plan>& plan, const Replace& replace) {
  const Usage::Summary after = plan->usage->summary();
  comparison_ = Usage::compare(usage_before_, after, kLeastSamples);
  if (comparison_.kinds == 0 && after.calls < kMostTrialCalls) {
    next_check_ = after.calls + kFirstCheck;
    return;
  }
  const double gain = comparison_.kinds > 0 ? comparison_.before / comparison_.after : 0;
  const bool keep = comparison_.kinds == 0 || gain >= kKeep;
  if (!keep && ++checks_ < kChecks) {
    next_check_ = after.calls + kCallsPerKind * std::max(usage_before_.kinds, 1);
    return;
  }
  const std::shared_ptr<const Plan> before = std::move(before_);
  before->usage->close();
  plan->usage->close();
  if (!replace(plan, keep ? plan : before, 0) && !keep)
    return end("kept", reason_ + "; a captured CUDA graph reads the plan");
  if (comparison_.kinds == 0)
    return end("kept", reason_ + "; not compared: too few calls of the same kind before and after");
  end(keep ? "kept" : "dropped", reason_ + ", " + text("%.2fx measured", gain));
}

void Schedule::end(const char* state, std::string reason) {
  phase_ = Phase::Settled;
  state_ = state;
  reason_ = std::move(reason);
}

void Schedule::settle(const char* state, std::string reason) {
  const std::lock_guard<std::mutex> lock(mutex_);
  before_.reset();
  if (job_) job_->give_up();
  end(state, std::move(reason));
}

ScheduleInfo Schedule::info(const Plan& plan) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  ScheduleInfo info;
  info.rows = plan.rows;
  info.cols = plan.cols;
  info.edges = plan.edges;
  const bool on_second_plan = phase_ == Phase::OnTrial || phase_ == Phase::Settled;
  info.calls = plan.usage->calls() + (on_second_plan ? usage_before_.calls : 0);
  info.device = plan.rowptr.device().str();
  info.state = state_;
  info.kind = name_of(plan.kind);
  info.reason = reason_;
  info.stored_in = stored_in_;
  info.before = comparison_.before;
  info.after = comparison_.after;
  if (job_ && job_->done.load(std::memory_order_acquire)) {
    info.found_in = job_->seconds;
    info.forecast = job_->forecast;
    info.cold_before = job_->cold_before;
    info.cold_after = job_->cold_after;
    info.edge_span = job_->edge_span;
  }
  return info;
}

}  // namespace gnna
