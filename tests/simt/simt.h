// Runs CUDA kernels on a CPU, one thread at a time: every thread of a block is a fiber, barriers and warp operations
// are where fibers wait for each other, and who runs next is chosen by a schedule. A schedule reproduces exactly. What
// CUDA leaves undefined ends the process with a message: a warp operation that some lane of its mask does not reach, a
// barrier that a thread misses, threads that wait for ever.
//
// Not emulated: that memory operations of a GPU become visible late or out of order. A missing __threadfence stays
// unseen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace simt {

struct Index {
  unsigned x = 1, y = 1, z = 1;
};

// Who is running. A CUDA block stays on one thread of this process, so thread_local is also what __shared__ means.
struct Here {
  Index thread, block, block_size, grid;
};
extern thread_local Here here;

// The order of things that CUDA leaves open. 0: blocks and threads ascend. 1: both descend, and a warp runs as far as
// it can before the next one starts. Other values seed a shuffle: blocks in any order, several of them in turns, which
// change between any two fences, atomics and barriers; threads likewise.
void set_schedule(uint64_t schedule);
uint64_t schedule();

// A name for the messages: what the process is doing.
void set_task(const char* name);
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Runs body() once per thread of the grid. False where CUDA would refuse the launch.
bool launch(Index grid, Index block, size_t dynamic_shared, const std::function<void()>& body);

// The calling thread waits for its block.
void block_barrier();

// The calling lane waits for all lanes of the mask, which must all be in the same operation, and gets the value that
// lane `source` brought. kBallot: a mask of the lanes that brought a value other than 0.
constexpr unsigned kBallot = ~0u;
uint64_t warp_exchange(const char* operation, unsigned mask, uint64_t value, unsigned source);
unsigned lane();

// A place where a shuffling schedule may let other threads of the block go first, and, once in turn_odds times or less
// often, other blocks, too (which is slow: they run on a thread of their own).
void preempt(unsigned turn_odds);

}  // namespace simt
