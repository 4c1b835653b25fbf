#include "run.h"

#include <algorithm>
#include <deque>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#if !defined(TAD_CUDA_ON_HOST_THREADS)
#include "fiber.h"
#endif

namespace cuda_on_host {

// ---- waiting ------------------------------------------------------------------------------------------------------

#if !defined(TAD_CUDA_ON_HOST_THREADS)
static constinit thread_local Fiber* fiber_of_current = nullptr;
#endif

void end_turn() {
#if !defined(TAD_CUDA_ON_HOST_THREADS)
  fiber_of_current->suspend();
#endif
}

void release(Barrier& barrier) {
  current->block->cluster.running.fetch_add(barrier.waiting, std::memory_order_relaxed);
  barrier.arrived = barrier.waiting = 0;
  ++barrier.generation;
#if defined(TAD_CUDA_ON_HOST_THREADS)
  barrier.released.notify_all();
#endif
}

void wait(Barrier& barrier, unsigned generation, [[maybe_unused]] std::unique_lock<Mutex>& lock) {
  Thread& self = *current;
  Cluster& cluster = self.block->cluster;
  self.waits_for = &barrier;
  self.generation = generation;
  if (!self.runnable()) {
    ++barrier.waiting;
    if (cluster.running.fetch_sub(1, std::memory_order_relaxed) == 1) fail_deadlock(cluster);
  }
#if defined(TAD_CUDA_ON_HOST_THREADS)
  barrier.released.wait(lock, [&] { return self.runnable(); });
#endif
  end_turn();  // of the last one to arrive too
}

constexpr const char* kLaneExited = "lane exited before its warp's operation";

void arrive_and_wait(Barrier& barrier, Place place, const char* divergence) {
  Thread& self = *current;
  std::unique_lock lock(barrier.mutex);
  self.place = place;
  if (barrier.arrived == 0) barrier.first = &self;
  if (!(barrier.first->place == place)) fail(divergence, {&self, barrier.first});
  if (barrier.exited != nullptr) fail(kLaneExited, {barrier.exited, &self});
  const unsigned generation = barrier.generation;
  if (++barrier.arrived == barrier.expected) release(barrier);
  wait(barrier, generation, lock);
}

// Exited threads count as arrived at the barriers of the block and of the cluster, as in hardware.
static void leave(Barrier& barrier) {
  const std::lock_guard lock(barrier.mutex);
  if (--barrier.expected == barrier.arrived && barrier.arrived > 0) release(barrier);
}

static void check_that_all_is_waited_for(Block& block) {
  const OrdersNothing scope;
  const std::lock_guard lock(block.counters_mutex);
  for (auto& [barrier, counter] : block.counters) {
    const std::lock_guard of_counter(counter.mutex);
    if (!counter.coming.empty() || !counter.there.empty())
      fail("a block that exits before it has waited for what comes to its shared memory", {current});
  }
}

// A warp operation, however, must find all lanes of its warp, and cluster_arrive() needs its cluster_wait().
static void exit_current_thread() {
  Thread& self = *current;
  Block& block = *self.block;
  Cluster& cluster = block.cluster;
  {
    Warp& warp = self.warp();
    const std::lock_guard lock(warp.barrier.mutex);
    self.exited = true;
    warp.barrier.exited = &self;
    if (warp.barrier.arrived > 0) fail(kLaneExited, {&self, warp.barrier.first});
  }
  if (self.between()) {
    self.place = self.arrival;
    fail("cluster_arrive without cluster_wait", {&self});
  }
  leave(block.barrier);
  // All that the block's threads did comes before its end.
  if (block.living.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    check_that_all_is_waited_for(block);
    block.end();
  }
  const OrdersNothing scope;
  leave(cluster.barrier);
  --cluster.living;  // before it stops running: whoever finds that nothing runs must not take it for one that waits
  if (--cluster.running == 0 && cluster.living > 0) fail_deadlock(cluster);
}

// What an emulated thread does from beginning to end.
static void run_current_thread() {
  current->block->begin();
  current->block->launch.kernel();
  exit_current_thread();
}

// ---- running ------------------------------------------------------------------------------------------------------

#if defined(TAD_CUDA_ON_HOST_THREADS)
void Cluster::run(Schedule) {
  std::vector<std::thread> os_threads;
  for (Block& block : blocks)
    for (Thread& thread : block.threads)
      os_threads.emplace_back([&thread] {
        current = &thread;
        run_current_thread();
      });
  for (std::thread& os_thread : os_threads) os_thread.join();
}
#else
namespace {

// Gives the threads of a cluster their turns, in the order that a schedule asks for.
class Turns {
 public:
  Turns(Cluster& cluster, std::deque<Fiber>& fibers, Schedule schedule)
      : cluster_(cluster),
        fibers_(fibers),
        shuffled_(schedule.order == Order::shuffled),
        random_(schedule.seed),
        blocks_(cluster.blocks.size()),
        warps_(cluster.blocks[0].warps.size()),
        lanes_(kWarp) {
    for (std::vector<unsigned>* order : {&blocks_, &warps_, &lanes_}) {
      std::iota(order->begin(), order->end(), 0);
      if (schedule.order == Order::reverse) std::reverse(order->begin(), order->end());
    }
    while (fibers.size() < cluster.living) fibers.emplace_back(run_current_thread, unsigned(fibers.size()));
  }

