// Compiles a CUDA kernel's own source for the host and runs it there, thread by thread, with what only a host can
// check. Included instead of cuda_runtime.h. Where a kernel breaks the rules the process aborts and says which threads
// of which block stood at which lines:
//   - threads of a block at different __syncthreads(), lanes of a warp at different shuffles, votes or __syncwarp();
//   - a lane that exited before an operation of its warp; a deadlock;
//   - under AddressSanitizer, an access outside of dynamic shared memory or of a buffer of the test.
// A missing barrier does not abort: it gives stale values or 0xFF bytes (NaN), under one schedule or another. Run every
// kernel under all of cuda_on_host::kSchedules. Compiled with TAD_CUDA_ON_HOST_THREADS every CUDA thread is an OS
// thread, so that ThreadSanitizer reports the missing barrier itself (slow: small blocks and grids).
//
// Static shared memory is asked for by shared_array(). Not emulated: the keyword __shared__, partial warp masks,
// atomics, clusters, asynchronous copies. Not seen: two branches that call the same helper function with a barrier in
// it, in different places. Threads that wait for each other in memory instead of at a barrier hang. Kernels have 64 KiB
// of stack; a guard page follows.
#pragma once

#if defined(__CUDACC__)
#error "nvcc has CUDA itself: include cuda_runtime.h"
#endif

#include <bit>
#include <cmath>
#include <map>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_on_host_block.h"

#if defined(__SANITIZE_THREAD__)
extern "C" {  // of ThreadSanitizer's runtime
void AnnotateIgnoreSyncBegin(const char* file, int line);
void AnnotateIgnoreSyncEnd(const char* file, int line);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

// ---- the language -------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define threadIdx (std::as_const(cuda_on_host::current->index))
#define blockIdx (std::as_const(cuda_on_host::current->block->index))
#define blockDim (std::as_const(cuda_on_host::current->block->shape))
#define gridDim (std::as_const(cuda_on_host::current->block->grid))
constexpr int warpSize = cuda_on_host::kWarp;

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

// ---- barriers and warp operations ---------------------------------------------------------------------------------

namespace cuda_on_host {

// While it lives ThreadSanitizer takes no notice: shuffles and votes exchange values and order no other memory access.
struct [[maybe_unused]] OrdersNothing {
#if defined(__SANITIZE_THREAD__)
  OrdersNothing() {
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~OrdersNothing() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  }
#endif
};

inline void join_warp(unsigned mask, Place place) {
  if (mask != ~0u) {
    current->place = place;
    fail("partial mask (not emulated)", {current});
  }
  arrive_and_wait(current->warp().barrier, place, "divergent warp operation");
}

// Every lane gives a value; returns what all lanes gave. Lanes that do not exist give 0xFF bytes.
template <class T>
const Slot* exchange(unsigned mask, const T& value, Place place) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(Slot));
  Warp& warp = current->warp();
  Slot* slots = warp.slots[warp.barrier.generation % 2];
  std::memcpy(slots[current->lane()].bytes, &value, sizeof value);
  join_warp(mask, place);
  return slots;
}

template <class T>
T shuffle(unsigned mask, T value, unsigned source_lane, Place place) {
  const OrdersNothing scope;
  std::memcpy(&value, exchange(mask, value, place)[source_lane].bytes, sizeof value);
  return value;
}

inline unsigned vote(unsigned mask, bool predicate, Place place) {
  const OrdersNothing scope;
  const Slot* slots = exchange(mask, predicate, place);
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane) ballot |= unsigned(slots[lane].bytes[0] == 1) << lane;
  return ballot;
}

}  // namespace cuda_on_host

inline void __syncthreads(std::source_location at = std::source_location::current()) {
  cuda_on_host::arrive_and_wait(
      cuda_on_host::current->block->barrier, {"__syncthreads", at}, "divergent __syncthreads");
}

inline void __syncwarp(unsigned mask = ~0u, std::source_location at = std::source_location::current()) {
  cuda_on_host::join_warp(mask, {"__syncwarp", at});
}

// As in CUDA, `width` (a power of two) divides the warp into segments that exchange on their own.
template <class T>
T __shfl_sync(
    unsigned mask, T value, int source, int width = 32, std::source_location at = std::source_location::current()) {
  const unsigned lane = cuda_on_host::current->lane(), last = unsigned(width) - 1;
  return cuda_on_host::shuffle(mask, value, (lane & ~last) | (unsigned(source) & last), {"__shfl_sync", at});
}

template <class T>
T __shfl_xor_sync(
    unsigned mask, T value, int lane_mask, int width = 32, std::source_location at = std::source_location::current()) {
  const unsigned lane = cuda_on_host::current->lane(), source = lane ^ unsigned(lane_mask);
  const bool readable = source <= (lane | (unsigned(width) - 1));  // own and earlier segments
  return cuda_on_host::shuffle(mask, value, readable ? source : lane, {"__shfl_xor_sync", at});
}

