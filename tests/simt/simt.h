// Runs CUDA kernels on a CPU, one thread at a time. Every thread of a block is a fiber. Fibers wait for each other at
// barriers and warp operations, and a schedule chooses which one runs next. The same schedule always gives the same
// run. Undefined behaviour ends the process with a message: a warp operation that a lane of its mask does not reach, a
// barrier that a thread of the block does not reach, a deadlock.
//
// Memory operations take effect at once and in order, unlike on a GPU. So a missing __threadfence is not detected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace simt {

struct Index {
  unsigned x = 1, y = 1, z = 1;
};

// The indices of the running CUDA thread. All threads of a CUDA block run on one host thread, so __shared__ variables
// are emulated by thread_local ones.
struct Here {
  Index thread, block, block_size, grid;
};
extern thread_local Here here;

// Sets the order of execution where CUDA leaves it open. 0: blocks and threads in ascending order. 1: both in
// descending order, and a warp runs as far as it can before the next one starts. Any other value seeds a random
// schedule: blocks start in random order, several are in progress at once, and execution may switch to another thread
// or block at every fence, atomic and barrier.
void set_schedule(uint64_t schedule);
uint64_t schedule();

// Sets the name of the current case for messages. `name` must live until the next call.
void set_task(const char* name);
// Prints the message, with the case, the schedule and the running thread, and ends the process.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Runs body() once for each thread of the grid. Returns false if CUDA would refuse the launch.
bool launch(Index grid, Index block, size_t dynamic_shared, const std::function<void()>& body);

// __syncthreads: waits for all threads of the block.
void block_barrier();

// Waits until all lanes of the mask have called the same operation, and returns the value that lane `source` passed.
// With source = kBallot, returns the mask of the lanes that passed a value other than 0.
constexpr unsigned kBallot = ~0u;
uint64_t warp_exchange(const char* operation, unsigned mask, uint64_t value, unsigned source);
unsigned lane();

// Lets a random schedule switch to another thread of the block or, with a probability of at most 1 / turn_odds, to
// another block. Switching between blocks is slow, because each runs on a host thread of its own.
void preempt(unsigned turn_odds);

}  // namespace simt
