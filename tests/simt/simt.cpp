// The scheduler: switches between the fibers of a block and between blocks. See simt.h.
#include "simt.h"

#include <algorithm>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "fiber.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace gnna::cuda {
// The dynamic shared memory that kernels declare as `extern __shared__`.
constexpr size_t kMostShared = 48 << 10;
alignas(256) thread_local unsigned char shared_bytes[kMostShared];
}  // namespace gnna::cuda

namespace simt {

thread_local Here here;

namespace {

constexpr unsigned kWarp = 32, kMostThreads = 1024, kMostBlocksY = 65535;
constexpr int kResident = 3;  // blocks in progress at once in a random schedule

struct Lane {
  Fiber fiber;
  const char* waits_in = nullptr;  // the latest operation, for the message about a deadlock
  unsigned source = 0;
  uint64_t value = 0, result = 0;
};

// The operation in which lanes of a warp are waiting. Bit i of a mask is lane i.
struct Warp {
  const char* operation = nullptr;
  unsigned mask = 0, waiting = 0, gone = 0;
};

uint64_t the_schedule = 0;
const char* the_task = "";
std::mt19937_64 shuffler;  // shared without a lock, because only one host thread runs at a time

bool shuffling() { return the_schedule > 1; }
bool chance(unsigned one_in) { return shuffler() % one_in == 0; }

// Lets one of `count` host threads run at a time. Each of them runs blocks, one after another. `me` is the number of
// the calling thread.
class Turns {
 public:
  explicit Turns(int count) : live_(count, true) {}

