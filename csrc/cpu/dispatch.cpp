// Choice of the instruction set, once per process.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace tad {
namespace {

bool runs_here(const CpuKernels& kernels) {
#if defined(__x86_64__)
  if (&kernels == &kAvx512Kernels)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (&kernels == &kAvx2Kernels)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#endif
  return true;
}

const CpuKernels& choose() {
#if defined(__x86_64__)
  const CpuKernels* const tables[] = {&kAvx512Kernels, &kAvx2Kernels, &kPortableKernels};
#else
  const CpuKernels* const tables[] = {&kPortableKernels};
#endif
  const char* wanted = std::getenv("TAD_CPU_ISA");
  for (const CpuKernels* table : tables)
    if (runs_here(*table) && (!wanted || std::string(wanted) == table->instruction_set)) return *table;
  throw std::invalid_argument(
      "TAD_CPU_ISA is '" + std::string(wanted) +
      "', expected portable, avx2 or avx512, as far as this processor has it");
}

}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels& kernels = choose();
  return kernels;
}

}  // namespace tad
