// A fiber: a function on a stack of its own that runs when it is resumed and can suspend itself at any depth. Resuming
// costs some ten nanoseconds, so a CPU can be switched between the 1024 threads of a CUDA block at every barrier.
#pragma once

#include <sys/mman.h>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_host {

class Fiber;

// Saves the callee-saved registers and the stack pointer of whoever calls, and goes on where `to` was saved; `fiber` is
// what a fresh stack's first function receives. The System V ABI also makes the mxcsr and x87 control words
// callee-saved: they stay out because a kernel has no means of changing them, and because every fiber of an OS thread
// shall run under the modes (rounding, denormals) of the code that launched it. A jump instead of ret: the processor
// would expect ret to return on the old stack, and be wrong each time.
[[gnu::naked, gnu::noinline]] inline void switch_stack(void** /*from*/, void* /*to*/, Fiber* /*fiber*/) {
  asm(R"(
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
    movq %rdx, %rdi
    popq %rcx
    jmpq *%rcx
  )");
}

class Fiber {
 public:
  // Runs `step` once per resume(): a fiber is made once and serves any number of CUDA threads. `step` must not throw
  // and may suspend the fiber in its middle. `colour` moves the top of the stack by some cache lines: equal tops of
  // many stacks would all compete for the same few sets of the cache.
  Fiber(void (*step)(), unsigned colour) : step_(step) {
    void* memory = mmap(nullptr, kGuard + kStack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(static_cast<char*>(memory) + kGuard, kStack, PROT_READ | PROT_WRITE) != 0) {
      std::perror("cuda_on_host: cannot map the stack of a fiber");
      std::abort();
    }
    stack_ = static_cast<char*>(memory) + kGuard;  // stacks grow downwards, into the guard
    void** top = reinterpret_cast<void**>(stack_ + kStack - colour % 61 * 64);
    *--top = nullptr;  // the return address of main_loop, which never returns: where a debugger stops
    *--top = reinterpret_cast<void*>(&Fiber::main_loop);
    for (int saved_register = 0; saved_register < 6; ++saved_register) *--top = nullptr;
    own_ = top;
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(stack_, kStack);  // of main_loop's frames: the address may be mapped again
#endif
    munmap(stack_ - kGuard, kGuard + kStack);
  }

  // Runs the fiber until it suspends itself.
  void resume() {
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack;
    __sanitizer_start_switch_fiber(&fake_stack, stack_, kStack);
#endif
    switch_stack(&resumer_, own_, this);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  }

  // Called on the fiber: returns to its resume(), and from here at the next one.
  void suspend() {
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack;
    __sanitizer_start_switch_fiber(&fake_stack, resumer_stack_, resumer_size_);
#endif
    switch_stack(&own_, resumer_, this);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, &resumer_stack_, &resumer_size_);
#endif
  }

 private:
  static constexpr size_t kGuard = 4096;
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kStack = 256 << 10;  // redzones between variables, and room for the sanitizer's own report
#else
  static constexpr size_t kStack = 64 << 10;
#endif

  // noexcept: an exception cannot be unwound past the end of this stack, so it ends the process here.
  static void main_loop(Fiber* fiber) noexcept {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &fiber->resumer_stack_, &fiber->resumer_size_);
#endif
    for (;;) {
      fiber->step_();
      fiber->suspend();
    }
  }

  void (*step_)();
  char* stack_;
  void* own_;  // stack pointers of the two sides while they do not run
  void* resumer_ = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  const void* resumer_stack_ = nullptr;
  size_t resumer_size_ = 0;
#endif
};

}  // namespace cuda_on_host
