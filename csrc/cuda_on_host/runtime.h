// The part of the CUDA runtime that the launchers need: what is a valid launch, errors, and the device.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <source_location>
#include <type_traits>
#include <utility>

#include "run.h"

enum cudaError_t : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNotSupported = 801,
  cudaErrorInvalidClusterSize = 912
};
enum cudaFuncAttribute : int {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
  cudaFuncAttributeNonPortableClusterSizeAllowed = 14
};
constexpr int cudaSharedmemCarveoutMaxShared = 100;  // percent
using cudaStream_t = struct CUstream_st*;

namespace cuda_on_host {

// What launches, and launchers that ask, take the device for: an H100. A test may change it while nothing is launched.
struct Device {
  int multiprocessors = 132;
  int l2_bytes = 50 << 20;
  int shared_bytes_per_block = 227 << 10;  // of a kernel that asked for more than kSharedBytes
  int shared_bytes_per_multiprocessor = 228 << 10;
  int compute_capability_major = 9;
  bool clusters = true;
  unsigned most_clusters = ~0u;  // of a kernel, at a time, whatever there is room for
};
inline Device device;

constexpr size_t kSharedBytes = 48 << 10;       // of dynamic shared memory any kernel may have
constexpr unsigned kPortableClusterBlocks = 8;  // that every whole device with clusters has room for
constexpr unsigned kMaxClusterBlocks = 16;      // of a kernel that was allowed to have more

// Blocks that a multiprocessor has room for at the same time, if they use no static shared memory and few registers.
inline unsigned blocks_per_multiprocessor(unsigned threads, size_t shared_bytes) {
  constexpr size_t kOfSystem = 1 << 10;  // bytes of each block
  const size_t by_memory = size_t(device.shared_bytes_per_multiprocessor) / (shared_bytes + kOfSystem);
  return unsigned(std::min<size_t>({32, 2048 / threads, by_memory}));
}

inline bool has_room_for_cluster(unsigned blocks, unsigned threads, size_t shared_bytes) {
  return device.clusters &&
         unsigned(device.multiprocessors) * blocks_per_multiprocessor(threads, shared_bytes) >= blocks;
}

inline unsigned clusters_at_a_time(unsigned blocks, unsigned threads, size_t shared_bytes) {
  const unsigned room = unsigned(device.multiprocessors) * blocks_per_multiprocessor(threads, shared_bytes) / blocks;
  return std::min(room, device.most_clusters);
}

inline constinit thread_local cudaError_t last_error = cudaSuccess;

// What was last launched, for tests of launchers.
struct Launched {
  dim3 grid, block;
  unsigned cluster_blocks = 0;
  size_t shared_bytes = 0;
};
inline constinit thread_local Launched last_launched;

// Programmatic dependent launch: whether a kernel may begin before the one before it is over, and whether the next one
// may before this one is. Where both say so nothing of the first is done before the second waits for it.
struct Overlap {
  bool begins_early = false, lets_next_begin = false;
};

// Clusters, in an ordinary launch blocks, run one after the other in an order no kernel can rely on.
void run(const void* kernel, Launch launch, Overlap overlap);

// griddepcontrol.launch_dependents: that there is a next kernel the launch says.
inline void let_next_kernel_begin() {}

// griddepcontrol.wait: until the kernel before this one is over.
void wait_for_kernel_before();

// What cudaFuncSetAttribute() does: the kernel may have so much dynamic shared memory, or large clusters. (How a
// multiprocessor divides its memory nobody asks here.)
cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value);

// As launch_cluster(), with a kernel before or behind it that it overlaps with.
template <class... P>
void launch_overlapping(
    Overlap overlap, void (*kernel)(P...), dim3 grid, dim3 block, unsigned cluster_blocks, size_t shared_bytes,
    cudaStream_t /*stream*/, std::type_identity_t<P>... arguments) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied as bytes");
  const auto body = [=] { kernel(arguments...); };  // by value: each thread has its own copy
  const char* self = std::source_location::current().function_name();
  run(reinterpret_cast<const void*>(kernel), {grid, block, cluster_blocks, shared_bytes, body, self}, overlap);
}

// As launch(), with clusters of this many blocks that follow each other in x.
template <class... P>
void launch_cluster(
    void (*kernel)(P...), dim3 grid, dim3 block, unsigned cluster_blocks, size_t shared_bytes, cudaStream_t stream,
    std::type_identity_t<P>... arguments) {
  launch_overlapping({}, kernel, grid, block, cluster_blocks, shared_bytes, stream, arguments...);
}

// kernel<<<grid, block, shared_bytes, stream>>>(arguments...), done when it returns; cudaGetLastError() tells whether
// it ran. OS threads may launch at the same time.
template <class... P>
void launch(
    void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
    std::type_identity_t<P>... arguments) {
  launch_cluster(kernel, grid, block, 1, shared_bytes, stream, arguments...);
}

// The block's dynamic shared memory: as many bytes as the launch asked for, 16-byte aligned, 0xFF when a block begins.
inline void* dynamic_shared_memory() {
  return current->block->shared_memory.data();
}

// Static shared memory: the block's array for this key, made, with 0xFF in it, by the first thread that asks for it.
inline void* shared_array(const void* key, size_t bytes) {
  const OrdersNothing scope;
  return current->block->shared_array(key, bytes);
}

}  // namespace cuda_on_host

template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  return cuda_on_host::set_attribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

template <class... P>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(
    int* blocks, void (*)(P...), int threads, size_t shared_bytes) {
  *blocks = int(cuda_on_host::blocks_per_multiprocessor(unsigned(threads), shared_bytes));
  return cudaSuccess;
}

inline cudaError_t cudaPeekAtLastError() {
  return cuda_on_host::last_error;
}

inline cudaError_t cudaGetLastError() {
  return std::exchange(cuda_on_host::last_error, cudaSuccess);
}

inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorNotSupported: return "operation not supported";
    case cudaErrorInvalidClusterSize: return "invalid cluster size";
  }
  return "unrecognized error code";
}
