// What the launchers want to know about a device: no CUDA header.
#pragma once

#include <cstdlib>
#include <string_view>

namespace tad {
namespace cuda {

constexpr int kPortableClusterBlocks = 8;  // that a device with clusters has room for
constexpr int kMaxClusterBlocks = 16;      // that a Hopper has, and a kernel must be allowed to use

struct Device {
  int multiprocessors = 1, l2_bytes = 1 << 20, shared_bytes_per_block = 48 << 10;
  int cluster_blocks = 1;    // of the largest cluster that it has room for; 1: there are none
  bool like_hopper = false;  // it, and the code for it, know clusters, bulk copies, and kernels that begin early
};

/// How whole rows come into shared memory where the device has all ways: the variable TAD_CUDA_LOADER, asked for at
/// every launch, so that one process can measure them. By the copy engine, a row ahead or when a cluster begins with
/// it, or by the threads.
constexpr std::string_view kAheadLoader = "ahead", kBulkLoader = "bulk", kThreadLoader = "threads";
inline std::string_view loader() {
  const char* chosen = std::getenv("TAD_CUDA_LOADER");
  return chosen && *chosen ? chosen : kAheadLoader;
}
inline bool loader_is_known() {
  return loader() == kAheadLoader || loader() == kBulkLoader || loader() == kThreadLoader;
}

/// The largest power of two up to kMaxClusterBlocks that fits(blocks); 1 if none does.
template <class Fits>
int largest_cluster(const Fits& fits) {
  int blocks = kMaxClusterBlocks;
  while (blocks > 1 && !fits(blocks)) blocks /= 2;
  return blocks;
}

/// So many clusters, where one for each of `count` rows would be too many to run at a time, that all run at a time, or
/// a few times as many: then one that finds no room at first is late by a few rows only. All have as many rows, or one
/// less; so many that the fewest rounds pass, where a cluster's beginning counts as a third of a row.
inline unsigned clusters_that_stay(unsigned count, unsigned at_a_time) {
  constexpr unsigned kMostRows = 8;
  if (count == 0 || at_a_time == 0) return count;  // no rows, or the device cannot tell
  const auto in_parts = [](unsigned whole, unsigned part) { return (whole + part - 1) / part; };
  const unsigned rounds = in_parts(count, at_a_time);
  const auto thirds = [&](unsigned rows) { return in_parts(rounds, rows) * (3 * rows + 1); };
  unsigned rows = 1;
  for (unsigned more = 2; more <= kMostRows; ++more)
    if (thirds(more) <= thirds(rows)) rows = more;
  return in_parts(count, rows);
}

}  // namespace cuda
}  // namespace tad
