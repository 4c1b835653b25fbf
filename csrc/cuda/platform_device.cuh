// What kernels and launchers are written on, on a GPU. csrc/cuda_on_host/platform.h has the same for the host.
#pragma once

#include <cooperative_groups.h>
#include <cuda_runtime.h>
#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "../common/storage.h"
#include "device.h"
#include "kernels.h"

namespace tad {
namespace cuda {

/// Threads of a block that works on a row.
constexpr int kRowThreads = 256;

/// Such blocks of a multiprocessor that keep their part of a row in its shared memory.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int kResidentBlocks = 2;
#else
constexpr int kResidentBlocks = 3;
#endif

/// Shared memory for kCount values, the same for every thread of a block that asks for as many of this type for this
/// use.
template <class T, int kCount, int kUse = 0>
__device__ __forceinline__ T* shared_array() {
  __shared__ __align__(16) unsigned char array[kCount * sizeof(T)];  // bytes, because a T may have a constructor
  return reinterpret_cast<T*>(array);
}

/// The dynamic shared memory that the launch asked for, 16-byte aligned.
__device__ __forceinline__ void* dynamic_shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

/// Stores 16 bytes at once that nobody will read soon. (An ordinary store may be compiled to four.)
__device__ __forceinline__ void store_streaming(uint4* target, const uint4& value) {
  __stcs(target, value);
}

/// 2^y by one instruction, off by up to 2 ulp; 0 below the normal numbers, on which exp2f would spend three more.
__device__ __forceinline__ float exp2_approximate(float y) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(y));
  return power;
}

/// Of two words with two elements each the larger ones; NaN does not count.
template <class Element>
__device__ __forceinline__ uint32_t larger_pair(uint32_t a, uint32_t b) {
  uint32_t larger;
  if constexpr (std::is_same_v<Element, BFloat16>)
    asm("max.bf16x2 %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));
  else
    asm("max.f16x2 %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));
  return larger;
}

// ---- bulk copies: by the copy engine, from global into the block's shared memory (from sm_90 on) ------------------

/// Where arrive the bytes of a copy that one thread has asked for.
struct alignas(8) BulkBarrier {
  uint64_t state;
};

__device__ __forceinline__ constexpr bool has_bulk_copies() {
#if __CUDA_ARCH__ >= 900 && !defined(TAD_NO_BULK_COPIES)  // without them only to measure what they are worth
  return true;
#else
  return false;
#endif
}

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return uint32_t(__cvta_generic_to_shared(shared));
}

/// Before its first use, by one thread; others may use it after a __syncthreads.
__device__ __forceinline__ void bulk_begin(BulkBarrier* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

/// The phase that now begins is over when so many bytes have come.
__device__ __forceinline__ void bulk_expect(BulkBarrier* barrier, size_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(uint32_t(bytes))
               : "memory");
#endif
}

/// Both ends and the number of bytes are multiples of 16.
__device__ __forceinline__ void bulk_copy(void* shared, const void* global, size_t bytes, BulkBarrier* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(uint32_t(bytes)), "r"(shared_address(barrier))
               : "memory");
#endif
}

/// All threads, before they wait for what one of them has asked for. (A GPU lets them wait earlier, the simulator not.)
__device__ __forceinline__ void bulk_asked() {}

/// Until a phase of this parity is over; the first one has 0.
__device__ __forceinline__ void bulk_wait(BulkBarrier* barrier, unsigned parity) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
      "@!over bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
#endif
}

// ---- clusters: blocks that run at the same time and reach each other's shared memory (from sm_90 on) --------------

/// The number of the calling block in its cluster, and how many there are; 0 of 1 without clusters.
__device__ __forceinline__ int cluster_rank() {
#if __CUDA_ARCH__ >= 900
  return int(cooperative_groups::cluster_group::block_rank());
#else
  return 0;
#endif
}
__device__ __forceinline__ int cluster_size() {
#if __CUDA_ARCH__ >= 900
  return int(cooperative_groups::cluster_group::num_blocks());
#else
  return 1;
#endif
}