  // Until a generation of the cluster's barrier is over: whoever completes it must not run ahead, but begin the next
  // one in order. What a thread does between its arrive and its wait may come before what another block does until it
  // arrives, and as well after what that does when it has waited: the last block, for which all others wait, holds its
  // threads back once they have arrived, as long as others of them can go on.
  void advance_cluster() {
    round_ = cluster_.barrier.generation;
    shuffle(blocks_);
    for (unsigned rank : blocks_)
      for (bool hold : {shuffled_ ? random_() % 2 == 0 : rank == blocks_.back(), false}) {
        hold_ = hold;
        for (bool more = true; more && !is_left_in_the_middle();) more = advance_block(cluster_.blocks[rank]);
      }
  }

 private:
  // Likewise for the barrier of the block.
  bool advance_block(Block& block) {
    bool advanced = false;
    const unsigned round = block.barrier.generation;
    shuffle(warps_);
    for (unsigned warp : warps_)
      while (block.barrier.generation == round && advance_warp(block, warp)) {
        advanced = true;
        if (is_left_in_the_middle()) break;
      }
    return advanced;
  }

  // Gives each lane that can run one turn.
  bool advance_warp(Block& block, unsigned warp) {
    if (cluster_.barrier.generation != round_) return false;
    bool advanced = false;
    shuffle(lanes_);
    for (unsigned lane : lanes_) {
      const unsigned i = warp * kWarp + lane;
      if (i >= block.threads.size() || !block.threads[i].runnable()) continue;
      if (hold_ && block.threads[i].between() && block.threads[i].round == round_) continue;
      current = &block.threads[i];
      fiber_of_current = &fibers_[block.rank * block.threads.size() + i];
      fiber_of_current->resume();
      advanced = true;
    }
    return advanced;
  }

  void shuffle(std::vector<unsigned>& order) {
    if (shuffled_) std::shuffle(order.begin(), order.end(), random_);
  }
  bool is_left_in_the_middle() { return shuffled_ && random_() % 4 == 0; }

  Cluster& cluster_;
  std::deque<Fiber>& fibers_;
  bool shuffled_;
  std::mt19937 random_;
  std::vector<unsigned> blocks_, warps_, lanes_;  // their order
  unsigned round_ = 0;
  bool hold_ = false;
};

}  // namespace

void Cluster::run(Schedule schedule) {
  static thread_local std::deque<Fiber> fibers;  // kept from launch to launch
  sends_at_once = schedule.order == Order::reverse;
  Turns turns(*this, fibers, schedule);
  while (living > 0) turns.advance_cluster();
  current = nullptr;
}
#endif

}  // namespace cuda_on_host
