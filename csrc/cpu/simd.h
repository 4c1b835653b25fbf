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

/// For what must not become a call in an inner loop, where vectors would travel through memory.
#define TAD_ALWAYS_INLINE inline __attribute__((always_inline))
#define TAD_INLINED __attribute__((always_inline))  // of a lambda

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
inline Vector<Real> splat(Real x) {
  return Vector<Real>{} + x;  // exact for every x but -0, which nothing here depends on
}

/// The larger of two; where `b` is NaN, NaN.
template <class V>
inline V maximum(V a, V b) {
  return a > b ? a : b;
}

/// The product rounded by itself, not as a part of a fused multiply-add: equal products cancel to exactly 0.
template <class V>
inline V rounded_product(V a, V b) {
  V product = a * b;
#if defined(__x86_64__)
  asm("" : "+x"(product));
#elif defined(__aarch64__)
  asm("" : "+w"(product));
#endif
  return product;
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

/// Whether any element is above a bound.
template <class Real>
inline bool any_above(Vector<Real> v, Real bound) {
#if defined(TAD_HAS_AVX512)
  if constexpr (sizeof(Real) == 4) return _mm512_cmp_ps_mask(v, _mm512_set1_ps(bound), _CMP_GT_OQ) != 0;
#elif defined(TAD_HAS_F16C)
  if constexpr (sizeof(Real) == 4) return _mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_set1_ps(bound), _CMP_GT_OQ)) != 0;
#endif
  return horizontal_max<Real>(v) > bound;
}

/// Exponents of two at and below this give 0.
template <class Real>
constexpr Real kLowestPower = sizeof(Real) == 8 ? Real(-1100) : Real(-127);

/// exp2 of differences: x becomes 2^(x * scale), within 1.5 ulp, for x * scale < 127; 0 for -inf and below the
/// normal numbers; NaN stays NaN. kCount vectors go through every step side by side: one alone would wait for each of
/// its ten dependent operations, and a processor's window is too short to find another in time. With kBounded none is
/// below kLowestPower / scale.
template <int kCount, bool kBounded = false>
TAD_ALWAYS_INLINE void exp2_scaled(Vector<float>* x, float scale) {
  Vector<float> power[kCount], p[kCount];
#if defined(TAD_HAS_AVX512)
  for (int k = 0; k < kCount; ++k) x[k] *= scale;
  for (int k = 0; k < kCount; ++k) power[k] = x[k];
  for (int k = 0; k < kCount; ++k) x[k] = _mm512_maskz_reduce_ps(0xffff, x[k], 8);  // minus its nearest integer
  for (int k = 0; k < kCount; ++k) power[k] -= x[k];
#else
  // Adding 1.5 * 2^23 rounds to an integer, held in the low bits; with 127 more they are the exponent's bits. At the
  // lowest exponent these are 0, and the power is, too.
  typedef Simd<float>::Mask Int;
  const float shift = 12582912.0f + 127.0f;
  if (!kBounded) {
    const Vector<float> lowest = splat(kLowestPower<float> / scale);
    for (int k = 0; k < kCount; ++k) x[k] = maximum(lowest, x[k]);
  }
  for (int k = 0; k < kCount; ++k) power[k] = x[k] * scale + shift;
  for (int k = 0; k < kCount; ++k) p[k] = power[k] - shift;
  for (int k = 0; k < kCount; ++k) x[k] = x[k] * scale - p[k];
  for (int k = 0; k < kCount; ++k) power[k] = (Vector<float>)((Int)power[k] << 23);
#endif
  // 2^f for |f| <= 1/2 within 9.4e-8, with the roundings 1.6e-7; exactly 1 for f = 0.
  for (int k = 0; k < kCount; ++k) p[k] = x[k] * 1.3269519e-3f + 9.67129134e-3f;
  for (int k = 0; k < kCount; ++k) p[k] = p[k] * x[k] + 5.55071086e-2f;
  for (int k = 0; k < kCount; ++k) p[k] = p[k] * x[k] + 2.40222469e-1f;
  for (int k = 0; k < kCount; ++k) p[k] = p[k] * x[k] + 6.93147004e-1f;
  for (int k = 0; k < kCount; ++k) p[k] = p[k] * x[k] + 1.0f;
#if defined(TAD_HAS_AVX512)
  for (int k = 0; k < kCount; ++k) {  // 0 for what would be subnormal, which is slow, too
    const __mmask16 normal = _mm512_cmp_ps_mask(power[k], _mm512_set1_ps(kLowestPower<float>), _CMP_NLE_UQ);
    x[k] = _mm512_maskz_scalef_ps(normal, p[k], power[k]);
  }
#else
  for (int k = 0; k < kCount; ++k) x[k] = p[k] * power[k];  // a product: adding to the bits would lose some NaNs
#endif
}

/// The float64 path serves gradient checks: exact, not fast.
template <int kCount, bool kBounded = false>
TAD_ALWAYS_INLINE void exp2_scaled(Vector<double>* x, double scale) {
  for (int k = 0; k < kCount; ++k) {
    double lanes[Simd<double>::kLanes];
    std::memcpy(lanes, x + k, sizeof(lanes));
    for (double& lane : lanes) lane = std::exp2(lane * scale);
    std::memcpy(x + k, lanes, sizeof(lanes));
  }
}

}  // namespace TAD_ISA
}  // namespace tad
