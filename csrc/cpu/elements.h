// Runs of elements of any dtype, read and written a vector at a time: half types are converted in registers.
#pragma once

#include "../common/storage.h"
#include "simd.h"

namespace tad {
namespace TAD_ISA {

inline void load_into(const float* p, Vector<float>& v) {
  std::memcpy(&v, p, sizeof(v));
}
inline void load_into(const double* p, Vector<double>& v) {
  std::memcpy(&v, p, sizeof(v));
}
inline void load_into(const BFloat16* p, Vector<float>& v) {
#if defined(TAD_HAS_AVX512)
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  v = (Vector<float>)_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, half), 16);
#elif defined(TAD_HAS_F16C)
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  v = (Vector<float>)_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
#else
  typedef uint16_t Half __attribute__((vector_size(TAD_VECTOR_BYTES / 2)));
  typedef uint32_t Word __attribute__((vector_size(TAD_VECTOR_BYTES)));
  Half half;
  std::memcpy(&half, p, sizeof(half));
  v = (Vector<float>)(__builtin_convertvector(half, Word) << 16);
#endif
}
#if defined(TAD_HAS_AVX512)
inline void load_into(const Float16* p, Vector<float>& v) {
  v = _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
#elif defined(TAD_HAS_F16C)
inline void load_into(const Float16* p, Vector<float>& v) {
  v = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
#endif
template <class Storage, class V>
inline void load_into(const Storage* p, V& v) {
  for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); ++i) v[i] = from_storage<double>(p[i]);
}

/// A vector's worth of elements, as Real.
template <class Real, class Storage>
inline Vector<Real> load(const Storage* p) {
  Vector<Real> v;
  load_into(p, v);
  return v;
}

template <class Real>
inline void store(Real* p, Vector<Real> v) {
  std::memcpy(p, &v, sizeof(v));
}

/// `count` elements into Reals, followed by -inf up to `length`.
template <class Real, class Storage>
inline void convert_from(const Storage* in, Real* out, int64_t count, int64_t length) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, load<Real>(in + i));
  for (; i < count; ++i) out[i] = from_storage<Real>(in[i]);
  for (; i < length; ++i) out[i] = Real(-INFINITY);
}

/// `count` Reals into elements, rounded to nearest even.
template <class Real, class Storage>
inline void convert_to(const Real* in, Storage* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to_storage(in[i], out + i);
}

#if defined(TAD_HAS_F16C)
/// Eight floats as bfloat16 bits in 32-bit lanes. As to_storage does it.
inline __m256i rounded_to_bfloat16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), _mm256_set1_epi32(0x7fc0), nan);
}
inline void convert_to(const float* in, BFloat16* out, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i low = rounded_to_bfloat16(_mm256_loadu_ps(in + i));
    const __m256i high = rounded_to_bfloat16(_mm256_loadu_ps(in + i + 8));
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), packed);
  }
  for (; i < count; ++i) to_storage(in[i], out + i);
}

/// A loop over the formula does not compile to these.
inline void convert_to(const float* in, Float16* out, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(out + i),
        _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  for (; i < count; ++i) to_storage(in[i], out + i);
}
#endif

/// `bytes` to memory that nobody reads soon. Where the processor can, and the address is aligned, past the caches:
/// that saves reading the lines first.
inline void stream(char* target, const char* source, int64_t bytes) {
#if defined(TAD_HAS_AVX512) || defined(TAD_HAS_F16C)
  if (reinterpret_cast<uintptr_t>(target) % TAD_VECTOR_BYTES == 0) {
    for (; bytes >= TAD_VECTOR_BYTES; bytes -= TAD_VECTOR_BYTES) {
#if defined(TAD_HAS_AVX512)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(target), _mm512_loadu_si512(source));
#else
      _mm256_stream_si256(
          reinterpret_cast<__m256i*>(target), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
#endif
      target += TAD_VECTOR_BYTES;
      source += TAD_VECTOR_BYTES;
    }
  }
#endif
  std::memcpy(target, source, bytes);
}

/// Orders streamed stores before whatever another thread is told afterwards.
inline void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace TAD_ISA
}  // namespace tad
