// Tests of the emulation of thread block clusters (cluster.h): what correct kernels compute under every
// schedule, and how missing barriers show. cluster_checks_test.cpp has the kernels that must die.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <set>
#include <vector>

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
using cuda_on_host::cluster_size;
using cuda_on_host::cluster_wait;
using cuda_on_host::dynamic_shared_memory;
using cuda_on_host::kSchedules;
using cuda_on_host::launch;
using cuda_on_host::launch_cluster;
using cuda_on_host::map_shared_rank;
using cuda_on_host::Order;
using cuda_on_host::set_schedule;

// ---- correct kernels ----------------------------------------------------------------------------------------------

struct Where {
  unsigned rank, size, x, y;
  bool operator==(const Where&) const = default;
};

__global__ void say_where(Where* where) {
  const unsigned block = blockIdx.y * gridDim.x + blockIdx.x;
  where[block * blockDim.x + threadIdx.x] = {cluster_rank(), cluster_size(), blockIdx.x, blockIdx.y};
}

void test_ranks_and_sizes() {
  constexpr unsigned kThreads = 3;
  for (unsigned size : {1u, 2u, 4u, 8u}) {
    std::vector<Where> where(16 * kThreads);
    launch_cluster(say_where, dim3(8, 2), kThreads, size, 0, nullptr, where.data());
    for (unsigned i = 0; i < where.size(); ++i) {
      const unsigned x = i / kThreads % 8, y = i / kThreads / 8;
      CHECK(where[i] == (Where{x % size, size, x, y}));
    }
  }
  std::vector<Where> where(4);
  launch(say_where, 4, 1, 0, nullptr, where.data());
  for (unsigned x = 0; x < 4; ++x) CHECK(where[x] == (Where{0, 1, x, 0}));
}

// Sums over the cluster of what its threads have, `rounds` times. Partial sums are pushed into slots of every block: a
// static array in even rounds, dynamic shared memory in odd ones.
__global__ void all_reduce(int rounds, unsigned* sums) {
  static const char key = 0;
  unsigned* own[] = {
      static_cast<unsigned*>(cuda_on_host::shared_array(&key, 8 * sizeof(unsigned))),
      static_cast<unsigned*>(dynamic_shared_memory())};
  unsigned* totals = own[1] + 8;  // of the block's threads
  cluster_arrive();               // all blocks must have begun before one writes into another
  cluster_wait();
  for (int round = 0; round < rounds; ++round) {
    unsigned* slots = own[round % 2];
    totals[threadIdx.x] = (blockIdx.x + 1) * (threadIdx.x + 1) + round;
    __syncthreads();
    if (threadIdx.x < cluster_size()) {
      unsigned total = 0;
      for (unsigned i = 0; i < blockDim.x; ++i) total += totals[i];
      map_shared_rank(slots, threadIdx.x)[cluster_rank()] = total;
    }
    cluster_arrive();
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;  // anything may be done here that is one's own
    cluster_wait();
    unsigned sum = 0;
    for (unsigned i = 0; i < cluster_size(); ++i) sum += slots[i];
    sums[round * gridDim.x * blockDim.x + thread] = sum;
    // Nothing more: the next round writes other slots, and the one after that comes behind another barrier.
  }
}

void check_all_reduce(unsigned size, unsigned threads) {
  const unsigned blocks = 2 * size, rounds = 5;
  std::vector<unsigned> sums(rounds * blocks * threads);
  launch_cluster(
      all_reduce, blocks, threads, size, (8 + threads) * sizeof(unsigned), nullptr, int(rounds), sums.data());
  for (unsigned i = 0; i < sums.size(); ++i) {
    const unsigned round = i / (blocks * threads), first = i / threads % blocks / size * size;
    unsigned expected = round * size * threads;
    for (unsigned block = first; block < first + size; ++block) expected += (block + 1) * threads * (threads + 1) / 2;
    CHECK(sums[i] == expected);
  }
}

void test_all_reduce() {
#if defined(TAD_CUDA_ON_HOST_THREADS)
  for (unsigned size : {1u, 4u}) check_all_reduce(size, 40);
#else
  for (cuda_on_host::Schedule schedule : kSchedules) {
    set_schedule(schedule);
    for (unsigned size : {1u, 2u, 3u, 8u})
      for (unsigned threads : {8u, 40u, 256u}) check_all_reduce(size, threads);
  }
  check_all_reduce(8, 1024);
#endif
}

