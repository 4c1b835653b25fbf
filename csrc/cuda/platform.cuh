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

/// Shared memory for kCount values, the same for every thread of a block that asks for as many of this type.
template <class T, int kCount>
__device__ __forceinline__ T* shared_array() {
#if defined(TAD_CUDA_ON_HOST)
  static const char key = 0;  // one for each T and kCount
  return static_cast<T*>(cuda_on_host::shared_array(&key, kCount * sizeof(T)));
#else
  __shared__ __align__(16) unsigned char array[kCount * sizeof(T)];  // bytes, because a T may have a constructor
  return reinterpret_cast<T*>(array);
#endif
}

/// kernel<<<blocks, threads, 0, stream>>>(arguments...). Nothing is launched for zero blocks.
template <class... Parameters, class... Arguments>
Status launch(void (*kernel)(Parameters...), dim3 blocks, int threads, Stream stream, const Arguments&... arguments) {
  if (blocks.x == 0 || blocks.y == 0) return cudaSuccess;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
#if defined(TAD_CUDA_ON_HOST)
  cuda_on_host::launch(kernel, blocks, dim3(threads), 0, cuda_stream, arguments...);
#else
  // clang-format off
  kernel<<<blocks, threads, 0, cuda_stream>>>(arguments...);
  // clang-format on
#endif
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace tad
