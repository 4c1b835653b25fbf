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
  // Both lanes get all eight; each moves its four into the upper halves of its numbers.
  const __m256i halves = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i places = _mm256_setr_epi8(
      -1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7, -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14,
      15);
  v = (Vector<float>)_mm256_shuffle_epi8(halves, places);
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

/// Whether a pair of vectors is taken apart into even and odd elements: a word that holds two bfloat16 is one operation
/// away from either as float32. All else is taken apart in the middle.
template <class Real, class Storage>
constexpr bool kEvenOdd = false;
template <>
inline constexpr bool kEvenOdd<float, BFloat16> = true;

/// One half of the two vectors' worth of elements at p, as Real.
template <int kHalf, class Real, class Storage>
TAD_ALWAYS_INLINE Vector<Real> load_half(const Storage* p) {
  if constexpr (kEvenOdd<Real, Storage>) {
    Words words;
    std::memcpy(&words, p, sizeof(words));
    return (Vector<Real>)(kHalf == 0 ? words << 16 : words & 0xffff0000u);
  } else {
    return load<Real>(p + kHalf * Simd<Real>::kLanes);
  }
}

/// The vector at place i when the halves of each pair of vectors are stored one behind the other.
template <class Real, class Storage>
TAD_ALWAYS_INLINE Vector<Real> load_in_halves(const Storage* p, int64_t i) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  return i / kLanes % 2 == 0 ? load_half<0, Real>(p + i) : load_half<1, Real>(p + i - kLanes);
}

/// Where element i is when the halves of each pair of vectors are stored one behind the other.
template <class Real>
inline int64_t even_odd_place(int64_t i) {
  constexpr int64_t kLanes = Simd<Real>::kLanes, kPair = 2 * kLanes;
  return i / kPair * kPair + i % 2 * kLanes + i % kPair / 2;
}

/// Both halves of a pair as bfloat16, rounded to nearest even. A NaN's lower 16 bits must be 0, as in every NaN that
/// was made from bfloat16 or by the processor: rounding cannot carry it over into another number then.
inline Words even_odd_bfloat16(Vector<float> even, Vector<float> odd) {
  const Words low = (Words)even, high = (Words)odd;
  const Words rounded_low = low + 0x7fffu + ((low >> 16) & 1u), rounded_high = high + 0x7fffu + ((high >> 16) & 1u);
  return (rounded_low >> 16) | (rounded_high & 0xffff0000u);
}

/// `count` elements into Reals.
template <class Real, class Storage>
inline void convert_from(const Storage* in, Real* out, int64_t count) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, load<Real>(in + i));
  for (; i < count; ++i) out[i] = from_storage<Real>(in[i]);
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

/// Sixteen floats as sixteen bfloat16 or float16.
inline __m256i packed(__m256 low, __m256 high, BFloat16) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded_to_bfloat16(low), rounded_to_bfloat16(high)), 0xd8);
}
inline __m256i packed(__m256 low, __m256 high, Float16) {
  constexpr int kRounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return _mm256_set_m128i(_mm256_cvtps_ph(high, kRounding), _mm256_cvtps_ph(low, kRounding));
}

/// Loops over the formula do not compile to these.
template <class Half>
inline void convert_to_half(const float* in, Half* out, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(out + i), packed(_mm256_loadu_ps(in + i), _mm256_loadu_ps(in + i + 8), Half()));
  for (; i < count; ++i) to_storage(in[i], out + i);
}
inline void convert_to(const float* in, BFloat16* out, int64_t count) {
  convert_to_half(in, out, count);
}
inline void convert_to(const float* in, Float16* out, int64_t count) {
  convert_to_half(in, out, count);
}

/// Two vectors to elements that nobody reads soon, past the caches, which saves reading the lines first. The address is
/// a multiple of TAD_VECTOR_BYTES.
template <class Half>
inline void stream_pair(Half* target, Vector<float> low, Vector<float> high) {
  constexpr int kParts = 2 * sizeof(low) / sizeof(__m256);
  __m256 parts[kParts];
  std::memcpy(parts, &low, sizeof(low));
  std::memcpy(parts + kParts / 2, &high, sizeof(high));
  for (int k = 0; k < kParts; k += 2)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(target + 8 * k), packed(parts[k], parts[k + 1], Half()));
}
inline void stream_pair(float* target, Vector<float> low, Vector<float> high) {
#if defined(TAD_HAS_AVX512)
  _mm512_stream_ps(target, low);
  _mm512_stream_ps(target + Simd<float>::kLanes, high);
#else
  _mm256_stream_ps(target, low);
  _mm256_stream_ps(target + Simd<float>::kLanes, high);
#endif
}
template <class Real, class Storage>
constexpr bool kCanStream = sizeof(Real) == 4 && sizeof(Storage) <= 4;
#else
template <class Real, class Storage>
constexpr bool kCanStream = false;
#endif

/// One vector, in the same way.
inline void stream(void* target, Words words) {
#if defined(TAD_HAS_AVX512)
  _mm512_stream_si512(static_cast<__m512i*>(target), (__m512i)words);
#elif defined(TAD_HAS_F16C)
  _mm256_stream_si256(static_cast<__m256i*>(target), (__m256i)words);
#else
  std::memcpy(target, &words, sizeof(words));
#endif
}

/// Orders streamed stores before whatever another thread is told afterwards.
inline void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace TAD_ISA
}  // namespace tad
