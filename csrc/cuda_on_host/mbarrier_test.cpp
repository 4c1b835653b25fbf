// Tests of the emulated mbarriers (mbarrier.h): what comes by bulk copies and from the cluster's other blocks, and what
// kernels die of that use them wrongly.
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "../tests/check.h"
#include "death.h"
#include "language.h"
#include "mbarrier.h"

#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_options() {
  return "atexit_sleep_ms=0";  // instead of one second for each of the children below
}
#endif

namespace {

using namespace cuda_on_host;

MBarrier* barriers() {
  static const char key = 0;
  return static_cast<MBarrier*>(cuda_on_host::shared_array(&key, 2 * sizeof(MBarrier)));
}

unsigned* memory() {
  return static_cast<unsigned*>(dynamic_shared_memory());
}

// ---- correct kernels ----------------------------------------------------------------------------------------------

// Two phases of one barrier, each of two copies that are asked for in another order relative to what is expected.
__global__ void copy_in_phases(const unsigned* from, unsigned* to) {
  unsigned* own = memory();
  if (threadIdx.x == 0) mbarrier_init(barriers());
  __syncthreads();
  for (unsigned phase = 0; phase < 2; ++phase) {
    if (threadIdx.x == 0) {
      bulk_copy(own, from + 8 * phase, 16, barriers());
      mbarrier_expect(barriers(), 32);
      bulk_copy(own + 4, from + 8 * phase + 4, 16, barriers());
    }
    mbarrier_wait(barriers(), phase % 2);
    if (threadIdx.x < 8) to[8 * phase + threadIdx.x] = own[threadIdx.x];
    __syncthreads();  // all have read
  }
}

void test_copies_come_when_they_are_waited_for() {
  alignas(16) unsigned from[16], to[16] = {};
  std::iota(from, from + 16, 1u);
  for (Schedule schedule : kSchedules) {
    set_schedule(schedule);
    std::fill(to, to + 16, 0);
    launch(copy_in_phases, 1, 64, 32, nullptr, from, to);
    CHECK(std::equal(from, from + 16, to));
  }
}

// Sums over the cluster, `rounds` times, in two sets of slots: what a block has is sent to all.
__global__ void all_reduce(unsigned rounds, unsigned* sums) {
  if (threadIdx.x < 2) mbarrier_init(barriers() + threadIdx.x);
  cluster_arrive_relaxed();
  cluster_wait();
  for (unsigned round = 0; round < rounds; ++round) {
    const unsigned set = round % 2, own = blockIdx.x * 10 + round;
    unsigned* slots = memory() + 4 * set;
    if (threadIdx.x == 0) mbarrier_expect(barriers() + set, cluster_size() * sizeof(unsigned));
    if (threadIdx.x < cluster_size())
      store_async(threadIdx.x, slots + cluster_rank(), &own, sizeof own, barriers() + set);
    mbarrier_wait(barriers() + set, round / 2 % 2);
    if (threadIdx.x == 0) sums[round * gridDim.x + blockIdx.x] = std::accumulate(slots, slots + cluster_size(), 0u);
    __syncwarp();  // nobody sends again before all have read
  }
}

__global__ void prefetch(const unsigned* from, size_t bytes) {
  bulk_prefetch(from, bytes);
}

void test_prefetches_are_told() {
  alignas(16) static unsigned from[16];
  const void* told = nullptr;
  when_prefetched = [&](const void* global, size_t bytes) { told = bytes == 32 ? global : nullptr; };
  launch(prefetch, 1, 1, 0, nullptr, from + 8, size_t(32));
  CHECK(told == from + 8);
  when_prefetched = nullptr;
  CHECK(dies([] { launch(prefetch, 1, 1, 0, nullptr, from, size_t(8)); }, {"not of whole 16 bytes"}));
  CHECK(dies([] { launch(prefetch, 1, 1, 0, nullptr, from + 1, size_t(16)); }, {"not of whole 16 bytes"}));
#if defined(__SANITIZE_ADDRESS__)
  CHECK(dies([] { launch(prefetch, 1, 1, 0, nullptr, from, size_t(80)); }, {"of what is not there"}));
#endif
}

void test_blocks_send_each_other() {
  constexpr unsigned kRounds = 5, kBlocks = 4;
  for (Schedule schedule : kSchedules) {
    set_schedule(schedule);
    std::vector<unsigned> sums(kRounds * kBlocks);
    launch_cluster(all_reduce, kBlocks, 32, kBlocks, 8 * sizeof(unsigned), nullptr, kRounds, sums.data());
    for (unsigned i = 0; i < sums.size(); ++i) CHECK(sums[i] == 60 + kBlocks * (i / kBlocks));
  }
}

// ---- kernels that break the rules ---------------------------------------------------------------------------------

__global__ void not_waited_for(const unsigned* from, unsigned* to) {
  if (threadIdx.x == 0) {
    mbarrier_init(barriers());
    mbarrier_expect(barriers(), 16);
    bulk_copy(memory(), from, 16, barriers());
    *to = *memory();
    mbarrier_wait(barriers(), 0);
  }
}

void test_what_is_not_waited_for_is_not_there() {
  alignas(16) const unsigned from[4] = {1, 2, 3, 4};
  unsigned to = 0;
  launch(not_waited_for, 1, 1, 16, nullptr, from, &to);
  CHECK(to == ~0u);
}

alignas(16) unsigned global[8];

void (*body)();
__global__ void one_thread() {
  if (threadIdx.x == 0) body();
}
bool dies_of(void (*broken)(), const char* message) {
  body = broken;
  return dies([] { launch(one_thread, 1, 32, 32, nullptr); }, {message});
}

void begin_expecting(size_t bytes) {
  mbarrier_init(barriers());
  mbarrier_expect(barriers(), bytes);
}

// What one block sends comes with the bytes that were sent, and nothing else that was written before.
__global__ void send_word_of_other_data(unsigned* data, unsigned* seen) {
  if (threadIdx.x == 0) mbarrier_init(barriers());
  cluster_arrive_relaxed();
  cluster_wait();
  const unsigned word = 1;
  if (cluster_rank() == 0 && threadIdx.x == 0) {
    *data = 5;
    store_async(1, memory(), &word, sizeof word, barriers());
  }
  if (cluster_rank() == 1 && threadIdx.x == 0) {
    mbarrier_expect(barriers(), sizeof word);
    mbarrier_wait(barriers(), 0);
    *seen = *data;
  }
}

__global__ void exit_before_it_came() {
  if (threadIdx.x == 0) mbarrier_init(barriers());
  cluster_arrive_relaxed();
  cluster_wait();
  const unsigned word = 1;
  if (cluster_rank() == 0 && threadIdx.x == 0) store_async(1, memory(), &word, sizeof word, barriers());
  cluster_arrive_relaxed();
  cluster_wait();
}

void test_broken_kernels_die() {
  CHECK(dies_of([] { mbarrier_wait(barriers(), 0); }, "an mbarrier that is not initialized"));
  CHECK(dies_of(
      [] {
        mbarrier_init(barriers());
        mbarrier_init(barriers());
      },
      "an mbarrier initialized twice"));
  CHECK(dies_of(
      [] {
        begin_expecting(16);
        mbarrier_expect(barriers(), 16);
      },
      "a second arrival in one phase of an mbarrier"));
  CHECK(dies_of(
      [] {
        begin_expecting(16);
        bulk_copy(memory(), global, 32, barriers());
      },
      "more bytes than an mbarrier expects"));
  CHECK(dies_of(
      [] {
        begin_expecting(32);
        bulk_copy(memory(), global, 16, barriers());
        mbarrier_wait(barriers(), 0);
      },
      "deadlock"));
  CHECK(dies_of(
      [] {
        begin_expecting(16);
        bulk_copy(memory(), global, 16, barriers());
        mbarrier_wait(barriers(), 1);  // for the second phase
      },
      "deadlock"));
  CHECK(dies_of(
      [] {
        begin_expecting(16);
        bulk_copy(memory(), global, 16, barriers());
      },
      "a block that exits before it has waited"));
  CHECK(dies_of(
      [] {
        begin_expecting(16);
        bulk_copy(memory(), global + 1, 16, barriers());
      },
      "not of whole 16 bytes"));
  CHECK(dies_of(
      [] {
        begin_expecting(16);
        bulk_copy(memory() + 8, global, 16, barriers());
      },
      "to outside of the block's shared memory"));
  for (Schedule schedule : kSchedules) {
    set_schedule(schedule);
    CHECK(dies(
        [] { launch_cluster(exit_before_it_came, 2, 32, 2, 16, nullptr); },
        {"a block that exits before it has waited for what comes to its shared memory in block (1, 0, 0)"}));
  }
#if defined(__SANITIZE_THREAD__)
  const auto race = [] {
    unsigned data = 0, seen = 0;
    launch_cluster(send_word_of_other_data, 2, 32, 2, 16, nullptr, &data, &seen);
  };
  CHECK(dies(race, {"data race", "send_word_of_other_data"}));
#else
  (void)send_word_of_other_data;
#endif
}

}  // namespace

int main() {
  test_copies_come_when_they_are_waited_for();
  test_prefetches_are_told();
  test_blocks_send_each_other();
  test_what_is_not_waited_for_is_not_there();
  test_broken_kernels_die();
  return tad::checks::report();
}
