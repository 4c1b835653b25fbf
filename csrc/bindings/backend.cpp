#include "backend.h"

namespace tad {

std::unique_ptr<Backend> backend_for(const at::Tensor& tensor) {
#if defined(TAD_CUDA_ON_HOST)  // a test library: the CUDA kernels, run on the CPU
  return cuda_backend(tensor.device());
#else
  return tensor.is_cuda() ? cuda_backend(tensor.device()) : cpu_backend();
#endif
}

}  // namespace tad
