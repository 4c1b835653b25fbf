// What kernels and launchers are written on, on the host. csrc/cuda/platform_device.cuh has the same for a GPU, and
// says what each of these is.
#pragma once

#include <cstring>

#include "../common/storage.h"
#include "../cuda/device.h"
#include "../cuda/kernels.h"
#include "approximations.h"
#include "language.h"
#include "mbarrier.h"

#include "../cuda/launch_shape.h"  // after dim3

namespace tad {
namespace cuda {

#if defined(TAD_LIKE_A_GPU)
constexpr int kRowThreads = 256;
#else
constexpr int kRowThreads = 64;  // a thread costs far more here than its columns
#endif

template <class T, int kCount, int kUse = 0>
T* shared_array() {
  static const char key = 0;  // one for each T, kCount and kUse
  return static_cast<T*>(cuda_on_host::shared_array(&key, kCount * sizeof(T)));
}

using cuda_on_host::dynamic_shared_memory;

using cuda_on_host::bulk_copy;
using cuda_on_host::bulk_prefetch;
using cuda_on_host::MBarrier;
using cuda_on_host::mbarrier_expect;
using cuda_on_host::mbarrier_init;
using cuda_on_host::mbarrier_wait;

constexpr bool has_bulk_copies() {
  return true;
}

inline void mbarrier_wait_for_blocks(
    MBarrier* barrier, unsigned parity, std::source_location at = std::source_location::current()) {
  mbarrier_wait(barrier, parity, at);
}

template <class T>
void send_to_block(
    int rank, T* target, const T& value, MBarrier* barrier, std::source_location at = std::source_location::current()) {
  cuda_on_host::store_async(unsigned(rank), target, &value, sizeof(T), barrier, at);
}

template <class T>
T* in_register(T* pointer) {
  return pointer;
}

template <class T>
T* in_global(T* global) {
  return global;
}

inline void store_streaming(uint4* target, const uint4& value) {
  *target = value;
}

#if defined(TAD_LIKE_A_GPU)
inline float exp2_approximate(float y) {
  return cuda_on_host::exp2_off(y);
}
inline float log2_approximate(float x) {
  return cuda_on_host::log2_off(x);
}
inline float quotient_approximate(float x, float y) {
  return cuda_on_host::quotient_off(x, y);
}
#else
inline float exp2_approximate(float y) {
  return cuda_on_host::exp2_rounded(y);
}
inline float log2_approximate(float x) {
  return std::log2(x);
}
inline float quotient_approximate(float x, float y) {
  return x / y;
}
#endif

template <class Element>
uint32_t larger_pair(uint32_t a, uint32_t b) {
  Element x[2], y[2];
  memcpy(x, &a, sizeof(a));
  memcpy(y, &b, sizeof(b));
  for (int i = 0; i < 2; ++i) {
    const float of_x = from_storage<float>(x[i]), of_y = from_storage<float>(y[i]);
    if (of_x < of_y || of_x != of_x) x[i] = y[i];
  }
  memcpy(&a, x, sizeof(a));
  return a;
}

inline int cluster_rank() {
  return int(cuda_on_host::cluster_rank());
}
inline int cluster_size() {
  return int(cuda_on_host::cluster_size());
}

inline void cluster_arrive(std::source_location at = std::source_location::current()) {
  cuda_on_host::cluster_arrive_relaxed(at);
}
using cuda_on_host::cluster_wait;

inline void begin_in_turn(unsigned, unsigned) {}  // nothing takes time here

using cuda_on_host::let_next_kernel_begin;
using cuda_on_host::wait_for_kernel_before;

inline Device current_device() {
  const cuda_on_host::Device& d = cuda_on_host::device;
  const auto fits = [&](int blocks) {
    return cuda_on_host::has_room_for_cluster(unsigned(blocks), kRowThreads, size_t(d.shared_bytes_per_block));
  };
  return {d.multiprocessors, d.l2_bytes, d.shared_bytes_per_block, largest_cluster(fits), d.clusters};
}

template <class... Parameters>
unsigned clusters_at_a_time(void (*)(Parameters...), const LaunchShape& shape) {
  return cuda_on_host::clusters_at_a_time(unsigned(shape.cluster_blocks), unsigned(shape.threads), shape.shared_bytes);
}

template <class... Parameters, class... Arguments>
Status enqueue(void (*kernel)(Parameters...), const LaunchShape& shape, Stream stream, const Arguments&... arguments) {
  cuda_on_host::launch_overlapping(
      {shape.overlap.begins_early && cuda_on_host::device.clusters, shape.overlap.lets_next_begin}, kernel,
      shape.blocks, dim3(unsigned(shape.threads)), unsigned(shape.cluster_blocks), shape.shared_bytes,
      static_cast<cudaStream_t>(stream), arguments...);
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace tad
