// One thread block of an emulated CUDA launch: its threads, the barriers they meet at, and the order in which they run.
// A thread runs until it waits at a barrier, so a schedule is deterministic and a violation is found where it happens.
#pragma once

#if !defined(__linux__) || !(defined(__x86_64__) || defined(__aarch64__))
#error "cuda_on_host needs Linux on x86-64 (fibers) or aarch64 (OS threads)"
#endif
#if (defined(__aarch64__) || defined(__SANITIZE_THREAD__)) && !defined(TAD_CUDA_ON_HOST_THREADS)
#define TAD_CUDA_ON_HOST_THREADS  // there is no stack switch for aarch64, and ThreadSanitizer needs threads to compare
#endif

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <source_location>
#include <string>
#include <thread>
#include <vector>

#include "cuda_on_host_schedule.h"
#if !defined(TAD_CUDA_ON_HOST_THREADS)
#include "cuda_on_host_fiber.h"
#endif

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace cuda_on_host {

constexpr unsigned kWarp = 32;

// An operation that threads perform together, and where the kernel asks for it.
struct Place {
  const char* operation = nullptr;
  std::source_location at;

  bool operator==(const Place& other) const {
    const auto same = [](const char* a, const char* b) { return a == b || !std::strcmp(a, b); };
    return at.line() == other.at.line() && at.column() == other.at.column() && operation == other.operation &&
           same(at.file_name(), other.at.file_name()) && same(at.function_name(), other.at.function_name());
  }
};

#if defined(TAD_CUDA_ON_HOST_THREADS)
using Mutex = std::mutex;
#else
struct Mutex {  // fibers of one OS thread never interrupt each other
  void lock() {}
  void unlock() {}
};
#endif

struct Thread;

// Where threads wait for each other. One generation is what bar.sync does once: the threads that still run arrive, and
// the last one releases all.
struct Barrier {
  unsigned expected = 0, arrived = 0, generation = 0;
  const Thread* first = nullptr;   // to arrive in this generation
  const Thread* exited = nullptr;  // a thread without which this barrier must not be used any more
  Mutex mutex;  // one per barrier: a common one would order what the kernel does not order, and hide races
#if defined(TAD_CUDA_ON_HOST_THREADS)
  std::condition_variable released;
#endif
};

// The exchange of a warp operation: what each lane gives.
struct Slot {
  alignas(16) unsigned char bytes[32];
};
struct Warp {
  Barrier barrier;
  Slot slots[2][kWarp];  // used in turn: nobody writes one before all lanes have left the operation that read it
};

struct Block;

struct Thread {
  Block* block;
  uint3 index;
  unsigned rank;  // in the block
  Place place;    // of the last operation
  bool exited = false;
  const Barrier* waits_for = nullptr;
  unsigned generation = 0;  // of that barrier when the wait began

  unsigned lane() const { return rank % kWarp; }
  Warp& warp() const;
  bool runnable() const { return !exited && (waits_for == nullptr || waits_for->generation != generation); }
};

inline constinit thread_local Thread* current = nullptr;  // the CUDA thread that runs

struct Block {
  uint3 index;
  dim3 shape, grid;
  const std::function<void()>& kernel;
  const char* launched;  // the launch function, with the types of the kernel's parameters: says which kernel it is
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barrier;
  std::unique_ptr<unsigned char[]> shared_memory;                   // dynamic
  std::map<const void*, std::vector<unsigned char>> shared_arrays;  // static, by key
  Mutex shared_arrays_mutex;
  // Threads that have not exited, and those of them that do not wait. Relaxed: they order nothing.
  std::atomic<unsigned> living, running;

  Block(
      uint3 index, dim3 shape, dim3 grid, size_t shared_bytes, const std::function<void()>& kernel,
      const char* launched)
      : index(index),
        shape(shape),
        grid(grid),
        kernel(kernel),
        launched(launched),
        threads(shape.x * shape.y * shape.z),
        warps((threads.size() + kWarp - 1) / kWarp),
        shared_memory(new unsigned char[shared_bytes]),
        living(unsigned(threads.size())),
        running(unsigned(threads.size())) {
    std::memset(shared_memory.get(), 0xFF, shared_bytes);
    barrier.expected = unsigned(threads.size());
    for (unsigned rank = 0; rank < threads.size(); ++rank) {
      Thread& thread = threads[rank];
      thread.block = this;
      thread.rank = rank;
      thread.index = {rank % shape.x, rank / shape.x % shape.y, rank / (shape.x * shape.y)};
      ++thread.warp().barrier.expected;
    }
    for (Warp& warp : warps) std::memset(warp.slots, 0xFF, sizeof warp.slots);  // what lanes that do not exist give
  }

  void run(Schedule schedule);
};

inline Warp& Thread::warp() const {
  return block->warps[rank / kWarp];
}

// ---- what goes wrong ----------------------------------------------------------------------------------------------

[[noreturn]] inline void fail(const char* what, const std::vector<const Thread*>& threads) {
  const auto triple = [](uint3 i) {
    std::string text = "(";
    return text + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
  };
  std::string text = "cuda_on_host: ";
  text += what + (" in block " + triple(threads[0]->block->index)) + "\n";
  for (const Thread* thread : threads) {
    text += "  thread " + triple(thread->index) + (thread->exited ? ": exited, after " : ": ");
    if (const auto& [operation, at] = thread->place; operation != nullptr)
      text += operation + std::string(" at ") + at.file_name() + ":" + std::to_string(at.line()) + " in " +
              at.function_name() + "\n";
    else
      text += "no barrier\n";
  }
  text += std::string("  launched by ") + threads[0]->block->launched + "\n";
  std::fputs(text.c_str(), stderr);
  std::abort();
}

// Every living thread waits: one thread of each place they wait at.
[[noreturn]] inline void fail_deadlock(const Block& block) {
  std::vector<const Thread*> waiting;
  for (const Thread& thread : block.threads) {
    const auto there = [&](const Thread* other) { return other->place == thread.place; };
    if (!thread.exited && std::none_of(waiting.begin(), waiting.end(), there)) waiting.push_back(&thread);
  }
  fail("deadlock", waiting);
}

// ---- waiting ------------------------------------------------------------------------------------------------------

#if !defined(TAD_CUDA_ON_HOST_THREADS)
inline constinit thread_local Fiber* fiber_of_current = nullptr;
#endif

constexpr const char* kLaneExited = "lane exited before its warp's operation";

inline void release(Barrier& barrier, unsigned waiting) {
  current->block->running.fetch_add(waiting, std::memory_order_relaxed);
  barrier.arrived = 0;
  ++barrier.generation;
#if defined(TAD_CUDA_ON_HOST_THREADS)
  barrier.released.notify_all();
#endif
}

// Waits until every living thread of the barrier has come to the same place. `divergence` names the failure to.
inline void arrive_and_wait(Barrier& barrier, Place place, const char* divergence) {
  Thread& self = *current;
  std::unique_lock lock(barrier.mutex);
  self.place = place;
  if (barrier.arrived == 0) barrier.first = &self;
  if (!(barrier.first->place == place)) fail(divergence, {&self, barrier.first});
  if (barrier.exited != nullptr) fail(kLaneExited, {barrier.exited, &self});
  self.waits_for = &barrier;
  self.generation = barrier.generation;
  if (++barrier.arrived == barrier.expected) {
    release(barrier, barrier.arrived - 1);
  } else if (self.block->running.fetch_sub(1, std::memory_order_relaxed) == 1) {
    fail_deadlock(*self.block);
  }
#if defined(TAD_CUDA_ON_HOST_THREADS)
  barrier.released.wait(lock, [&] { return self.runnable(); });
#else
  fiber_of_current->suspend();  // the last one to arrive too: the schedule says who goes on first
#endif
}

// What an emulated thread does from beginning to end. Exited threads count as arrived at the barrier of the block, as
// in hardware; a warp operation, however, must find all lanes of its warp.
inline void run_current_thread() {
  Thread& self = *current;
  Block& block = *self.block;
  block.kernel();
  {
    Warp& warp = self.warp();
    const std::lock_guard lock(warp.barrier.mutex);
    self.exited = true;
    warp.barrier.exited = &self;
    if (warp.barrier.arrived > 0) fail(kLaneExited, {&self, warp.barrier.first});
  }
  {
    const std::lock_guard lock(block.barrier.mutex);
    --block.barrier.expected;
    if (block.barrier.arrived > 0 && block.barrier.arrived == block.barrier.expected)
      release(block.barrier, block.barrier.arrived);
  }
  const bool last = block.living.fetch_sub(1, std::memory_order_relaxed) == 1;
  if (block.running.fetch_sub(1, std::memory_order_relaxed) == 1 && !last) fail_deadlock(block);
}

// ---- running ------------------------------------------------------------------------------------------------------

#if defined(TAD_CUDA_ON_HOST_THREADS)
inline void Block::run(Schedule) {
  std::vector<std::thread> os_threads;
  for (Thread& thread : threads)
    os_threads.emplace_back([&thread] {
      current = &thread;
      run_current_thread();
    });
  for (std::thread& os_thread : os_threads) os_thread.join();
}
#else
inline void Block::run(Schedule schedule) {
  static thread_local std::vector<std::unique_ptr<Fiber>> fibers;  // kept from launch to launch
  while (fibers.size() < threads.size())
    fibers.push_back(std::make_unique<Fiber>(run_current_thread, unsigned(fibers.size())));

  std::mt19937 random(schedule.seed);
  std::vector<unsigned> warp_order(warps.size()), lane_order(kWarp);
  for (std::vector<unsigned>* order : {&warp_order, &lane_order}) {
    std::iota(order->begin(), order->end(), 0);
    if (schedule.order == Order::reverse) std::reverse(order->begin(), order->end());
  }
  const bool shuffled = schedule.order == Order::shuffled;
  const auto advance = [&](unsigned warp) {  // gives each lane that can run one turn
    bool advanced = false;
    if (shuffled) std::shuffle(lane_order.begin(), lane_order.end(), random);
    for (unsigned lane : lane_order) {
      const unsigned rank = warp * kWarp + lane;
      if (rank >= threads.size() || !threads[rank].runnable()) continue;
      current = &threads[rank];
      fiber_of_current = fibers[rank].get();
      fiber_of_current->resume();
      advanced = true;
    }
    return advanced;
  };
  while (living > 0) {
    const unsigned round = barrier.generation;  // whoever completes it must not run ahead, but begin the next in order
    if (shuffled) std::shuffle(warp_order.begin(), warp_order.end(), random);
    for (unsigned warp : warp_order)
      while (barrier.generation == round && advance(warp))
        if (shuffled && random() % 4 == 0) break;
  }
  current = nullptr;
}
#endif

}  // namespace cuda_on_host
