// Tests that kernels which break the rules of clusters die with the right message, and that the shared memory of a
// block that has exited is no longer what it was.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "../tests/check.h"
#include "death.h"
#include "language.h"

#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_options() {
  return "atexit_sleep_ms=0";  // instead of one second for each of the children below
}
#endif

namespace {

using cuda_on_host::cluster_arrive;
using cuda_on_host::cluster_rank;
using cuda_on_host::cluster_wait;
using cuda_on_host::dies;
using cuda_on_host::dynamic_shared_memory;
using cuda_on_host::kSchedules;
using cuda_on_host::launch_cluster;
using cuda_on_host::map_shared_rank;
using cuda_on_host::set_schedule;

std::string at(const char* operation, int line) {
  return std::string(operation) + " at " + __FILE__ + ":" + std::to_string(line) + " in ";
}

// ---- the barrier --------------------------------------------------------------------------------------------------

constexpr int kWaitLine = __LINE__;
__global__ void wait_only() {
  cluster_wait();
}

constexpr int kTwiceLine = __LINE__;
__global__ void arrive_twice() {
  cluster_arrive();
  __syncthreads();
  cluster_arrive();
}

constexpr int kArriveLine = __LINE__;
__global__ void divergent_arrive() {
  if (cluster_rank() == 0)
    cluster_arrive();
  else
    cluster_arrive();
  cluster_wait();
}

constexpr int kDivergentWaitLine = __LINE__;
__global__ void divergent_wait() {
  cluster_arrive();
  if (cluster_rank() == 0)
    cluster_wait();
  else
    cluster_wait();
}

constexpr int kDeadlockLine = __LINE__;
__global__ void deadlock() {
  if (cluster_rank() == 1 && threadIdx.x == 7) __syncthreads();
  cluster_arrive();
  cluster_wait();
}

constexpr int kExitLine = __LINE__;
__global__ void exit_in_between() {
  cluster_arrive();
  if (cluster_rank() == 1 && threadIdx.x == 33) return;
  cluster_wait();
}

// The last one to exit leaves the others at their barrier of the block.
constexpr int kExitDeadlockLine = __LINE__;
__global__ void exit_into_deadlock() {
  if (cluster_rank() == 1) return;
  if (threadIdx.x == 0) __syncthreads();
  cluster_arrive();
  cluster_wait();
}

void test_broken_barriers_die() {
  for (cuda_on_host::Schedule schedule : kSchedules) {
    set_schedule(schedule);
    CHECK(dies(
        [] { launch_cluster(wait_only, 2, 1, 2, 0, nullptr); },
        {"cuda_on_host: cluster_wait without cluster_arrive in block (", at("cluster_wait", kWaitLine + 2),
         "thread (0, 0, 0) of block (", "wait_only"}));
    CHECK(dies(
        [] { launch_cluster(arrive_twice, 2, 64, 2, 0, nullptr); },
        {"cuda_on_host: cluster_arrive twice without cluster_wait in block (", at("cluster_arrive", kTwiceLine + 2),
         at("cluster_arrive", kTwiceLine + 4)}));
    CHECK(dies(
        [] { launch_cluster(divergent_arrive, 2, 64, 2, 0, nullptr); },
        {"cuda_on_host: divergent cluster_arrive in block (",
         "of block (0, 0, 0): " + at("cluster_arrive", kArriveLine + 3),
         "of block (1, 0, 0): " + at("cluster_arrive", kArriveLine + 5)}));
    CHECK(dies(
        [] { launch_cluster(divergent_wait, 2, 64, 2, 0, nullptr); },
        {"cuda_on_host: divergent cluster_wait in block (", at("cluster_wait", kDivergentWaitLine + 4),
         at("cluster_wait", kDivergentWaitLine + 6)}));
    CHECK(dies(
        [] { launch_cluster(deadlock, 2, 64, 2, 0, nullptr); },
        {"cuda_on_host: deadlock in block (", at("cluster_wait", kDeadlockLine + 4),
         "thread (7, 0, 0) of block (1, 0, 0): " + at("__syncthreads", kDeadlockLine + 2)}));
    CHECK(dies(
        [] { launch_cluster(exit_in_between, 2, 64, 2, 0, nullptr); },
        {"cuda_on_host: cluster_arrive without cluster_wait in block (1, 0, 0)",
         "thread (33, 0, 0) of block (1, 0, 0): exited, after " + at("cluster_arrive", kExitLine + 2)}));
    CHECK(dies(
        [] { launch_cluster(exit_into_deadlock, 2, 64, 2, 0, nullptr); },
        {"cuda_on_host: deadlock in block (0, 0, 0)", at("__syncthreads", kExitDeadlockLine + 3),
         at("cluster_wait", kExitDeadlockLine + 5)}));
  }
}

// ---- shared memory of other blocks --------------------------------------------------------------------------------

int global = 0;

constexpr int kGlobalLine = __LINE__;
__global__ void map_global() {
  map_shared_rank(&global, 1);
}

__global__ void map_local() {
  int local = 0;
  map_shared_rank(&local, 0);
}

// What map_shared_rank() returned is not an address of this block's own.
__global__ void map_again() {
  if (cluster_rank() == 0) map_shared_rank(map_shared_rank(static_cast<int*>(dynamic_shared_memory()), 1), 1);
  cluster_arrive();
  cluster_wait();
}

__global__ void map_end() {
  map_shared_rank(static_cast<int*>(dynamic_shared_memory()) + 4, 0);
}

__global__ void map_rank_2() {
  map_shared_rank(static_cast<int*>(dynamic_shared_memory()), 2);
}

constexpr int kExitedLine = __LINE__;
__global__ void map_exited() {
  if (cluster_rank() == 0) return;
  cluster_arrive();
  cluster_wait();  // until all threads of the other block have exited
  map_shared_rank(static_cast<int*>(dynamic_shared_memory()), 0);
}

void test_broken_mappings_die() {
  const std::string elsewhere = "cuda_on_host: map_shared_rank of an address that is not in the block's shared memory";
  for (cuda_on_host::Schedule schedule : kSchedules) {
    set_schedule(schedule);
    CHECK(dies(
        [] { launch_cluster(map_global, 2, 1, 2, 16, nullptr); },
        {elsewhere, at("map_shared_rank", kGlobalLine + 2), "map_global"}));
    CHECK(dies([] { launch_cluster(map_local, 2, 1, 2, 16, nullptr); }, {elsewhere, "map_local"}));
    CHECK(dies([] { launch_cluster(map_again, 2, 1, 2, 16, nullptr); }, {elsewhere, "map_again"}));
    CHECK(dies([] { launch_cluster(map_end, 2, 1, 2, 16, nullptr); }, {elsewhere, "map_end"}));
    CHECK(dies(
        [] { launch_cluster(map_rank_2, 2, 1, 2, 16, nullptr); },
        {"cuda_on_host: map_shared_rank to rank 2 in a cluster of 2 in block ("}));
    CHECK(dies(
        [] { launch_cluster(map_exited, 2, 64, 2, 16, nullptr); },
        {"cuda_on_host: map_shared_rank to a block that has exited in block (1, 0, 0)",
         at("map_shared_rank", kExitedLine + 5)}));
  }
}

// Block 1 reads what block 0 had, and once more after block 0 has exited.
__global__ void read_exited(int* values) {
  static const char key = 0;
  int* own[] = {
      static_cast<int*>(dynamic_shared_memory()), static_cast<int*>(cuda_on_host::shared_array(&key, sizeof(int)))};
  const int* peers[] = {map_shared_rank(own[0], 0), map_shared_rank(own[1], 0)};
  const bool reads = cluster_rank() == 1 && threadIdx.x == 0;
  if (threadIdx.x == 0) *own[0] = *own[1] = 5;
  cluster_arrive();
  cluster_wait();
  for (int i = 0; i < 2; ++i)
    if (reads) values[i] = *peers[i];
  cluster_arrive();
  cluster_wait();
  if (cluster_rank() == 0) return;
  cluster_arrive();
  cluster_wait();  // for block 0 to exit
  for (int i = 0; i < 2; ++i)
    if (reads) values[2 + i] = *peers[i];
}

void read_after_exit() {
  int values[4] = {};
  launch_cluster(read_exited, 2, 64, 2, sizeof(int), nullptr, values);
  std::fprintf(stderr, "values %d %d %d %d\n", values[0], values[1], values[2], values[3]);
}

void test_exited_blocks_have_no_shared_memory() {
  for (cuda_on_host::Schedule schedule : kSchedules) {
    set_schedule(schedule);
#if defined(__SANITIZE_ADDRESS__)
    CHECK(dies(read_after_exit, {"heap-use-after-free", "read_exited"}));
#elif defined(__SANITIZE_THREAD__)
    CHECK(dies(read_after_exit, {"data race", "read_exited", "values 5 5 -1 -1"}));
#else
    CHECK(cuda_on_host::death_of(read_after_exit) == "survived\nvalues 5 5 -1 -1\n");
#endif
  }
}

}  // namespace

int main() {
  test_broken_barriers_die();
  test_broken_mappings_die();
  test_exited_blocks_have_no_shared_memory();
  return tad::checks::report();
}