template <class T>
T __shfl_down_sync(
    unsigned mask, T value, unsigned delta, int width = 32, std::source_location at = std::source_location::current()) {
  const unsigned lane = cuda_on_host::current->lane(), source = lane + delta;
  const bool readable = source <= (lane | (unsigned(width) - 1));
  return cuda_on_host::shuffle(mask, value, readable ? source : lane, {"__shfl_down_sync", at});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, std::source_location at = std::source_location::current()) {
  return cuda_on_host::vote(mask, predicate != 0, {"__ballot_sync", at});
}

inline int __any_sync(unsigned mask, int predicate, std::source_location at = std::source_location::current()) {
  return cuda_on_host::vote(mask, predicate != 0, {"__any_sync", at}) != 0;
}

inline int __all_sync(unsigned mask, int predicate, std::source_location at = std::source_location::current()) {
  return cuda_on_host::vote(mask, predicate == 0, {"__all_sync", at}) == 0;
}

// ---- device functions ---------------------------------------------------------------------------------------------

template <class T>
T __ldg(const T* address) {
  return *address;
}

inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
inline float __int_as_float(int x) {
  return std::bit_cast<float>(x);
}
inline long long __double_as_longlong(double x) {
  return std::bit_cast<long long>(x);
}
inline double __longlong_as_double(long long x) {
  return std::bit_cast<double>(x);
}

#if !(defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 42))  // <cmath> has it from there on
inline float rsqrtf(float x) {
  return 1 / std::sqrt(x);
}
#endif

// ---- the runtime --------------------------------------------------------------------------------------------------

enum cudaError_t : int { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaFuncAttribute : int { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
using cudaStream_t = struct CUstream_st*;

namespace cuda_on_host {

constexpr size_t kSharedBytes = 48 << 10;      // of dynamic shared memory any kernel may have
constexpr size_t kMaxSharedBytes = 227 << 10;  // and a kernel that asked for more (sm_90)

inline constinit thread_local cudaError_t last_error = cudaSuccess;

// Largest dynamic shared memory of the kernels that asked for another than kSharedBytes.
struct SharedLimits {
  std::mutex mutex;
  std::map<const void*, size_t> bytes;
};
inline SharedLimits shared_limits;

inline size_t shared_limit(const void* kernel) {
  const std::lock_guard lock(shared_limits.mutex);
  const auto found = shared_limits.bytes.find(kernel);
  return found == shared_limits.bytes.end() ? kSharedBytes : found->second;
}

inline cudaError_t check_launch(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes) {
  const auto within = [](dim3 shape, unsigned x, unsigned y, unsigned z) {
    return shape.x - 1 < x && shape.y - 1 < y && shape.z - 1 < z;  // 0 wraps around, and is not
  };
  if (!within(grid, 0x7fffffff, 65535, 65535) || !within(block, 1024, 1024, 64) || block.x * block.y * block.z > 1024)
    return cudaErrorInvalidConfiguration;
  return shared_bytes > shared_limit(kernel) ? cudaErrorInvalidValue : cudaSuccess;
}

// The block's dynamic shared memory: as many bytes as the launch asked for, 16-byte aligned, 0xFF when a block begins.
inline void* dynamic_shared_memory() {
  return current->block->shared_memory.get();
}

// Static shared memory: the block's array for this key, made, with 0xFF in it, by the first thread that asks for it.
inline void* shared_array(const void* key, size_t bytes) {
  const OrdersNothing scope;
  const std::lock_guard lock(current->block->shared_arrays_mutex);
  std::vector<unsigned char>& array = current->block->shared_arrays[key];
  array.resize(bytes, 0xFF);
  return array.data();
}

// kernel<<<grid, block, shared_bytes, stream>>>(arguments...), done when it returns; cudaGetLastError() tells whether
// it ran. Blocks run one after the other in an order no kernel can rely on. OS threads may launch at the same time.
template <class... P>
void launch(
    void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t /*stream*/,
    std::type_identity_t<P>... arguments) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied as bytes");
  const cudaError_t error = check_launch(reinterpret_cast<const void*>(kernel), grid, block, shared_bytes);
  if (error != cudaSuccess) {
    last_error = error;
    return;
  }
  const std::function<void()> body = [&] { kernel(arguments...); };  // by value: each thread has its own copy
  const char* self = std::source_location::current().function_name();
  const Schedule now = schedule;
  std::vector<size_t> order(size_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(now.seed + unsigned(now.order)));
  for (size_t i : order) {
    const uint3 index = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
    Block(index, block, grid, shared_bytes, body, self).run(now);
  }
}

}  // namespace cuda_on_host

template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  using namespace cuda_on_host;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || size_t(value) > kMaxSharedBytes)
    return last_error = cudaErrorInvalidValue;
  const std::lock_guard lock(shared_limits.mutex);
  shared_limits.bytes[reinterpret_cast<const void*>(kernel)] = size_t(value);
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
  }
  return "unrecognized error code";
}
