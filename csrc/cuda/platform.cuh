// What every kernel file begins with. nvcc compiles kernels for a GPU; any other compiler compiles them for the host,
// where csrc/cuda_on_host runs them thread by thread.
#pragma once

#include <cstdint>
#include <type_traits>

#define TAD_ISA cuda  // the shared mathematics is compiled into tad::cuda here

#if defined(__CUDACC__)
#include "platform_device.cuh"
#else
#include "../cuda_on_host/platform.h"
#endif

namespace tad {
namespace cuda {

constexpr int kWarp = 32;

/// Of a block's shared memory: what is left to the static arrays of kernels that use the rest (tools/cuda_resources.py
/// sees to it that they need no more).
constexpr int kReservedSharedBytes = 5 << 10;

/// A kernel that uses dynamic shared memory, or large clusters, may from then on use all there is: the same number
/// whatever the launch, so that launches on several threads agree.
template <class... Parameters>
Status allow(void (*kernel)(Parameters...), const LaunchShape& shape) {
  if (shape.cluster_blocks > kPortableClusterBlocks) {
    const Status error = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    if (error) return error;
  }
  if (shape.shared_bytes == 0) return cudaSuccess;
  const Status error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  if (error) return error;
  const int most = current_device().shared_bytes_per_block - kReservedSharedBytes;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
}

/// Enqueues a kernel. Nothing is launched for zero blocks.
template <class... Parameters, class... Arguments>
Status launch(void (*kernel)(Parameters...), LaunchShape shape, Stream stream, const Arguments&... arguments) {
  if (shape.blocks.x == 0 || shape.blocks.y == 0) return cudaSuccess;
  if (const Status error = allow(kernel, shape)) {
    cudaGetLastError();  // no later launch's
    return error;
  }
  if (shape.stays) {
    const unsigned of_cluster = unsigned(shape.cluster_blocks), clusters = shape.blocks.x / of_cluster;
    shape.blocks.x = clusters_that_stay(clusters, clusters_at_a_time(kernel, shape)) * of_cluster;
  }
  return enqueue(kernel, shape, stream, arguments...);
}

template <class... Parameters, class... Arguments>
Status launch(void (*kernel)(Parameters...), dim3 blocks, int threads, Stream stream, const Arguments&... arguments) {
  return launch(kernel, LaunchShape{blocks, threads}, stream, arguments...);
}

}  // namespace cuda
}  // namespace tad
