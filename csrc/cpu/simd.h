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

/// The bits of a vector of float32, or of pairs of half types.
typedef uint32_t Words __attribute__((vector_size(TAD_VECTOR_BYTES)));

/// Signed integers of a size in bytes.
template <int kBytes>
struct IntegerOf;
template <>
struct IntegerOf<2> {
  typedef int16_t Scalar;
  typedef int16_t Vector __attribute__((vector_size(TAD_VECTOR_BYTES)));
};
template <>
struct IntegerOf<4> {
  typedef int32_t Scalar;
  typedef int32_t Vector __attribute__((vector_size(TAD_VECTOR_BYTES)));
};
template <>
struct IntegerOf<8> {
  typedef int64_t Scalar;
  typedef int64_t Vector __attribute__((vector_size(TAD_VECTOR_BYTES)));
};

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

/// What is known of powers of two: nothing; that none is below kLowestPower; that all are within kOrdinaryPower of 0,
/// or else what becomes of them does not matter.
enum class Powers { kAny, kBounded, kOrdinary };

/// Of powers within it neither thousands in a sum leave the normal numbers, nor the sum's inverse times 1e-13. Without
/// fused multiply-adds x * scale is rounded, which costs digits as it grows.
#if defined(TAD_HAS_F16C) || defined(__FMA__) || defined(__aarch64__)
constexpr double kOrdinaryPower = 64;
#else
constexpr double kOrdinaryPower = 16;
#endif

/// x becomes 2^(x * scale), within 1.5 ulp where multiply-adds are fused, for x * scale < 127; exactly 1 for 0; 0 for
/// -inf and below the normal numbers; NaN stays NaN. kCount vectors go through every step side by side: one alone would
/// wait for each operation, and a processor's window is too short to find another in time.
template <int kCount, Powers kPowers = Powers::kAny>
TAD_ALWAYS_INLINE void exp2_scaled(Vector<float>* x, float scale) {
  constexpr bool kOrdinary = kPowers == Powers::kOrdinary;
  Vector<float> power[kCount], p[kCount];
  if constexpr (kPowers == Powers::kAny) {
    const Vector<float> lowest = splat(kLowestPower<float> / scale);
    for (int k = 0; k < kCount; ++k) x[k] = maximum(lowest, x[k]);
  }
  // Adding 1.5 * 2^23 rounds to an integer, held in the low bits: what the result's exponent grows by, or with 127 more
  // the exponent of a factor. At the lowest power that is 0: so is the result.
  const float shift = 12582912.0f + (kOrdinary ? 0.0f : 127.0f);
  for (int k = 0; k < kCount; ++k) power[k] = x[k] * scale + shift;
  for (int k = 0; k < kCount; ++k) p[k] = power[k] - shift;
  for (int k = 0; k < kCount; ++k) x[k] = x[k] * scale - p[k];
  // Of what is left, within 1/2 of 0: 9.4e-8, with the roundings 1.6e-7.
  for (int k = 0; k < kCount; ++k) p[k] = x[k] * 1.3269519e-3f + 9.67129134e-3f;
  for (int k = 0; k < kCount; ++k) p[k] = p[k] * x[k] + 5.55071086e-2f;
  for (int k = 0; k < kCount; ++k) p[k] = p[k] * x[k] + 2.40222469e-1f;
  for (int k = 0; k < kCount; ++k) p[k] = p[k] * x[k] + 6.93147004e-1f;
  for (int k = 0; k < kCount; ++k) p[k] = p[k] * x[k] + 1.0f;
  for (int k = 0; k < kCount; ++k) {
    const Words exponent = (Words)power[k] << 23;
    // Adding to the bits would lose some NaNs, and makes no 0.
    x[k] = kOrdinary ? (Vector<float>)((Words)p[k] + exponent) : p[k] * (Vector<float>)exponent;
  }
}

/// exp(b * x) is 2^(x * scale_of(b)), and as the scale is rounded, exp(rounded_inverse(b) * x): what is set against
/// sums of such must be taken at that inverse temperature, too, or the difference shows where x is large.
template <class Real>
inline Real scale_of(double b) {
  return Real(b * kLog2E);
}
template <class Real>
inline double rounded_inverse(double b) {
  return double(scale_of<Real>(b)) / kLog2E;
}

/// The float64 path serves gradient checks: exact, not fast.
template <int kCount, Powers kPowers = Powers::kAny>
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
