#include "cluster.h"

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>

namespace cuda_on_host {

// A thread as it was at its last cluster_arrive().
static Thread at_arrival(Thread thread) {
  thread.place = thread.arrival;
  return thread;
}

void cluster_arrive(std::source_location at, bool releases) {
  Thread& self = *current;
  ClusterBarrier& barrier = self.block->cluster.barrier;
  self.place = {"cluster_arrive", at};
  if (self.between()) {
    const Thread earlier = at_arrival(self);
    fail("cluster_arrive twice without cluster_wait", {&self, &earlier});
  }
  self.arrival = self.place;
  barrier.memory_order[self.round % 2].fetch_add(1, releases ? std::memory_order_release : std::memory_order_relaxed);
  const OrdersNothing scope;
  {
    const std::lock_guard lock(barrier.mutex);
    if (barrier.arrived == 0) {
      barrier.first = &self;
      barrier.first_to_wait[self.round % 2].block = nullptr;  // of two generations ago, which everyone has left
    }
    if (!(barrier.first->arrival == self.place)) {
      const Thread first = at_arrival(*barrier.first);
      fail("divergent cluster_arrive", {&self, &first});
    }
    if (++barrier.arrived == barrier.expected) release(barrier);
  }
  end_turn();
}

void cluster_wait(std::source_location at) {
  Thread& self = *current;
  ClusterBarrier& barrier = self.block->cluster.barrier;
  self.place = {"cluster_wait", at};
  if (!self.between()) fail("cluster_wait without cluster_arrive", {&self});
  {
    const OrdersNothing scope;
    std::unique_lock lock(barrier.mutex);
    Thread& first = barrier.first_to_wait[self.round % 2];
    if (first.block == nullptr) first = self;
    if (!(first.place == self.place)) fail("divergent cluster_wait", {&self, &first});
    wait(barrier, self.round, lock);
    self.arrival = {};
  }
  barrier.memory_order[self.round++ % 2].load(std::memory_order_acquire);
}

// nullptr where `own` lies elsewhere.
static unsigned char* find_in(const unsigned char* own, Block& peer) {
  Block& block = *current->block;
  const auto offset_in = [own](const auto& memory) {  // not less than its size where it is outside
    return reinterpret_cast<uintptr_t>(own) - reinterpret_cast<uintptr_t>(memory.data());
  };
  if (const size_t offset = offset_in(block.shared_memory); offset < block.shared_memory.size())
    return peer.shared_memory.data() + offset;
  std::unique_lock lock(block.shared_arrays_mutex);
  for (const auto& [key, array] : block.shared_arrays)
    if (const size_t offset = offset_in(array), bytes = array.size(); offset < bytes) {
      lock.unlock();  // the peer may be the same block
      return peer.shared_array(key, bytes) + offset;
    }
  return nullptr;
}

unsigned char* find_shared(const unsigned char* own, unsigned rank, std::source_location at) {
  const OrdersNothing scope;
  const auto fail_at = [at](const std::string& what) {
    current->place = {"map_shared_rank", at};
    fail(("map_shared_rank " + what).c_str(), {current});
  };
  std::deque<Block>& blocks = current->block->cluster.blocks;
  if (rank >= blocks.size())
    fail_at("to rank " + std::to_string(rank) + " in a cluster of " + std::to_string(blocks.size()));
  if (blocks[rank].living == 0) fail_at("to a block that has exited");
  unsigned char* found = find_in(own, blocks[rank]);
  if (found == nullptr) fail_at("of an address that is not in the block's shared memory");
  return found;
}

}  // namespace cuda_on_host
