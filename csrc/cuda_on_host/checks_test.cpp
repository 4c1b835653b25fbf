// Tests that the emulation shows what is wrong with a kernel: schedules that bring out missing
// barriers, and kernels that break the rules, run in a child process, which must die with the right message.
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <set>
#include <string>
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

using cuda_on_host::dies;
using cuda_on_host::dynamic_shared_memory;
using cuda_on_host::kSchedules;
using cuda_on_host::launch;
using cuda_on_host::Order;
using cuda_on_host::set_schedule;

// One thread passes a value to another; with or without the barriers that make it right. `earlier` barriers of the
// block lie before, and `ahead` barriers of its own warp before what the receiver does.
enum class Between { nothing, shuffle, syncwarp, syncthreads };

template <Between kBetween>
__global__ void pass_value(int from, int to, int earlier, int ahead, int* received) {
  int* shared = static_cast<int*>(dynamic_shared_memory());
  const int thread = threadIdx.x;
  for (int i = 0; i < earlier; ++i) __syncthreads();
  for (int i = 0; i < ahead; ++i)
    if (thread / 32 == to / 32) __syncwarp();
  if (thread == from) *shared = 1;
  if (kBetween == Between::shuffle) __shfl_sync(~0u, 0, 0);
  if (kBetween == Between::syncwarp) __syncwarp();
  if (kBetween == Between::syncthreads) __syncthreads();
  if (thread == to) *received = *shared;
}

template <Between kBetween>
int passed_value(int from, int to, int earlier = 0, int ahead = 0) {
  int received = 0;
  launch(pass_value<kBetween>, 1, 128, sizeof(int), nullptr, from, to, earlier, ahead, &received);
  return received;
}

void test_barriers_pass_values() {
  for (cuda_on_host::Schedule schedule : kSchedules) {
    set_schedule(schedule);
    for (auto [from, to] : {std::pair(0, 127), {127, 0}, {40, 80}}) {
      CHECK(passed_value<Between::syncthreads>(from, to) == 1);
      CHECK(passed_value<Between::syncthreads>(from, to, 2, 3) == 1);
    }
    for (auto [from, to] : {std::pair(0, 31), {127, 96}}) CHECK(passed_value<Between::syncwarp>(from, to) == 1);
  }
}

__global__ void early_exit(unsigned stay, unsigned* sum) {
  unsigned* shared = static_cast<unsigned*>(dynamic_shared_memory());
  if (threadIdx.x >= stay) return;
  shared[threadIdx.x] = threadIdx.x + 1;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (unsigned i = 0; i < stay; ++i) *sum += shared[i];
}

void test_exited_threads_count_as_arrived() {
  for (cuda_on_host::Schedule schedule : kSchedules) {
    set_schedule(schedule);
    for (unsigned stay : {0u, 1u, 20u, 32u, 70u, 96u}) {
      unsigned sum = 0;
      launch(early_exit, 1, 96, 96 * sizeof(unsigned), nullptr, stay, &sum);
      CHECK(sum == stay * (stay + 1) / 2);
    }
  }
}

// ---- schedules ----------------------------------------------------------------------------------------------------

#if !defined(TAD_CUDA_ON_HOST_THREADS)  // there the operating system decides

// Without its barrier a value arrives under forward or under reverse, not under both.
template <Between kBetween>
bool one_order_shows_it(int from, int to, int earlier, int ahead) {
  int arrived = 0;
  for (Order order : {Order::forward, Order::reverse}) {
    set_schedule({order});
    const int received = passed_value<kBetween>(from, to, earlier, ahead);
    CHECK(received == 1 || received == -1);  // 0xFF bytes where it is too early
    arrived += received == 1;
  }
  return arrived == 1;
}