  void wait(int me) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return turn_ == me; });
  }
  void pass(int me) {
    give();
    wait(me);
  }
  void leave(int me) {
    live_[me] = false;
    give();
  }

 private:
  void give() {
    std::vector<int> choice;
    for (size_t i = 0; i < live_.size(); ++i) {
      if (live_[i]) choice.push_back(static_cast<int>(i));
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      turn_ = choice.empty() ? -1 : choice[shuffler() % choice.size()];
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> live_;
  int turn_ = 0;
};

class Block;
thread_local Block* running = nullptr;
thread_local Fiber own_stack;  // the host thread's own stack, on which it starts and ends blocks

class Block {
 public:
  void run(const std::function<void()>& body, Index index, Index size, Index grid, Turns* turns, int me) {
    running = this;
    body_ = &body;
    turns_ = turns;
    me_ = me;
    here = {{}, index, size, grid};
    const unsigned threads = size.x;
    while (lanes_.size() < threads) lanes_.push_back(std::make_unique<Lane>());
    threads_ = threads;
    done_ = arrived_ = 0;
    ready_.clear();
    warps_.assign(threads / kWarp, Warp());
    std::vector<unsigned> order(threads);
    for (unsigned t = 0; t < threads; ++t) order[t] = t;
    if (shuffling()) std::shuffle(order.begin(), order.end(), shuffler);
    depth_first_ = the_schedule == 1 || (shuffling() && chance(2));
    turn_odds_ = chance(2) ? 1 : 4;
    for (const unsigned t : order) {
      lanes_[t]->fiber.start(enter);
      ready_.push_back(t);
    }
    first_ready_ = 0;
    go(next(), own_stack);
    running = nullptr;
  }

  void barrier() {
    lanes_[current_]->waits_in = "__syncthreads";
    if (done_ > 0) fail("__syncthreads: %u threads of the block have left the kernel", done_);
    if (++arrived_ < threads_) return wait();
    arrived_ = 0;
    wake(0, threads_, ~0u);
    yield();
    if (shuffling() && chance(turn_odds_)) turn();
  }

  uint64_t exchange(const char* operation, unsigned mask, uint64_t value, unsigned source) {
    const unsigned base = current_ / kWarp * kWarp, self = current_ % kWarp;
    Warp& warp = warps_[current_ / kWarp];
    Lane& lane = *lanes_[current_];
    if ((mask >> self & 1) == 0) fail("%s: the mask %08x leaves the calling lane out", operation, mask);
    if (source != kBallot && (source >= kWarp || (mask >> source & 1) == 0)) {
      fail("%s: reads lane %u, which the mask %08x leaves out", operation, source, mask);
    }
    if ((mask & warp.gone) != 0) fail("%s, mask %08x: lanes %08x have left the kernel", operation, mask, warp.gone);
    if (warp.waiting == 0) {
      warp.operation = operation;
      warp.mask = mask;
    } else if (mask != warp.mask || (operation != warp.operation && std::strcmp(operation, warp.operation) != 0)) {
      fail("%s, mask %08x: lanes %08x are in %s, mask %08x", operation, mask, warp.waiting, warp.operation, warp.mask);
    }
    lane.value = value;
    lane.source = source;
    lane.waits_in = operation;
    warp.waiting |= 1u << self;
    if (warp.waiting != mask) {
      wait();
      return lane.result;
    }
    uint64_t ballot = 0;
    for (unsigned i = 0; i < kWarp; ++i) {
      if ((mask >> i & 1) != 0 && lanes_[base + i]->value != 0) ballot |= uint64_t{1} << i;
    }
    for (unsigned i = 0; i < kWarp; ++i) {
      if ((mask >> i & 1) == 0) continue;
      Lane& member = *lanes_[base + i];
      member.result = member.source == kBallot ? ballot : lanes_[base + member.source]->value;
    }
    warp.waiting = 0;
    wake(base, kWarp, mask);
    yield();
    return lane.result;
  }

  void preempt(unsigned turn_odds) {
    if (!shuffling()) return;
    if (chance(2)) {
      ready_.push_back(current_);
      yield();
    }
    if (chance(turn_odds * turn_odds_)) turn();
  }

 private:
  static void enter() {
    Fiber::arrived();
    (*running->body_)();
    running->leave();
  }

  void leave() {
    Lane& lane = *lanes_[current_];
    Warp& warp = warps_[current_ / kWarp];
    ++done_;
    warp.gone |= 1u << current_ % kWarp;
    if (arrived_ > 0) fail("a thread leaves the kernel while %u threads wait in __syncthreads", arrived_);
    if ((warp.waiting != 0) && (warp.mask & warp.gone) != 0) {
      fail("a lane leaves the kernel while lanes %08x wait for it in %s, mask %08x", warp.waiting, warp.operation,
           warp.mask);
    }
    if (done_ == threads_) {
      Fiber::switch_to(lane.fiber, own_stack);
    } else {
      go(next(), lane.fiber);
    }
    std::abort();  // not reached: a thread that has left is never continued
  }

  // Makes those threads of a range ready whose lane is in the mask. The calling thread is one of them.
  void wake(unsigned first, unsigned count, unsigned mask) {
    const size_t from = ready_.size();
    for (unsigned t = first; t < first + count; ++t) {
      if ((mask >> t % kWarp & 1) == 0) continue;
      ready_.push_back(t);
    }
    if (shuffling()) std::shuffle(ready_.begin() + from, ready_.end(), shuffler);
  }

  // Switches to a ready thread. Returns when the calling thread, which is ready or waiting, is chosen again.
  void yield() {
    Fiber& from = lanes_[current_]->fiber;
    const unsigned to = next();
    if (to != current_) go(to, from);
  }

  void wait() {
    if (first_ready_ == ready_.size()) {
      fail("%s: no thread of the block can go on; thread 0 was in %s, the last one in %s", lanes_[current_]->waits_in,
           lanes_[0]->waits_in, lanes_[threads_ - 1]->waits_in);
    }
    yield();
  }

  unsigned next() {
    if (first_ready_ == ready_.size()) fail("a thread has left the kernel, and the others of its block wait for ever");
    if (depth_first_) {
      const unsigned t = ready_.back();
      ready_.pop_back();
      return t;
    }
    if (shuffling()) {
      std::swap(ready_[first_ready_], ready_[first_ready_ + shuffler() % (ready_.size() - first_ready_)]);
    }
    const unsigned t = ready_[first_ready_++];
    if (first_ready_ == ready_.size()) {
      ready_.clear();
      first_ready_ = 0;
    }
    return t;
  }

  void go(unsigned to, Fiber& from) {
    const unsigned before = current_;
    set_current(to);
    Fiber::switch_to(from, lanes_[to]->fiber);
    set_current(before);
  }

  void set_current(unsigned thread) {
    current_ = thread;
    here.thread = {thread, 0, 0};
  }

  void turn() {
    if (turns_ != nullptr) turns_->pass(me_);
  }

  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<Warp> warps_;
  std::vector<unsigned> ready_;  // valid from first_ready_ on
  size_t first_ready_ = 0;
  unsigned threads_ = 0, current_ = 0, done_ = 0, arrived_ = 0;
  bool depth_first_ = false;
  unsigned turn_odds_ = 1;  // another block gets a turn at one in turn_odds_ opportunities
  const std::function<void()>* body_ = nullptr;
  Turns* turns_ = nullptr;
  int me_ = 0;
};

// Fills the launch's dynamic shared memory with a pattern and poisons the rest for AddressSanitizer.
void limit_shared(size_t bytes) {
  ASAN_UNPOISON_MEMORY_REGION(gnna::cuda::shared_bytes, gnna::cuda::kMostShared);
  std::memset(gnna::cuda::shared_bytes, 0xcd, bytes);
  const size_t whole = (bytes + 7) / 8 * 8;
  ASAN_POISON_MEMORY_REGION(gnna::cuda::shared_bytes + whole, gnna::cuda::kMostShared - whole);
}

}  // namespace

