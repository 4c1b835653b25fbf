// Vectors of the instruction set this translation unit is compiled for, on the compiler's generic vector types: the
// same source serves SSE2, AVX2, AVX-512 and NEON. No standard-library templates here (see TAD_ISA in
// common/platform.h).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../common/row_math.h"

#ifndef TAD_VECTOR_BYTES
#define TAD_VECTOR_BYTES 16
#endif

namespace tad {
namespace TAD_ISA {

template <class Real>
struct Simd;

template <>
struct Simd<float> {
  typedef float Vector __attribute__((vector_size(TAD_VECTOR_BYTES)));
  typedef int32_t Mask __attribute__((vector_size(TAD_VECTOR_BYTES)));
  static constexpr int64_t kLanes = TAD_VECTOR_BYTES / sizeof(float);
};

template <>
struct Simd<double> {
  typedef double Vector __attribute__((vector_size(TAD_VECTOR_BYTES)));
  typedef int64_t Mask __attribute__((vector_size(TAD_VECTOR_BYTES)));
  static constexpr int64_t kLanes = TAD_VECTOR_BYTES / sizeof(double);
};

template <class Real>
using Vector = typename Simd<Real>::Vector;

template <class Real>
inline Vector<Real> load(const Real* p) {
  Vector<Real> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

template <class Real>
inline void store(Real* p, Vector<Real> v) {
  std::memcpy(p, &v, sizeof(v));
}

/// A store to aligned memory that nobody reads soon: where the processor can, it bypasses the caches.
template <class Real>
inline void stream(Real* p, Vector<Real> v) {
#if defined(TAD_HAS_AVX512)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#else
  store(p, v);
#endif
}

/// Orders streamed stores before whatever another thread is told afterwards.
inline void stream_fence() {
#if defined(TAD_HAS_AVX512)
  _mm_sfence();
#endif
}

template <class Real>
inline Vector<Real> splat(Real x) {
  return Vector<Real>{} + x;  // exact for every x but -0, which nothing here depends on
}

/// The larger of two; where `b` is NaN, NaN.
template <class V>
inline V maximum(V a, V b) {
  return a > b ? a : b;
}

template <class Real>
inline Real horizontal_max(Vector<Real> v) {
  Real lanes[Simd<Real>::kLanes];
  std::memcpy(lanes, &v, sizeof(v));
  for (int64_t width = Simd<Real>::kLanes / 2; width > 0; width /= 2)
    for (int64_t i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  return lanes[0];
}

template <class Real>
inline Real horizontal_sum(Vector<Real> v) {
  Real lanes[Simd<Real>::kLanes];
  std::memcpy(lanes, &v, sizeof(v));
  for (int64_t width = Simd<Real>::kLanes / 2; width > 0; width /= 2)
    for (int64_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

/// 2^f for |f| <= 1/2 within 2e-8; exactly 1 for f = 0.
inline Vector<float> exp2_fraction(Vector<float> f) {
  Vector<float> p = f * 1.53533605e-4f + 1.33988750e-3f;
  p = p * f + 9.61843692e-3f;
  p = p * f + 5.55033237e-2f;
  p = p * f + 2.40226477e-1f;
  p = p * f + 6.93147182e-1f;
  return p * f + 1.0f;
}

/// 2^y within about 1 ulp for y < 127; 0 for -inf and below the normal numbers; NaN stays NaN.
inline Vector<float> exp2(Vector<float> y) {
#if defined(TAD_HAS_AVX512)
  const Vector<float> f = _mm512_maskz_reduce_ps(0xffff, y, 8);  // y minus its nearest integer; 0 for infinities
  return _mm512_maskz_scalef_ps(0xffff, exp2_fraction(f), y - f);
#else
  typedef Simd<float>::Mask Int;
  const Vector<float> low = splat(-126.0f), high = splat(127.49f);
  Vector<float> x = maximum(low, y);
  x = high < x ? high : x;
  const Vector<float> shifted = x + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
  const Vector<float> fraction = exp2_fraction(x - (shifted - 12582912.0f));
  const Vector<float> power = (Vector<float>)(((Int)shifted << 23) + 0x3f800000);
  return y < low ? splat(0.0f) : fraction * power;  // a product, because adding to the bits would lose some NaNs
#endif
}

/// The float64 path serves gradient checks: exact, not fast.
inline Vector<double> exp2(Vector<double> y) {
  for (int64_t i = 0; i < Simd<double>::kLanes; ++i) y[i] = std::exp2(y[i]);
  return y;
}

}  // namespace TAD_ISA
}  // namespace tad
