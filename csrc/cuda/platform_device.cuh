// What kernels and launchers are written on, on a GPU. csrc/cuda_on_host/platform.h has the same for the host.
#pragma once

#include <cooperative_groups.h>
#include <cuda_runtime.h>
#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <tuple>

#include "../common/storage.h"
#include "device.h"
#include "kernels.h"
#include "launch_shape.h"

namespace tad {
namespace cuda {

/// Threads of a block that works on a row.
constexpr int kRowThreads = 256;

/// Whether the code that is compiled knows bulk copies.
__device__ constexpr bool has_bulk_copies() {
#if __CUDA_ARCH__ >= 900
  return true;
#else
  return false;
#endif
}

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

/// An address in global memory, of which the compiler then knows that it is one.
template <class T>
__device__ __forceinline__ T* in_global(T* global) {
  size_t address = __cvta_generic_to_global(global);
  asm("" : "+l"(address));  // or the compiler sees that it is the same, and forgets
  return static_cast<T*>(__cvta_global_to_generic(address));
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

/// log2(x) by one instruction, off by up to 2^-21 where x is between 1/2 and 2, elsewhere by as much of itself.
__device__ __forceinline__ float log2_approximate(float x) {
  float logarithm;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(logarithm) : "f"(x));
  return logarithm;
}

/// x / y by two instructions, off by up to 2 ulp where y is no extreme number.
__device__ __forceinline__ float quotient_approximate(float x, float y) {
  return __fdividef(x, y);
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

// ---- bytes that come by themselves, and the barriers that count them (from sm_90 on) ------------------------------

/// In a block's shared memory: where the bytes are counted that others send there, the copy engine or the cluster's
/// blocks. A phase is over when as many have come as are expected in it.
struct alignas(8) MBarrier {
  uint64_t state;
};

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return uint32_t(__cvta_generic_to_shared(shared));
}

/// An address in shared memory that stays in a register, where it would be worked out again at each use.
template <class T>
__device__ __forceinline__ T* in_register(T* shared) {
  uint32_t address = shared_address(shared);
  asm volatile("" : "+r"(address));
  return static_cast<T*>(__cvta_shared_to_generic(address));
}

/// Before its first use, by one thread; after a __syncthreads() others of the block may use it, after a barrier of the
/// cluster other blocks.
__device__ __forceinline__ void mbarrier_init(MBarrier* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

/// Once in each phase: the number of bytes that end it. They may be on their way, or there, already.
__device__ __forceinline__ void mbarrier_expect(MBarrier* barrier, size_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(uint32_t(bytes))
               : "memory");
#endif
}

/// Until a phase of this parity is over, in which the copy engine has brought what was expected; the first one has 0.
__device__ __forceinline__ void mbarrier_wait(MBarrier* barrier, unsigned parity) {
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

/// The same where the cluster's blocks have sent it.
__device__ __forceinline__ void mbarrier_wait_for_blocks(MBarrier* barrier, unsigned parity) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 over, [%0], %1;\n"
      "@!over bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
#endif
}

/// The copy engine fills this block's shared memory. Both ends and the number of bytes are multiples of 16.
__device__ __forceinline__ void bulk_copy(void* shared, const void* global, size_t bytes, MBarrier* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(uint32_t(bytes)), "r"(shared_address(barrier))
               : "memory");
#endif
}

/// The copy engine brings what will be read soon into the second-level cache. A multiple of 16 bytes, aligned to 16.
__device__ __forceinline__ void bulk_prefetch(const void* global, size_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(global)),
               "r"(uint32_t(bytes))
               : "memory");
#endif
}

/// Where `own` lies in the shared memory of the cluster's block `rank`.
__device__ __forceinline__ uint32_t address_in_block(const void* own, int rank) {
  uint32_t address = 0;
#if __CUDA_ARCH__ >= 900
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(own)), "r"(rank));
#endif
  return address;
}

/// Sends a value to where `target` lies in block `rank` of the cluster, whose `barrier` counts its bytes: `target` and
/// `barrier` are this block's own. Nothing is waited for, and nothing else that was written before comes with it.
template <class T>
__device__ __forceinline__ void send_to_block(int rank, T* target, const T& value, MBarrier* barrier) {
  using Word = std::conditional_t<sizeof(T) % sizeof(uint64_t) == 0, uint64_t, uint32_t>;
  static_assert(sizeof(T) % sizeof(Word) == 0);
  Word words[sizeof(T) / sizeof(Word)];
  memcpy(words, &value, sizeof(T));
#if __CUDA_ARCH__ >= 900
  const uint32_t to = address_in_block(target, rank), counted_by = address_in_block(barrier, rank);
#pragma unroll
  for (int i = 0; i < int(sizeof(T) / sizeof(Word)); ++i) {
    const uint32_t address = to + i * uint32_t(sizeof(Word));
    if constexpr (sizeof(Word) == 8)
      asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [%0], %1, [%2];" ::"r"(address),
                   "l"(words[i]), "r"(counted_by)
                   : "memory");
    else
      asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(address),
                   "r"(words[i]), "r"(counted_by)
                   : "memory");
  }
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

/// The two halves of a barrier of all threads of a cluster, which says that they are there: what they wrote before it
/// does not become visible by it, but for an mbarrier's beginning.
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// ---- blocks of a multiprocessor, one after the other (from sm_90 on) ----------------------------------------------

