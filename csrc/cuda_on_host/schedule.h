// The order in which the threads of an emulated CUDA launch take their turns.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace cuda_on_host {

// The order in which the blocks of a cluster, the warps of a block and the lanes of a warp take their turns. A warp
// runs until all its lanes wait for the block, and a block until all its warps wait for the cluster. Hence of any two
// warps, forward lets the lower one do first all that it does between two __syncthreads(), and of any two blocks the
// lower one all that it does between two barriers of the cluster; reverse the other one. If the result depends on a
// barrier that is not there, one of the two shows it. Shuffled draws a new order for every turn, and also leaves blocks
// and warps in the middle.
enum class Order : uint32_t { forward, reverse, shuffled };
struct Schedule {
  Order order = Order::forward;
  uint32_t seed = 0;
};
constexpr Schedule kSchedules[] = {
    {Order::forward}, {Order::reverse}, {Order::shuffled, 1}};  // what a test goes through

// TAD_CUDA_ON_HOST_ORDER: forward, reverse or shuffled:<seed>.
inline Schedule schedule_of_environment() {
  const char* text = std::getenv("TAD_CUDA_ON_HOST_ORDER");
  if (text == nullptr || !std::strcmp(text, "forward")) return {};
  if (!std::strcmp(text, "reverse")) return {Order::reverse};
  Schedule schedule{Order::shuffled};
  if (int end = 0; std::sscanf(text, "shuffled:%u%n", &schedule.seed, &end) == 1 && text[end] == 0) return schedule;
  std::fprintf(stderr, "TAD_CUDA_ON_HOST_ORDER: '%s', expected forward, reverse or shuffled:<seed>\n", text);
  std::abort();
}
inline std::atomic<Schedule> schedule = schedule_of_environment();

// For the launches that begin after it, of all OS threads.
inline void set_schedule(Schedule next) {
  schedule = next;
}

}  // namespace cuda_on_host
