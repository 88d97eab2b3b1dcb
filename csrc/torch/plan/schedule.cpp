// The steps of a schedule's life (schedule.h), and the job that finds an order in the background.
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

// Calls before rows are sorted by degree: no more than the layers of a model that meets every graph once (a sampled
// batch) make, and no more than three steps of two layers, after which CUDA graphs are usually captured.
constexpr int64_t kUsedAgain = 5;
// Calls before the first decision, and timed calls of a kind on each side of a verdict.
constexpr int64_t kFirstCheck = 8, kCallsPerKind = 16, kMostTrialCalls = 200;
constexpr int kChecks = 3;  // a verdict against a schedule needs as many, since a busy machine can look like one
constexpr int kLeastSamples = 4;
// What was measured faster than this stays; less is within what timings scatter.
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

// The rows of an ascending plan by descending degree inside windows of so many rows; equal ones ascend. A rank of 1024
// steps is enough, since longer rows are cut, and keeps window and rank together below 2^31.
at::Tensor degree_order(const Plan& plan, int64_t window) {
  constexpr int64_t kRanks = 1024;
  const at::Tensor rank = kRanks - 1 - plan.degrees().clamp_max_(kRanks - 1);
  const at::Tensor of_row = at::arange(plan.rows, rank.options()).div_(window, "floor").mul_(kRanks);
  return at::argsort(of_row.add_(rank).to(at::kInt), /*stable=*/true).to(at::kInt);
}

}  // namespace

// Written once, by the background thread; read from any.
struct CommunityStore {
  struct Found {
    cpu::Communities communities;
    int64_t rows, cols;
    bool transposed;  // the plan they were found on
  };
  std::atomic<const Found*> found{nullptr};
  ~CommunityStore() { delete found.load(); }
};

std::shared_ptr<CommunityStore> make_community_store() { return std::make_shared<CommunityStore>(); }

void set_auto_schedule(bool on) { automatic = on; }

// Finds the order of one plan's rows. Everything before `done` is written by the background thread alone.
struct OrderJob : BackgroundTask {
  ScheduleFacts facts;
  at::Tensor rowptr, col;  // of ascending rows, on the host
  std::shared_ptr<CommunityStore> store;
  bool transposed = false;
  const pid_t owner = getpid();

  std::vector<int32_t> order;  // empty: none that is worth it, and why
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
      reason = as_kept(facts.graph, facts.device) + ": there was no memory to find an order";
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
    // No order spares the first gather of a column.
    const double least = static_cast<double>(cpu::cold_gathers(csr, nullptr, csr.cols * 2 + 2)) / edges;
    const double best = forecast_gain(facts, cold_before, least);
    if (best < kLeastGain) {
      reason = as_kept(facts.graph, facts.device) + ": " + text("%.0f %%", cold_before * 100) +
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
    // Where rows and columns are two sets, the columns of the plan they were found on follow its rows.
    const int64_t first = known->transposed != transposed && known->rows != known->cols ? known->rows : 0;
    cpu::community_schedule(csr, known->communities, first, found.data());
    cold_after = static_cast<double>(cpu::cold_gathers(csr, found.data(), capacity)) / edges;
    forecast = forecast_gain(facts, cold_before, cold_after);
    const std::string misses = text("%.0f %% ", cold_before * 100) + "of the gathers miss the cache, by community " +
                               text("%.0f %%", cold_after * 100) + text(": %.2fx expected", forecast);
    reason = (forecast < kLeastGain ? as_kept(facts.graph, facts.device) : "rows by community") + ": " + misses;
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
  if (!lock.owns_lock()) return false;  // another thread is at it
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

void Schedule::advance(std::shared_ptr<const Plan> plan, const PlanBuilder& builder, const Replace& replace) {
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
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
  } catch (const c10::OutOfMemoryError&) {  // a schedule is a luxury; the call itself goes on
    before_.reset();
    end("unchanged", "there was no device memory for another order");
  }
}

void Schedule::sort(const std::shared_ptr<const Plan>& plan, const PlanBuilder& builder, const Replace& replace) {
  phase_ = Phase::Watching;
  next_check_ = kFirstCheck;
  const int64_t window = degree_window(plan->facts(), builder.facts(plan->rowptr.device()));
  if (window == 0 || plan->order.defined()) return;
  const auto start = std::chrono::steady_clock::now();
  const auto sorted = in_order(*plan, builder, degree_order(*plan, window), ScheduleKind::Degree);
  sorted->usage = plan->usage;
  stored_in_ = seconds_since(start);
  replace(plan, sorted, 0);  // a plan that must stay as it is stays
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
  const auto ascending =
      plan->order.defined() ? in_order(*plan, builder, {}, ScheduleKind::Ascending) : std::shared_ptr<const Plan>(plan);
  job->rowptr = ascending->rowptr.cpu();
  job->col = ascending->col.cpu();
  stored_in_ += seconds_since(start);
  if (!run_in_background(job)) return end("unchanged", "the system refused a background thread");
  job_ = std::move(job);
  usage_before_ = usage;
  phase_ = Phase::Ordering;
  state_ = "ordering";
}

void Schedule::apply(const std::shared_ptr<const Plan>& plan, const PlanBuilder& builder, const Replace& replace) {
  if (job_->owner != getpid()) {  // the child of a fork: the thread stayed with the parent
    job_.reset();
    // What the parent's thread was writing at that moment may be half written.
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
  const std::shared_ptr<const Plan> scheduled = in_order(*plan, builder, order, ScheduleKind::Community);
  stored_in_ += seconds_since(start);
  if (!replace(plan, scheduled, plan->bytes()))
    return end("unchanged", "the plan is in use by a captured CUDA graph, or two would not fit the bound");
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
    return end("kept", reason_ + "; a captured CUDA graph reads it");
  if (comparison_.kinds == 0) return end("kept", reason_ + "; not compared: no call of before came again");
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