void set_schedule(uint64_t schedule) {
  the_schedule = schedule;
  shuffler.seed(schedule);
}

uint64_t schedule() { return the_schedule; }

void set_task(const char* name) { the_task = name; }

void fail(const char* format, ...) {
  std::fprintf(stderr, "simt: %s, schedule %llu", the_task, static_cast<unsigned long long>(the_schedule));
  if (running != nullptr) {
    std::fprintf(stderr, ", block (%u, %u), thread %u", here.block.x, here.block.y, here.thread.x);
  }
  std::fputs(": ", stderr);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  std::fflush(nullptr);
  std::_Exit(3);
}

bool launch(Index grid, Index size, size_t dynamic_shared, const std::function<void()>& body) {
  if (grid.x == 0 || grid.y == 0 || grid.y > kMostBlocksY || grid.z != 1 || size.x == 0 || size.x > kMostThreads ||
      size.x % kWarp != 0 || size.y != 1 || size.z != 1 || dynamic_shared > gnna::cuda::kMostShared) {
    return false;
  }
  std::vector<uint64_t> order(static_cast<uint64_t>(grid.x) * grid.y);
  for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
  if (the_schedule == 1) std::reverse(order.begin(), order.end());
  if (shuffling()) std::shuffle(order.begin(), order.end(), shuffler);

  static std::vector<std::unique_ptr<Block>> blocks;
  while (blocks.size() < kResident) blocks.push_back(std::make_unique<Block>());
  const auto run_one = [&](Block& block, uint64_t number, Turns* turns, int me) {
    const Index index{static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x), 0};
    limit_shared(dynamic_shared);
    block.run(body, index, size, grid, turns, me);
  };
  if (!shuffling()) {
    for (const uint64_t number : order) run_one(*blocks[0], number, nullptr, 0);
    return true;
  }
  Turns turns(kResident);
  size_t taken = 0;
  std::vector<std::thread> workers;
  for (int me = 0; me < kResident; ++me) {
    workers.emplace_back([&, me] {
      turns.wait(me);
      while (taken < order.size()) run_one(*blocks[me], order[taken++], &turns, me);
      turns.leave(me);
    });
  }
  for (std::thread& worker : workers) worker.join();
  return true;
}

void block_barrier() { running->barrier(); }

uint64_t warp_exchange(const char* operation, unsigned mask, uint64_t value, unsigned source) {
  return running->exchange(operation, mask, value, source);
}

unsigned lane() { return here.thread.x % kWarp; }

void preempt(unsigned turn_odds) { running->preempt(turn_odds); }

}  // namespace simt
