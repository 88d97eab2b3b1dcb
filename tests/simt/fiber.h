// A call stack of its own that code can be switched to and away from: what each CUDA thread of the emulation runs on.
// On x86-64 a switch is a dozen instructions; elsewhere it is ucontext's. AddressSanitizer is told of every switch.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the fiber start at entry(), which must never return, when it is switched to next. The stack may be used again
  // for a new start once nobody will switch back to the old one.
  void start(void (*entry)());

  // Stops `from`, which runs, and continues `to`. A Fiber that was never started stands for the thread's own stack.
  static void switch_to(Fiber& from, Fiber& to);

  // The first thing that entry() calls.
  static void arrived();

  // Touching the page below the stack is a fault, not a write into somebody else's memory.
  static constexpr size_t kStackBytes = 128 << 10;

 private:
  unsigned char* stack_ = nullptr;  // kept until the process ends
  const void* bottom_ = nullptr;
  size_t bytes_ = 0;
  void* fake_stack_ = nullptr;
#if defined(__x86_64__)
  void* pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
};

}  // namespace simt