/// The two halves of a barrier of all threads of a cluster: after a thread's wait everything is visible to it that
/// those did before their arrive who said that it `releases`; others say no more than that they are there. The lanes of
/// a warp say the same.
__device__ __forceinline__ void cluster_arrive(bool releases) {
#if __CUDA_ARCH__ >= 900
  if (releases)
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  else
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

/// Where a variable of this block's shared memory lies in that of another block of the cluster.
template <class T>
__device__ __forceinline__ T* in_block(T* own, int rank) {
#if __CUDA_ARCH__ >= 900
  return cooperative_groups::cluster_group::map_shared_rank(own, rank);
#else
  return own;
#endif
}

// ---- launches -----------------------------------------------------------------------------------------------------

/// call(&configuration) with the runtime's description of a launch.
template <class Call>
cudaError_t with_configuration(
    dim3 blocks, int threads, int cluster_blocks, size_t shared_bytes, Stream stream, const Call& call) {
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = unsigned(cluster_blocks);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  config.attrs = &cluster;
  config.numAttrs = cluster_blocks > 1 ? 1 : 0;
  return call(&config);
}

static __global__ void probe_kernel() {}

inline Device device_of(int number) {
  Device device;
  int clusters = 0;
  cudaFuncAttributes code = {};
  cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, number);
  cudaDeviceGetAttribute(&device.l2_bytes, cudaDevAttrL2CacheSize, number);
  cudaDeviceGetAttribute(&device.shared_bytes_per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, number);
  cudaDeviceGetAttribute(&clusters, cudaDevAttrClusterLaunch, number);
  const char* fewer = std::getenv("TAD_CUDA_SHARED_BYTES");  // for tests: then few columns need clusters
  if (fewer && std::atoi(fewer) > 0)
    device.shared_bytes_per_block = std::min(device.shared_bytes_per_block, std::atoi(fewer));
  // A newer device may run code that was compiled for an older one, and does not know clusters. A share of a device
  // (MPS, MIG) may have no room for a large one. No kernel's blocks take more room than these, a multiprocessor each.
  if (clusters && cudaFuncGetAttributes(&code, probe_kernel) == cudaSuccess && code.ptxVersion >= 90) {
    const int bytes = device.shared_bytes_per_block;
    cudaFuncSetAttribute(probe_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    cudaFuncSetAttribute(probe_kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    device.cluster_blocks = largest_cluster([&](int blocks) {
      int at_once = 0;
      const auto ask = [&](const cudaLaunchConfig_t* config) {
        return cudaOccupancyMaxActiveClusters(&at_once, probe_kernel, config);
      };
      const cudaError_t error = with_configuration(dim3(blocks), kRowThreads, blocks, bytes, nullptr, ask);
      // A driver that cannot tell is taken to have the room that every one has.
      return error != cudaSuccess ? blocks <= kPortableClusterBlocks : at_once > 0;
    });
  }
  cudaGetLastError();  // no launch's
  return device;
}

inline Device current_device() {
  constexpr int kMostDevices = 64;
  static std::once_flag asked[kMostDevices];
  static Device known[kMostDevices];
  int number = 0;
  if (cudaGetDevice(&number) != cudaSuccess || number >= kMostDevices) return {};
  std::call_once(asked[number], [&] { known[number] = device_of(number); });
  return known[number];
}

/// Enqueues a kernel of at least one block; `shared_bytes` of dynamic shared memory for each.
template <class... Parameters, class... Arguments>
Status enqueue(
    void (*kernel)(Parameters...), dim3 blocks, int threads, int cluster_blocks, size_t shared_bytes, Stream stream,
    const Arguments&... arguments) {
  const auto call = [&](const cudaLaunchConfig_t* config) {
    return cudaLaunchKernelEx(config, kernel, Parameters(arguments)...);
  };
  const cudaError_t error = with_configuration(blocks, threads, cluster_blocks, shared_bytes, stream, call);
  return error != cudaSuccess ? error : cudaGetLastError();
}

}  // namespace cuda
}  // namespace tad
