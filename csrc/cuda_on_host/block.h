// What an emulated CUDA launch is made of: clusters of blocks of warps of threads, the barriers they meet at, and what
// is said of them where something goes wrong. run.h makes them run.
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
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <source_location>
#include <string>
#include <vector>

#include "schedule.h"

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
// the last one releases all that wait.
struct Barrier {
  unsigned expected = 0, arrived = 0, waiting = 0, generation = 0;
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
  unsigned generation = 0;  // of that barrier, over when the thread may go on
  Place arrival;            // its cluster_arrive(), until it leaves the cluster_wait() that belongs to it
  unsigned round = 0;       // the generation of the cluster's barrier that it arrives in next

  bool between() const { return arrival.operation != nullptr; }  // arrive and wait
  unsigned lane() const { return rank % kWarp; }
  Warp& warp() const;
  bool runnable() const { return !exited && (waits_for == nullptr || waits_for->generation != generation); }
};

inline constinit thread_local Thread* current = nullptr;  // the CUDA thread that runs

struct Work;

struct Launch {
  dim3 grid, block;
  unsigned cluster_blocks;  // 1 in an ordinary launch
  size_t shared_bytes;      // dynamic, of each block
  std::function<void()> kernel;
  const char* name;        // of the launch function, with the types of the kernel's parameters: says which kernel it is
  Work* before = nullptr;  // that was launched before it and is not over yet

  unsigned threads() const { return block.x * block.y * block.z; }
};

struct Cluster;

// Bytes on their way into a block's shared memory: those at `source`, or a value.
struct Transfer {
  unsigned char* target;
  const unsigned char* source;
  std::vector<unsigned char> value;
  size_t bytes;
};

// An mbarrier. Its generation is the number of phases that are over.
struct ByteCounter : Barrier {
  bool expects = false;  // somebody has said how many bytes end this phase
  size_t expected = 0, coming_bytes = 0;
  std::vector<Transfer> coming;  // in this phase
  std::vector<Transfer> there;   // of phases that are over, until somebody who waited looks
  Mutex delivery;
};

struct Block {
  Cluster& cluster;
  const Launch& launch;
  uint3 index;
  unsigned rank;  // in the cluster
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barrier;
  std::vector<unsigned char> shared_memory;                         // dynamic
  std::map<const void*, std::vector<unsigned char>> shared_arrays;  // static, by key
  std::map<const void*, ByteCounter> counters;                      // by the mbarrier
  Mutex shared_arrays_mutex, begin_mutex, counters_mutex;
  bool begun = false;
  std::atomic<unsigned> living;  // threads that have not exited

  Block(Cluster& cluster, const Launch& launch, uint3 index, unsigned rank)
      : cluster(cluster),
        launch(launch),
        index(index),
        rank(rank),
        threads(launch.threads()),
        warps((threads.size() + kWarp - 1) / kWarp),
        shared_memory(launch.shared_bytes),
        living(launch.threads()) {
    barrier.expected = launch.threads();
    for (unsigned i = 0; i < threads.size(); ++i) {
      Thread& thread = threads[i];
      thread.block = this;
      thread.rank = i;
      thread.index = {i % launch.block.x, i / launch.block.x % launch.block.y, i / (launch.block.x * launch.block.y)};
      ++thread.warp().barrier.expected;
    }
    for (Warp& warp : warps) std::memset(warp.slots, 0xFF, sizeof warp.slots);  // what lanes that do not exist give
  }

  // The array for this key, made, with 0xFF in it, for the first who asks.
  unsigned char* shared_array(const void* key, size_t bytes) {
    const std::lock_guard lock(shared_arrays_mutex);
    std::vector<unsigned char>& array = shared_arrays[key];
    array.resize(bytes, 0xFF);
    return array.data();
  }

  void poison_shared_memory() {
    const std::lock_guard lock(shared_arrays_mutex);
    std::fill(shared_memory.begin(), shared_memory.end(), 0xFF);
    for (auto& [key, array] : shared_arrays) std::fill(array.begin(), array.end(), 0xFF);
  }

  // Before any of its threads runs. What another block of the cluster wrote earlier, into a block that did not exist
  // yet, is lost.
  void begin() {
    const std::lock_guard lock(begin_mutex);
    if (!begun) poison_shared_memory();
    begun = true;
  }

  // After all of its threads have exited. Whoever still reads its shared memory finds poison, or AddressSanitizer.
  void end() {
    poison_shared_memory();
#if defined(__SANITIZE_ADDRESS__)
    shared_memory = std::vector<unsigned char>();
    shared_arrays.clear();
#endif
  }
};

inline Warp& Thread::warp() const {
  return block->warps[rank / kWarp];
}

// cluster_arrive() and cluster_wait(): those who have left one generation may be in the next while others have still to
// leave it.
struct ClusterBarrier : Barrier {
  Thread first_to_wait[2] = {};                // for an even and for an odd generation: as it was then
  std::atomic<unsigned> memory_order[2] = {};  // arrivals release it, waits acquire it: nothing else orders blocks
};

// Blocks that run together: those of a cluster launch, or the one block of an ordinary one.
struct Cluster {
  const Launch& launch;
  std::deque<Block> blocks;  // by rank
  ClusterBarrier barrier;
  bool sends_at_once = false;  // what mbarriers count is there before somebody waits for it
  // Threads that have not exited, and those of them that do not wait. They order nothing.
  std::atomic<unsigned> living, running;

  Cluster(const Launch& launch, uint3 first)
      : launch(launch),
        living(launch.cluster_blocks * launch.threads()),
        running(launch.cluster_blocks * launch.threads()) {
    for (unsigned rank = 0; rank < launch.cluster_blocks; ++rank)
      blocks.emplace_back(*this, launch, uint3{first.x + rank, first.y, first.z}, rank);
    barrier.expected = living;
  }

  void run(Schedule schedule);
};

// ---- what goes wrong ----------------------------------------------------------------------------------------------

// Says which threads stood where, and aborts.
[[noreturn]] void fail(const char* what, const std::vector<const Thread*>& threads);

// Every living thread waits: one thread of each place they wait at.
[[noreturn]] void fail_deadlock(const Cluster& cluster);

}  // namespace cuda_on_host
