// A call stack that the host thread can switch to and away from. Each CUDA thread of the emulation runs on one. On
// x86-64 a switch is a dozen instructions, on other architectures it uses ucontext. Every switch is announced to
// AddressSanitizer.
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

  // Makes the next switch to this fiber call entry(), which must never return. A fiber may be started again if its
  // previous run will not be continued.
  void start(void (*entry)());

  // Stops `from`, which must be the running fiber, and continues `to`. A Fiber that was never started stands for the
  // host thread's own stack.
  static void switch_to(Fiber& from, Fiber& to);

  // Completes a switch. entry() must call it first.
  static void arrived();

  // The page below the stack is protected, so that an overflow faults.
  static constexpr size_t kStackBytes = 128 << 10;

 private:
  unsigned char* stack_ = nullptr;  // never freed
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
