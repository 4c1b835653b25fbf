// Vectors of the instruction set this translation unit is compiled for, on the compiler's generic vector types: the
// same source serves SSE2, AVX2, AVX-512 and NEON. No standard-library templates here (see TAD_ISA in
// common/platform.h).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

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

/// exp(x) for x <= 0 within about 1 ulp; exactly 0 below kLowestExponent, NaN stays NaN.
/// x = n ln 2 + r, exp(x) = 2^n exp(r), with a polynomial of degree 7 for exp(r), |r| <= ln(2) / 2.
inline Vector<float> exp_nonpositive(Vector<float> x) {
  typedef Simd<float>::Mask Int;
  const Vector<float> low = splat(kLowestExponent);
  const Vector<float> y = maximum(low, x);
  const Vector<float> magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
  const Vector<float> shifted = y * 1.44269504088896341f + magic;
  const Vector<float> n = shifted - magic;
  const Vector<float> r = (y - n * 0.693359375f) - n * -2.12194440e-4f;
  Vector<float> p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r;
  p = p + 1.0f;
  const Vector<float> power = (Vector<float>)(((Int)shifted << 23) + 0x3f800000);
  return x < low ? splat(0.0f) : p * power;  // a product, because adding to the bits would turn some NaNs into numbers
}

/// The float64 path serves gradient checks: exact, not fast.
inline Vector<double> exp_nonpositive(Vector<double> x) {
  for (int64_t i = 0; i < Simd<double>::kLanes; ++i) x[i] = std::exp(x[i]);
  return x;
}

}  // namespace TAD_ISA
}  // namespace tad