void test_missing_barriers_show() {
  for (int earlier = 0; earlier < 5; ++earlier)
    for (int from : {0, 32, 64, 96})
      for (int to : {0, 32, 64, 96}) {
        if (from == to) continue;
        CHECK(one_order_shows_it<Between::nothing>(from, to, earlier, 0));
        CHECK(one_order_shows_it<Between::nothing>(from, to, earlier, 3));
        CHECK(one_order_shows_it<Between::syncwarp>(from, to, earlier, 0));
      }
  for (int earlier = 0; earlier < 5; ++earlier) {
    CHECK(one_order_shows_it<Between::nothing>(33, 39, earlier, 2));
    CHECK(one_order_shows_it<Between::nothing>(39, 33, earlier, 2));
  }
}

__global__ void record_order(std::vector<unsigned>* order) {
  order->push_back(blockIdx.x * blockDim.x + threadIdx.x);
}

std::vector<unsigned> recorded_order(unsigned blocks, unsigned threads) {
  std::vector<unsigned> order;
  launch(record_order, blocks, threads, 0, nullptr, &order);
  return order;
}

void test_orders() {
  std::vector<unsigned> ascending(100);
  std::iota(ascending.begin(), ascending.end(), 0);
  set_schedule({Order::forward});
  CHECK(recorded_order(1, 100) == ascending);
  const std::vector<unsigned> blocks = recorded_order(100, 1);
  CHECK(blocks != ascending && std::set(blocks.begin(), blocks.end()).size() == 100);
  set_schedule({Order::reverse});
  CHECK(recorded_order(1, 100) == std::vector(ascending.rbegin(), ascending.rend()));
  set_schedule({Order::shuffled, 1});
  const std::vector<unsigned> shuffled = recorded_order(1, 100);
  CHECK(shuffled != ascending && std::set(shuffled.begin(), shuffled.end()).size() == 100);
  CHECK(recorded_order(1, 100) == shuffled);
  set_schedule({Order::shuffled, 2});
  CHECK(recorded_order(1, 100) != shuffled);
}

void test_schedule_of_environment() {
  const auto parsed = [](const char* text) {
    setenv("TAD_CUDA_ON_HOST_ORDER", text, 1);
    return cuda_on_host::schedule_of_environment();
  };
  CHECK(parsed("forward").order == Order::forward && parsed("reverse").order == Order::reverse);
  CHECK(parsed("shuffled:12").order == Order::shuffled && parsed("shuffled:12").seed == 12);
  unsetenv("TAD_CUDA_ON_HOST_ORDER");
  CHECK(cuda_on_host::schedule_of_environment().order == Order::forward);
}

#endif

// ---- broken kernels -----------------------------------------------------------------------------------------------

std::string at(const char* operation, int line) {
  return std::string(operation) + " at " + __FILE__ + ":" + std::to_string(line) + " in ";
}

constexpr int kBarrierLine = __LINE__;
__global__ void divergent_barrier() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}

constexpr int kWarpLine = __LINE__;
__global__ void divergent_warp() {
  if (threadIdx.x % 32 < 16)
    __shfl_xor_sync(~0u, 1, 1);
  else
    __syncwarp();
}

constexpr int kExitLine = __LINE__;
__global__ void exited_lane() {
  __syncwarp();
  if (threadIdx.x == 32) return;
  __ballot_sync(~0u, 1);
}

constexpr int kDeadlockLine = __LINE__;
__global__ void deadlock() {
  if (threadIdx.x == 7)
    __syncwarp();
  else
    __syncthreads();
}

constexpr int kMaskLine = __LINE__;
__global__ void partial_mask() {
  if (threadIdx.x < 16) __syncwarp(0xffff);
}

