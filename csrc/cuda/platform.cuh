// What every kernel file begins with. The only place that knows whether kernels are compiled for a GPU or, in the
// tests, run on the host thread by thread (TAD_CUDA_ON_HOST).
#pragma once

#include <cstdint>

#define TAD_ISA cuda  // the shared mathematics is compiled into tad::cuda here

#if defined(TAD_CUDA_ON_HOST)
#include "../tests/cuda_on_host.h"
#else
#include <cuda_runtime.h>
#endif

#include "kernels.h"

namespace tad {
namespace cuda {

constexpr int kWarp = 32;

/// The dynamic shared memory of the calling thread's block, the only shared memory that kernels use.
template <class T>
__device__ T* shared_memory() {
#if defined(TAD_CUDA_ON_HOST)
  return static_cast<T*>(cuda_on_host::dynamic_shared_memory());
#else
  extern __shared__ __align__(16) unsigned char tad_shared_memory[];
  return reinterpret_cast<T*>(tad_shared_memory);
#endif
}

/// kernel<<<blocks, threads, shared_bytes, stream>>>(arguments...). Nothing is launched for zero blocks.
template <class... Parameters, class... Arguments>
Status launch(
    void (*kernel)(Parameters...), dim3 blocks, int threads, size_t shared_bytes, Stream stream,
    const Arguments&... arguments) {
  if (blocks.x == 0 || blocks.y == 0) return cudaSuccess;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
#if defined(TAD_CUDA_ON_HOST)
  cuda_on_host::launch(kernel, blocks, dim3(threads), shared_bytes, cuda_stream, arguments...);
#else
  // clang-format off
  kernel<<<blocks, threads, shared_bytes, cuda_stream>>>(arguments...);
  // clang-format on
#endif
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace tad