// Some threads of each block exit at once, others after the first barrier, and all of the cluster's last block.
__global__ void exit_early(unsigned stay, unsigned* left) {
  unsigned* shared = static_cast<unsigned*>(dynamic_shared_memory());
  if (cluster_rank() == cluster_size() - 1 || threadIdx.x > stay) return;
  shared[threadIdx.x] = threadIdx.x;
  cluster_arrive();
  cluster_wait();
  if (threadIdx.x == stay) return;
  for (unsigned rank = 0; rank < cluster_size() - 1; ++rank)
    left[cluster_rank() * stay + threadIdx.x] += map_shared_rank(shared, rank)[threadIdx.x];
  cluster_arrive();
  cluster_wait();
}

void test_exited_threads_count_as_arrived() {
  for (cuda_on_host::Schedule schedule : kSchedules) {
    set_schedule(schedule);
    for (unsigned stay : {1u, 20u, 32u, 40u}) {
      std::vector<unsigned> left(3 * stay);
      launch_cluster(exit_early, 4, 50, 4, 50 * sizeof(unsigned), nullptr, stay, left.data());
      for (unsigned i = 0; i < left.size(); ++i) CHECK(left[i] == 3 * (i % stay));
    }
  }
}

__global__ void mark(bool* ran) {
  if (threadIdx.x == 0 && blockIdx.x == 0) *ran = true;
}

