// Choice of the instruction set, once per process.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace tad {

std::vector<const CpuKernels*> runnable_cpu_kernels() {
  std::vector<const CpuKernels*> tables;
#if defined(__x86_64__)
  // Every processor with AVX2 has F16C, whose name Clang does not know here.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) tables.push_back(&kAvx512Kernels);
  if (avx2) tables.push_back(&kAvx2Kernels);
#endif
  tables.push_back(&kPortableKernels);
  return tables;
}

static const CpuKernels& choose() {
  const char* wanted = std::getenv("TAD_CPU_ISA");
  for (const CpuKernels* table : runnable_cpu_kernels())
    if (!wanted || std::string(wanted) == table->instruction_set) return *table;
  throw std::invalid_argument(
      "TAD_CPU_ISA is '" + std::string(wanted) +
      "', expected portable, avx2 or avx512, as far as this processor has it");
}

const CpuKernels& cpu_kernels() {
  static const CpuKernels& kernels = choose();
  return kernels;
}

}  // namespace tad
