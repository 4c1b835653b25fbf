// Emulated thread block clusters: the cluster's barrier, and the shared memory of the other blocks.
#pragma once

#include <source_location>

#include "run.h"

namespace cuda_on_host {

inline unsigned cluster_rank() {
  return current->block->rank;
}

inline unsigned cluster_size() {
  return current->block->launch.cluster_blocks;
}

// barrier.cluster.arrive.release tells the cluster that the thread has come here; what it does from here to its
// cluster_wait() is not ordered with what other threads do.
void cluster_arrive(std::source_location at = std::source_location::current(), bool releases = true);

// barrier.cluster.arrive.relaxed: what the thread did before is not made visible to those who wait, either.
inline void cluster_arrive_relaxed(std::source_location at = std::source_location::current()) {
  cluster_arrive(at, /*releases=*/false);
}

// Waits until every living thread of the cluster has arrived as often as this one. Comes after all that they did
// before.
void cluster_wait(std::source_location at = std::source_location::current());

// The byte of the cluster's block `rank` that lies where `own` does in this block's shared memory.
unsigned char* find_shared(const unsigned char* own, unsigned rank, std::source_location at);

// The address, in the shared memory of the cluster's block `rank`, of what lies at `own` in this block's shared memory.
template <class T>
T* map_shared_rank(T* own, unsigned rank, std::source_location at = std::source_location::current()) {
  return reinterpret_cast<T*>(find_shared(reinterpret_cast<const unsigned char*>(own), rank, at));
}

}  // namespace cuda_on_host
