// Runs of elements converted from and to the type that arithmetic is done in.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../common/storage.h"

namespace tad {
namespace TAD_ISA {

template <class Real, class Storage>
inline void convert_from(const Storage* in, Real* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = from_storage<Real>(in[i]);
}

template <class Real, class Storage>
inline void convert_to(const Real* in, Storage* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to_storage(in[i], out + i);
}

// The half conversions of F16C, which loops over the formulas above do not compile to.
#if defined(TAD_HAS_F16C)
inline void convert_from(const Float16* in, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
  for (; i < n; ++i) out[i] = from_storage<float>(in[i]);
}
inline void convert_to(const float* in, Float16* out, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(out + i),
        _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  for (; i < n; ++i) to_storage(in[i], out + i);
}
#endif

}  // namespace TAD_ISA
}  // namespace tad