void test_error_codes() {
  const auto run = [](dim3 grid, unsigned cluster_blocks, size_t shared_bytes = 0) {
    bool ran = false;
    launch_cluster(mark, grid, 1, cluster_blocks, shared_bytes, nullptr, &ran);
    CHECK(ran == (cudaPeekAtLastError() == cudaSuccess));
    return cudaGetLastError();
  };
  for (unsigned size = 1; size <= 8; ++size) CHECK(run(2 * size, size) == cudaSuccess);
  for (unsigned size : {0u, 5u, 17u}) CHECK(run(9 * 16, size) == cudaErrorInvalidConfiguration);
  CHECK(run(9 * 16, 16) == cudaErrorInvalidClusterSize);
  for (unsigned grid : {1u, 3u, 5u, 0u}) CHECK(run(grid, 2) == cudaErrorInvalidConfiguration);
  CHECK(run(dim3(1, 2), 2) == cudaErrorInvalidConfiguration);
  CHECK(run(2, 2, (48 << 10) + 1) == cudaErrorInvalidValue);

  cuda_on_host::device = {.multiprocessors = 108, .shared_bytes_per_block = 163 << 10, .clusters = false};
  CHECK(run(2, 2) == cudaErrorNotSupported && run(2, 1) == cudaSuccess);
  CHECK(cudaFuncSetAttribute(mark, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 << 10) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  cuda_on_host::device = {.multiprocessors = 1};  // with room for 32 blocks, but for three of so much shared memory
  CHECK(cudaFuncSetAttribute(mark, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 << 10) == cudaSuccess);
  CHECK(run(8, 8) == cudaSuccess && run(2, 2, 63 << 10) == cudaSuccess);
  CHECK(run(4, 4, 63 << 10) == cudaErrorInvalidClusterSize && run(1, 1, 63 << 10) == cudaSuccess);
  cuda_on_host::device = {};
  CHECK(!std::strcmp(cudaGetErrorString(cudaErrorNotSupported), "operation not supported"));
}

// ---- missing barriers ---------------------------------------------------------------------------------------------

// One block passes a value to another: with the barrier of the cluster before or without it; or too late, behind the
// sender's arrival; or received too early, before the receiver's wait; or before the receiver has begun.
enum class Between { barrier, nothing, syncthreads, sent_late, received_early, not_begun };

template <Between kBetween>
__global__ void pass_value(unsigned from, unsigned to, unsigned thread, int* received) {
  int* shared = static_cast<int*>(dynamic_shared_memory());
  const auto send = [&] {
    if (cluster_rank() == from && threadIdx.x == thread) *map_shared_rank(shared, to) = 1;
  };
  const auto receive = [&] {
    if (cluster_rank() == to && threadIdx.x == 0) *received = *shared;
  };
  if (kBetween != Between::not_begun) {
    cluster_arrive();
    cluster_wait();
  }
  if (kBetween != Between::sent_late) send();
  if (kBetween == Between::nothing) receive();
  if (kBetween == Between::syncthreads) {
    __syncthreads();
    receive();
  }
  cluster_arrive();
  if (kBetween == Between::sent_late) send();
  if (kBetween == Between::received_early) receive();
  cluster_wait();
  if (kBetween == Between::barrier || kBetween == Between::sent_late || kBetween == Between::not_begun) receive();
  cluster_arrive();
  cluster_wait();  // no block exits while another one may still write into it
}

template <Between kBetween>
int passed_value(unsigned size, unsigned from, unsigned to, unsigned thread) {
  int received = 0;
  launch_cluster(pass_value<kBetween>, size, 64, size, sizeof(int), nullptr, from, to, thread, &received);
  return received;
}

void test_barrier_passes_values() {
  for (cuda_on_host::Schedule schedule : kSchedules) {
    set_schedule(schedule);
    for (auto [from, to] : {std::pair(0, 2), {2, 0}, {1, 2}, {1, 1}})
      for (unsigned thread : {0u, 9u, 63u}) CHECK(passed_value<Between::barrier>(3, from, to, thread) == 1);
  }
}

#if !defined(TAD_CUDA_ON_HOST_THREADS)  // there the operating system decides

// Without its barrier a value arrives under forward or under reverse, not under both.
template <Between kBetween>
bool one_order_shows_it(unsigned size, unsigned from, unsigned to, unsigned thread) {
  int arrived = 0;
  for (Order order : {Order::forward, Order::reverse}) {
    set_schedule({order});
    const int received = passed_value<kBetween>(size, from, to, thread);
    CHECK(received == 1 || received == -1);  // 0xFF bytes where it is too early
    arrived += received == 1;
  }
  return arrived == 1;
}

void test_missing_barriers_show() {
  for (unsigned thread : {0u, 31u, 63u}) {
    for (unsigned from : {0u, 1u, 2u})
      for (unsigned to : {0u, 1u, 2u}) {
        if (from == to) continue;
        CHECK(one_order_shows_it<Between::nothing>(3, from, to, thread));
        CHECK(one_order_shows_it<Between::syncthreads>(3, from, to, thread));
        CHECK(one_order_shows_it<Between::not_begun>(3, from, to, thread));
      }
    for (auto [from, to] : {std::pair(0, 1), {1, 0}}) {
      CHECK(one_order_shows_it<Between::sent_late>(2, from, to, thread));
      CHECK(one_order_shows_it<Between::received_early>(2, from, to, thread));
    }
  }
}

__global__ void record_order(std::vector<unsigned>* order) {
  order->push_back(blockIdx.x * blockDim.x + threadIdx.x);
}

std::vector<unsigned> recorded_order(unsigned blocks, unsigned size, unsigned threads) {
  std::vector<unsigned> order;
  launch_cluster(record_order, blocks, threads, size, 0, nullptr, &order);
  return order;
}

void test_orders() {
  std::vector<unsigned> ascending(160);
  std::iota(ascending.begin(), ascending.end(), 0);
  set_schedule({Order::forward});
  CHECK(recorded_order(4, 4, 40) == ascending);
  const std::vector<unsigned> clusters = recorded_order(160, 2, 1);
  CHECK(clusters != ascending && std::set(clusters.begin(), clusters.end()).size() == 160);
  for (size_t i = 0; i < clusters.size(); i += 2) CHECK(clusters[i] % 2 == 0 && clusters[i + 1] == clusters[i] + 1);
  set_schedule({Order::reverse});
  CHECK(recorded_order(4, 4, 40) == std::vector(ascending.rbegin(), ascending.rend()));
  set_schedule({Order::shuffled, 1});
  const std::vector<unsigned> shuffled = recorded_order(4, 4, 40);
  CHECK(shuffled != ascending && std::set(shuffled.begin(), shuffled.end()).size() == 160);
  CHECK(recorded_order(4, 4, 40) == shuffled);
}

#elif defined(__SANITIZE_THREAD__)

void test_missing_barriers_are_races() {
  using cuda_on_host::dies;
  CHECK(dies([] { passed_value<Between::nothing>(2, 0, 1, 33); }, {"data race", "pass_value"}));
  CHECK(dies([] { passed_value<Between::syncthreads>(2, 1, 0, 33); }, {"data race", "pass_value"}));
  CHECK(dies([] { passed_value<Between::sent_late>(2, 0, 1, 33); }, {"data race", "pass_value"}));
  CHECK(dies([] { passed_value<Between::received_early>(2, 1, 0, 33); }, {"data race", "pass_value"}));
  CHECK(dies([] { passed_value<Between::not_begun>(2, 0, 1, 33); }, {"data race", "pass_value"}));
}

#endif

}  // namespace

int main() {
  test_ranks_and_sizes();
  test_all_reduce();
  test_exited_threads_count_as_arrived();
  test_error_codes();
  test_barrier_passes_values();
#if !defined(TAD_CUDA_ON_HOST_THREADS)
  test_missing_barriers_show();
  test_orders();
#elif defined(__SANITIZE_THREAD__)
  test_missing_barriers_are_races();
#endif
  return tad::checks::report();
}
