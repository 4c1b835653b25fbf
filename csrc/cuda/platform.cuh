// What every kernel file begins with. The only place that knows whether kernels are compiled for a GPU or, in the
// tests, run on the host thread by thread (TAD_CUDA_ON_HOST).
#pragma once

#include <cstdint>
#include <mutex>
#include <type_traits>

#define TAD_ISA cuda  // the shared mathematics is compiled into tad::cuda here

#if defined(TAD_CUDA_ON_HOST)
#include "../tests/cuda_on_host.h"
#else
#include <cooperative_groups.h>
#include <cuda_runtime.h>
#endif

#include "kernels.h"

namespace tad {
namespace cuda {

constexpr int kWarp = 32;

/// Shared memory for kCount values, the same for every thread of a block that asks for as many of this type for this
/// use.
template <class T, int kCount, int kUse = 0>
__device__ __forceinline__ T* shared_array() {
#if defined(TAD_CUDA_ON_HOST)
  static const char key = 0;  // one for each T, kCount and kUse
  return static_cast<T*>(cuda_on_host::shared_array(&key, kCount * sizeof(T)));
#else
  __shared__ __align__(16) unsigned char array[kCount * sizeof(T)];  // bytes, because a T may have a constructor
  return reinterpret_cast<T*>(array);
#endif
}

/// The dynamic shared memory that the launch asked for, 16-byte aligned.
__device__ __forceinline__ void* dynamic_shared_memory() {
#if defined(TAD_CUDA_ON_HOST)
  return cuda_on_host::dynamic_shared_memory();
#else
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
#endif
}

// ---- clusters: blocks that run at the same time and reach each other's shared memory (from sm_90 on) --------------

/// The number of the calling block in its cluster, and how many there are; 0 of 1 without clusters.
__device__ __forceinline__ int cluster_rank() {
#if defined(TAD_CUDA_ON_HOST)
  return int(cuda_on_host::cluster_rank());
#elif __CUDA_ARCH__ >= 900
  return int(cooperative_groups::cluster_group::block_rank());
#else
  return 0;
#endif
}
__device__ __forceinline__ int cluster_size() {
#if defined(TAD_CUDA_ON_HOST)
  return int(cuda_on_host::cluster_size());
#elif __CUDA_ARCH__ >= 900
  return int(cooperative_groups::cluster_group::num_blocks());
#else
  return 1;
#endif
}

/// The two halves of a barrier of all threads of a cluster: after a thread's wait everything is visible to it that
/// others did before their arrive.
#if defined(TAD_CUDA_ON_HOST)
using cuda_on_host::cluster_arrive;
using cuda_on_host::cluster_wait;
#else
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
#endif

/// An arrive that says no more than that the block is there.
#if defined(TAD_CUDA_ON_HOST)
using cuda_on_host::cluster_arrive_relaxed;
#else
__device__ __forceinline__ void cluster_arrive_relaxed() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed.aligned;");
#endif
}
#endif

/// Where a variable of this block's shared memory lies in that of another block of the cluster.
template <class T>
__device__ __forceinline__ T* in_block(T* own, int rank) {
#if defined(TAD_CUDA_ON_HOST)
  return cuda_on_host::map_shared_rank(own, unsigned(rank));
#elif __CUDA_ARCH__ >= 900
  return cooperative_groups::cluster_group::map_shared_rank(own, rank);
#else
  return own;
#endif
}

// ---- launches -----------------------------------------------------------------------------------------------------

/// What the launchers want to know about the current device.
struct Device {
  int multiprocessors = 1, l2_bytes = 1 << 20, shared_bytes_per_block = 48 << 10;
  bool clusters = false;
};

/// Of a block: what the system takes, and the kernels' static arrays.
constexpr int kReservedSharedBytes = 4 << 10;

#if !defined(TAD_CUDA_ON_HOST)
static __global__ void compiled_for_kernel() {}

inline Device device_of(int number) {
  Device device;
  int clusters = 0;
  cudaFuncAttributes code = {};
  cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, number);
  cudaDeviceGetAttribute(&device.l2_bytes, cudaDevAttrL2CacheSize, number);
  cudaDeviceGetAttribute(&device.shared_bytes_per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, number);
  cudaDeviceGetAttribute(&clusters, cudaDevAttrClusterLaunch, number);
  // A newer device may run code that was compiled for an older one, and does not know clusters.
  device.clusters =
      clusters && cudaFuncGetAttributes(&code, compiled_for_kernel) == cudaSuccess && code.ptxVersion >= 90;
  return device;
}
#endif

inline Device current_device() {
#if defined(TAD_CUDA_ON_HOST)
  const cuda_on_host::Device& d = cuda_on_host::device;
  return {d.multiprocessors, d.l2_bytes, d.shared_bytes_per_block, d.clusters};
#else
  constexpr int kMostDevices = 64;
  static std::once_flag asked[kMostDevices];
  static Device known[kMostDevices];
  int number = 0;
  if (cudaGetDevice(&number) != cudaSuccess || number >= kMostDevices) return {};
  std::call_once(asked[number], [&] { known[number] = device_of(number); });
  return known[number];
#endif
}

/// How a kernel is launched: clusters of blocks, and dynamic shared memory of each block.
struct LaunchShape {
  dim3 blocks;
  int threads = 0;
  int cluster_blocks = 1;
  size_t shared_bytes = 0;
};

/// Enqueues a kernel. Nothing is launched for zero blocks. A kernel that uses dynamic shared memory may from then on
/// use all there is: the same number whatever the launch, so that launches on several threads agree.
template <class... Parameters, class... Arguments>
Status launch(void (*kernel)(Parameters...), const LaunchShape& shape, Stream stream, const Arguments&... arguments) {
  if (shape.blocks.x == 0 || shape.blocks.y == 0) return cudaSuccess;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (shape.shared_bytes > 0) {
    const int most = current_device().shared_bytes_per_block - kReservedSharedBytes;
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    if (error != cudaSuccess) return error;
  }
#if defined(TAD_CUDA_ON_HOST)
  cuda_on_host::launch_cluster(
      kernel, shape.blocks, dim3(shape.threads), unsigned(shape.cluster_blocks), shape.shared_bytes, cuda_stream,
      arguments...);
#else
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.blocks;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = cuda_stream;
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = unsigned(shape.cluster_blocks);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  config.attrs = &cluster;
  config.numAttrs = shape.cluster_blocks > 1 ? 1 : 0;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
  if (error != cudaSuccess) return error;
#endif
  return cudaGetLastError();
}

template <class... Parameters, class... Arguments>
Status launch(void (*kernel)(Parameters...), dim3 blocks, int threads, Stream stream, const Arguments&... arguments) {
  return launch(kernel, LaunchShape{blocks, threads}, stream, arguments...);
}

}  // namespace cuda
}  // namespace tad
