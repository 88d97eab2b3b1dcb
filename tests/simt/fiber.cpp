// Switches between call stacks, see fiber.h.
#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
// Pushes the callee-saved registers on the current stack, stores the stack pointer in *save, continues on the stack
// `load` and pops the registers from there.
extern "C" void simt_switch(void** save, void* load);
asm(R"(
.text
.globl simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
)");
#endif

namespace simt {

namespace {
thread_local Fiber* leaving = nullptr;   // the fiber that the latest switch stopped
thread_local Fiber* entering = nullptr;  // the fiber that it continues
}  // namespace

void Fiber::start(void (*entry)()) {
  if (stack_ == nullptr) {
    constexpr size_t kGuard = 4096;
    void* memory = mmap(nullptr, kGuard + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kGuard, PROT_NONE) != 0) {
      std::perror("simt: no memory for a fiber's stack");
      std::abort();
    }
    stack_ = static_cast<unsigned char*>(memory) + kGuard;
  }
#if defined(__SANITIZE_ADDRESS__)
  // The last frames of the stack's previous use never returned, so AddressSanitizer's marks around their variables are
  // still set.
  constexpr size_t kLastFrames = 4096;
  ASAN_UNPOISON_MEMORY_REGION(stack_ + kStackBytes - kLastFrames, kLastFrames);
#endif
  bottom_ = stack_;
  bytes_ = kStackBytes;
  fake_stack_ = nullptr;
#if defined(__x86_64__)
  // Six registers, the return address for `ret`, and one more word that gives entry() the stack alignment of a call.
  auto** top = reinterpret_cast<void**>(stack_ + kStackBytes) - 8;
  for (int i = 0; i < 8; ++i) top[i] = nullptr;
  top[6] = reinterpret_cast<void*>(entry);
  pointer_ = top;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#endif
}

void Fiber::switch_to(Fiber& from, Fiber& to) {
  leaving = &from;
  entering = &to;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.bottom_, to.bytes_);
#endif
#if defined(__x86_64__)
  simt_switch(&from.pointer_, to.pointer_);
#else
  swapcontext(&from.context_, &to.context_);
#endif
  arrived();
}

void Fiber::arrived() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(entering->fake_stack_, &bottom, &bytes);
  if (leaving->bottom_ == nullptr) {  // the thread's own stack, whose bounds are not known yet
    leaving->bottom_ = bottom;
    leaving->bytes_ = bytes;
  }
#endif
}

}  // namespace simt
