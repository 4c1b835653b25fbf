// What a CUDA kernel's source may use beyond C++: included instead of cuda_runtime.h. README.md says what is checked
// and what is not there.
#pragma once

#if defined(__CUDACC__)
#error "nvcc has CUDA itself: include cuda_runtime.h"
#endif

#include <bit>
#include <cmath>
#include <cstring>
#include <source_location>
#include <type_traits>
#include <utility>

#include "cluster.h"
#include "runtime.h"

// ---- the language -------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define threadIdx (std::as_const(cuda_on_host::current->index))
#define blockIdx (std::as_const(cuda_on_host::current->block->index))
#define blockDim (std::as_const(cuda_on_host::current->block->launch.block))
#define gridDim (std::as_const(cuda_on_host::current->block->launch.grid))
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

inline int __reduce_max_sync(unsigned mask, int value, std::source_location at = std::source_location::current()) {
  const cuda_on_host::OrdersNothing scope;
  const auto* slots = cuda_on_host::exchange(mask, value, {"__reduce_max_sync", at});
  const cuda_on_host::Thread& thread = *cuda_on_host::current;
  int largest = value;
  for (unsigned lane = 0, first = thread.rank - thread.lane(); lane < cuda_on_host::kWarp; ++lane) {
    int other;
    std::memcpy(&other, slots[lane].bytes, sizeof other);
    if (first + lane < thread.block->threads.size() && other > largest) largest = other;
  }
  return largest;
}

// ---- device functions ---------------------------------------------------------------------------------------------

inline int __popc(unsigned bits) {
  return __builtin_popcount(bits);
}
inline int __ffs(int bits) {
  return __builtin_ffs(bits);
}

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
