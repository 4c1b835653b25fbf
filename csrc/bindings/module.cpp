// The Python module: importing it registers the operators; what it offers by itself is a description of the build.
#include <pybind11/pybind11.h>

#include "../cpu/kernels.h"

#if defined(TAD_WITH_CUDA)
#define TAD_CUDA_BUILT true
#else
#define TAD_CUDA_BUILT false
#endif

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled operators of tad_ext (see torch.ops.tad_ext).";
  module.def(
      "cpu_instruction_set", [] { return tad::cpu_kernels().instruction_set; },
      "The instruction set the CPU kernels use in this process.");
  module.attr("cuda_built") = TAD_CUDA_BUILT;
  module.attr("cuda_reason") = TAD_CUDA_REASON;
  module.attr("cuda_architectures") = TAD_CUDA_ARCHITECTURES;
}