void test_broken_kernels_die() {
  for (cuda_on_host::Schedule schedule : kSchedules) {
    set_schedule(schedule);
    CHECK(dies(
        [] { launch(divergent_barrier, dim3(1, 2), 64, 0, nullptr); },
        {"cuda_on_host: divergent __syncthreads in block (0, ", at("__syncthreads", kBarrierLine + 3),
         at("__syncthreads", kBarrierLine + 5), "divergent_barrier"}));
    CHECK(dies(
        [] { launch(divergent_warp, 1, 64, 0, nullptr); },
        {"cuda_on_host: divergent warp operation in block (0, 0, 0)", at("__shfl_xor_sync", kWarpLine + 3),
         at("__syncwarp", kWarpLine + 5)}));
    CHECK(dies(
        [] { launch(exited_lane, 1, 64, 0, nullptr); },
        {"cuda_on_host: lane exited before its warp's operation in block (0, 0, 0)",
         "thread (32, 0, 0): exited, after " + at("__syncwarp", kExitLine + 2), at("__ballot_sync", kExitLine + 4)}));
    CHECK(dies(
        [] { launch(deadlock, 1, 64, 0, nullptr); },
        {"cuda_on_host: deadlock in block (0, 0, 0)", "thread (0, 0, 0): " + at("__syncthreads", kDeadlockLine + 5),
         "thread (7, 0, 0): " + at("__syncwarp", kDeadlockLine + 3)}));
    CHECK(dies(
        [] { launch(partial_mask, 1, 32, 0, nullptr); },
        {"cuda_on_host: partial mask (not emulated) in block (0, 0, 0)", at("__syncwarp", kMaskLine + 2)}));
  }
  CHECK(dies(
      [] {
        setenv("TAD_CUDA_ON_HOST_ORDER", "shuffled", 1);
        cuda_on_host::schedule_of_environment();
      },
      {"TAD_CUDA_ON_HOST_ORDER: 'shuffled', expected forward, reverse or shuffled:<seed>"}));
}

__global__ void throw_exception() {
  throw 1;
}

#if !defined(TAD_CUDA_ON_HOST_THREADS)
int use_stack(int depth) {
  volatile char frame[1024] = {char(depth)};
  return depth == 0 ? 0 : use_stack(depth - 1) + frame[depth % 1024];
}
__global__ void overflow_stack(int* out) {
  *out = use_stack(512);
}
#endif

void test_fibers_keep_apart() {
  CHECK(dies([] { launch(throw_exception, 1, 1, 0, nullptr); }, {"terminate called"}));
#if !defined(TAD_CUDA_ON_HOST_THREADS)
  CHECK(dies([] {
    int out;
    launch(overflow_stack, 1, 64, 0, nullptr, &out);
  }));
#endif
}

// ---- with a sanitizer ---------------------------------------------------------------------------------------------

__global__ void read_shared(int i, unsigned char* out) {
  *out = static_cast<unsigned char*>(dynamic_shared_memory())[i];
}

void test_sanitizers_see_kernels() {
#if defined(__SANITIZE_ADDRESS__)
  CHECK(dies([] { launch(read_shared, 1, 1, 21, nullptr, 21, nullptr); }, {"heap-buffer-overflow", "read_shared"}));
#elif defined(__SANITIZE_THREAD__)
  // Shuffles, and barriers of the warp, order nothing between warps; shuffles not even between lanes.
  CHECK(dies([] { passed_value<Between::nothing>(0, 64); }, {"data race", "pass_value"}));
  CHECK(dies([] { passed_value<Between::shuffle>(0, 64); }, {"data race", "pass_value"}));
  CHECK(dies([] { passed_value<Between::syncwarp>(0, 64); }, {"data race", "pass_value"}));
  CHECK(dies([] { passed_value<Between::shuffle>(0, 9); }, {"data race", "pass_value"}));
#endif
  unsigned char out = 0;
  launch(read_shared, 1, 1, 21, nullptr, 20, &out);
  CHECK(out == 0xFF);
}

}  // namespace

int main() {
  test_barriers_pass_values();
  test_exited_threads_count_as_arrived();
#if !defined(TAD_CUDA_ON_HOST_THREADS)
  test_missing_barriers_show();
  test_orders();
  test_schedule_of_environment();
#endif
  test_broken_kernels_die();
  test_fibers_keep_apart();
  test_sanitizers_see_kernels();
  return tad::checks::report();
}