/// Before a block asks for the first `bytes` of its rows. The blocks that a multiprocessor begins with, which registers
/// suffice for `at_once` of, would else wait for bytes together, reduce together, while nothing moves, and write
/// together. So each waits until two thirds of what the one before it has asked for should have come, as fast as an
/// H200 copies. Each multiprocessor is taken to get a block before one gets its second. Blocks that take the place of
/// earlier ones find others at work, and wait for nothing, but for a few that are taken for first ones.
__device__ __forceinline__ void begin_in_turn(unsigned at_once, unsigned bytes) {
#if __CUDA_ARCH__ >= 900
  constexpr unsigned kBytesPerCycle = 17;                               // a multiprocessor's part of a copy
  constexpr unsigned kSharedBytes = 228 << 10, kSystemBytes = 1 << 10;  // of a multiprocessor; in them, for each block
  unsigned multiprocessors, shared_bytes;
  asm("mov.u32 %0, %%nsmid;" : "=r"(multiprocessors));
  asm("mov.u32 %0, %%total_smem_size;" : "=r"(shared_bytes));
  const unsigned most = min(at_once, kSharedBytes / (shared_bytes + kSystemBytes)) * multiprocessors;
  const unsigned waves = (gridDim.x + most - 1) / most, of_cluster = blockIdx.x - cluster_rank();
  if (of_cluster >= gridDim.x / waves) return;
  const unsigned begun = unsigned(clock()), turn = of_cluster / multiprocessors;
  while (unsigned(clock()) - begun < turn * (bytes * 2 / 3 / kBytesPerCycle)) __nanosleep(100);
#endif
}

// ---- kernels that follow each other closely (from sm_90 on) --------------------------------------------------------

/// From here on a kernel that begins early may, if this one's other blocks have come as far, or are done.
__device__ __forceinline__ void let_next_kernel_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Until the kernel before this one is over, and what it wrote is there: at once, in one that does not begin early.
__device__ __forceinline__ void wait_for_kernel_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- launches -----------------------------------------------------------------------------------------------------

/// call(&configuration) with the runtime's description of a launch.
template <class Call>
cudaError_t with_configuration(const LaunchShape& shape, Stream stream, const Call& call) {
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.blocks;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchAttribute attributes[2] = {};
  config.attrs = attributes;
  if (shape.cluster_blocks > 1 || shape.stays) {  // how many clusters run at a time is told of a given size only
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = unsigned(shape.cluster_blocks);
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  }
  if (shape.overlap.begins_early) {
    cudaLaunchAttribute& early = attributes[config.numAttrs++];
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
  }
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
  // A newer device may run code that was compiled for an older one, and knows nothing of these.
  device.like_hopper = clusters && cudaFuncGetAttributes(&code, probe_kernel) == cudaSuccess && code.ptxVersion >= 90;
  // A share of a device (MPS, MIG) may have no room for a large cluster. No kernel's blocks take more room than these,
  // a multiprocessor each.
  if (device.like_hopper) {
    const int bytes = device.shared_bytes_per_block;
    cudaFuncSetAttribute(probe_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    cudaFuncSetAttribute(probe_kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    device.cluster_blocks = largest_cluster([&](int blocks) {
      int at_once = 0;
      const auto ask = [&](const cudaLaunchConfig_t* config) {
        return cudaOccupancyMaxActiveClusters(&at_once, probe_kernel, config);
      };
      const LaunchShape shape{dim3(blocks), kRowThreads, blocks, size_t(bytes)};
      const cudaError_t error = with_configuration(shape, nullptr, ask);
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

/// How many of a kernel's clusters the device runs at a time; 0: it cannot tell. The driver is asked once, because that
/// takes it longer than a launch.
template <class... Parameters>
unsigned clusters_at_a_time(void (*kernel)(Parameters...), LaunchShape shape) {
  using Asked = std::tuple<const void*, int, int, size_t>;
  static std::mutex mutex;
  static std::map<Asked, unsigned> known;
  int device = 0;
  cudaGetDevice(&device);
  const Asked asked{reinterpret_cast<const void*>(kernel), device, shape.cluster_blocks, shape.shared_bytes};
  shape.overlap = {};
  const std::lock_guard lock(mutex);
  const auto [place, is_new] = known.try_emplace(asked, 0);
  if (is_new) {
    int clusters = 0;
    const auto ask = [&](const cudaLaunchConfig_t* config) {
      return cudaOccupancyMaxActiveClusters(&clusters, kernel, config);
    };
    if (with_configuration(shape, nullptr, ask) == cudaSuccess) place->second = unsigned(clusters);
    cudaGetLastError();  // no launch's
  }
  return place->second;
}

/// Enqueues a kernel of at least one block.
template <class... Parameters, class... Arguments>
Status enqueue(void (*kernel)(Parameters...), LaunchShape shape, Stream stream, const Arguments&... arguments) {
  shape.overlap.begins_early = shape.overlap.begins_early && current_device().like_hopper;
  const auto call = [&](const cudaLaunchConfig_t* config) {
    return cudaLaunchKernelEx(config, kernel, Parameters(arguments)...);
  };
  const cudaError_t error = with_configuration(shape, stream, call);
  return error != cudaSuccess ? error : cudaGetLastError();
}

}  // namespace cuda
}  // namespace tad
