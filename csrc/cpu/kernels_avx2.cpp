// The CPU kernels for AVX2 with FMA and F16C.
#if defined(__x86_64__)
// Standard headers come first, outside the target region: what they define stays portable.
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,tune=haswell")
#endif
#define TAD_ISA avx2
#define TAD_VECTOR_BYTES 32
#define TAD_HAS_F16C
#include "kernel_table.inl"

namespace tad {
const CpuKernels kAvx2Kernels = {"avx2", avx2::kernels_of<float>(), avx2::kernels_of<double>()};
}
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
