// The Python module: importing it registers the operators; what it offers by itself is a description of the build.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <tuple>

#include "../cpu/kernels.h"
#include "../cuda/kernels.h"

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
#if defined(TAD_WITH_CUDA)
  module.def(
      "tad_loss_plan",
      [](int64_t vocabulary, const std::string& dtype, bool has_teacher) {
        tad::TadLossArguments a;
        a.vocabulary = vocabulary;
        a.student.dtype = a.teacher.dtype = dtype == "float32" ? tad::DType::kFloat32 : tad::DType::kBFloat16;
        if (has_teacher) a.teacher.data = &a;  // nothing is read
        tad::cuda::LaunchPlan plan;
        if (const tad::cuda::Status status = tad::cuda::tad_loss_plan(a, &plan))
          throw std::runtime_error(tad::cuda::status_text(status));
        return std::make_tuple(plan.cluster_blocks, plan.kept_bytes, plan.blocks_per_multiprocessor);
      },
      "Of rows of bfloat16 or float32 on the current GPU: blocks of a cluster, bytes each keeps, blocks at a time on a "
      "multiprocessor (csrc/cuda/kernels.h).");
#endif
  module.attr("cuda_built") = TAD_CUDA_BUILT;
  module.attr("cuda_reason") = TAD_CUDA_REASON;
  module.attr("cuda_architectures") = TAD_CUDA_ARCHITECTURES;
}
