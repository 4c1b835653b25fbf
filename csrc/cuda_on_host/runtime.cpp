#include "runtime.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace cuda_on_host {

// What a kernel may have, unless it asked for more.
struct Limits {
  size_t shared_bytes = kSharedBytes;
  unsigned cluster_blocks = kPortableClusterBlocks;
};
static std::mutex limits_mutex;
static std::map<const void*, Limits> limits_of;

static cudaError_t check_launch(const void* kernel, const Launch& launch) {
  const auto within = [](dim3 shape, unsigned x, unsigned y, unsigned z) {
    return shape.x - 1 < x && shape.y - 1 < y && shape.z - 1 < z;  // 0 wraps around, and is not
  };
  if (!within(launch.grid, 0x7fffffff, 65535, 65535) || !within(launch.block, 1024, 1024, 64) ||
      launch.threads() > 1024)
    return cudaErrorInvalidConfiguration;
  if (launch.cluster_blocks - 1 >= kMaxClusterBlocks || launch.grid.x % launch.cluster_blocks != 0)
    return cudaErrorInvalidConfiguration;
  const std::lock_guard lock(limits_mutex);
  const Limits limits = limits_of[kernel];
  if (launch.cluster_blocks > 1 && !device.clusters) return cudaErrorNotSupported;
  if (launch.cluster_blocks > limits.cluster_blocks) return cudaErrorInvalidClusterSize;
  if (launch.cluster_blocks > 1 && !has_room_for_cluster(launch.cluster_blocks, launch.threads(), launch.shared_bytes))
    return cudaErrorInvalidClusterSize;
  return launch.shared_bytes > limits.shared_bytes ? cudaErrorInvalidValue : cudaSuccess;
}

// A launch that may be done later.
struct Work {
  Launch launch;
  Schedule schedule;
  std::shared_ptr<Work> before;  // that it overlaps with
  std::once_flag once;
  std::atomic<bool> done = false;
};

static void run_clusters(const Work& work) {
  const Launch& launch = work.launch;
  const dim3 grid(launch.grid.x / launch.cluster_blocks, launch.grid.y, launch.grid.z);  // of clusters
  std::vector<size_t> order(size_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(work.schedule.seed + unsigned(work.schedule.order)));
  for (size_t i : order) {
    const unsigned x = unsigned(i % grid.x), y = unsigned(i / grid.x % grid.y), z = unsigned(i / grid.x / grid.y);
    Cluster(launch, {x * launch.cluster_blocks, y, z}).run(work.schedule);
  }
}

static void finish(Work& work) {
  std::call_once(work.once, [&] {
    run_clusters(work);
    if (work.before && !work.before->done) {
      std::fprintf(
          stderr, "cuda_on_host: a kernel ended before the one before it\n  launched by %s\n", work.launch.name);
      std::abort();
    }
    work.done = true;
  });
}

static thread_local std::shared_ptr<Work> unfinished;  // that the next launch may overlap with

static cudaError_t fail_with(cudaError_t error) {
  if (unfinished) finish(*std::exchange(unfinished, nullptr));  // nothing follows it
  return last_error = error;
}

void run(const void* kernel, Launch launch, Overlap overlap) {
  if (const cudaError_t error = check_launch(kernel, launch); error != cudaSuccess) {
    fail_with(error);
    return;
  }
  last_launched = {launch.grid, launch.block, launch.cluster_blocks, launch.shared_bytes};
  std::shared_ptr<Work> before = std::exchange(unfinished, nullptr);
  if (before && !overlap.begins_early) finish(*std::exchange(before, nullptr));
  launch.before = before.get();
  const auto work = std::make_shared<Work>(std::move(launch), schedule, std::move(before));
  if (overlap.lets_next_begin)
    unfinished = work;
  else
    finish(*work);
}

void wait_for_kernel_before() {
  Work* before = current->block->launch.before;
  if (before && !before->done) std::thread([=] { finish(*before); }).join();  // this one's thread runs this kernel
}

cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  const std::lock_guard lock(limits_mutex);
  Limits& limits = limits_of[kernel];
  switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
      if (value < 0 || value > device.shared_bytes_per_block) return fail_with(cudaErrorInvalidValue);
      limits.shared_bytes = size_t(value);
      return cudaSuccess;
    case cudaFuncAttributePreferredSharedMemoryCarveout:
      return value < -1 || value > 100 ? fail_with(cudaErrorInvalidValue) : cudaSuccess;
    case cudaFuncAttributeNonPortableClusterSizeAllowed:
      limits.cluster_blocks = value ? kMaxClusterBlocks : kPortableClusterBlocks;
      return cudaSuccess;
  }
  return fail_with(cudaErrorInvalidValue);
}

}  // namespace cuda_on_host
