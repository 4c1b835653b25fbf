// The CPU kernels for AVX-512 (F, BW, DQ, VL).
#if defined(__x86_64__)
// Standard headers come first, outside the target region: what they define stays portable.
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,tune=icelake-server")
#endif
#define TAD_ISA avx512
#define TAD_VECTOR_BYTES 64
#define TAD_HAS_F16C
#define TAD_HAS_AVX512
#include "kernel_table.inl"

namespace tad {
const CpuKernels kAvx512Kernels = {"avx512", avx512::kernels_of<float>(), avx512::kernels_of<double>()};
}
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
