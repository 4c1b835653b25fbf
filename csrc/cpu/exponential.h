// Exponentials of vectors, as powers of two. kCount vectors go through every step side by side: one alone would wait
// for each operation, and a processor's window is too short to find another in time.
#pragma once

#include "../common/row_math.h"
#include "simd.h"

namespace tad {
namespace TAD_ISA {

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

#if defined(TAD_HAS_AVX512)

/// The bits of 2^(j / 32) less j << 18, which 32 n + j shifted by 18 adds beside n in the exponent.
alignas(64) constexpr uint32_t kRoots[32] = {
    0x3f800000u, 0x3f7ecd87u, 0x3f7daac3u, 0x3f7c980fu, 0x3f7b95c2u, 0x3f7aa43au, 0x3f79c3d3u, 0x3f78f4f0u,
    0x3f7837f0u, 0x3f778d3au, 0x3f76f532u, 0x3f767043u, 0x3f75fed7u, 0x3f75a15bu, 0x3f75583fu, 0x3f7523f6u,
    0x3f7504f3u, 0x3f74fbafu, 0x3f7508a4u, 0x3f752c4du, 0x3f75672au, 0x3f75b9beu, 0x3f76248cu, 0x3f76a81eu,
    0x3f7744fdu, 0x3f77fbb8u, 0x3f78ccdfu, 0x3f79b907u, 0x3f7ac0c7u, 0x3f7be4bau, 0x3f7d257du, 0x3f7e83b3u};

/// 2^n times a root times a polynomial, whatever is known of the powers. At the lowest one all bits are 0; from there
/// to the normal numbers the result is some subnormal number.
template <int kCount, Powers>
TAD_ALWAYS_INLINE void exp2_above_lowest(Vector<float>* x, float scale) {
  const __m512 low = _mm512_load_ps(kRoots), high = _mm512_load_ps(kRoots + 16);
  Vector<float> power[kCount], p[kCount];
  // Adding 1.5 * 2^18 rounds to 32nds: the low bits hold 32 n + j.
  const float shift = 393216.0f;
  for (int k = 0; k < kCount; ++k) power[k] = x[k] * scale + shift;
  for (int k = 0; k < kCount; ++k) p[k] = power[k] - shift;
  for (int k = 0; k < kCount; ++k) x[k] = x[k] * scale - p[k];
  // Of what is left, within 1/64 of 0, 2^x - 1: 5.4e-8 of 2^x, with the root's rounding and the others 1.7e-7.
  for (int k = 0; k < kCount; ++k) p[k] = x[k] * 2.40226492e-1f + 6.93157315e-1f;
  for (int k = 0; k < kCount; ++k) p[k] = p[k] * x[k];
  for (int k = 0; k < kCount; ++k) {
    const Words root = (Words)_mm512_permutex2var_ps(low, (__m512i)power[k], high);
    const Vector<float> scaled = (Vector<float>)(root + ((Words)power[k] << 18));
    x[k] = scaled * p[k] + scaled;
  }
}

#else

/// 2^n times a polynomial.
template <int kCount, Powers kPowers>
TAD_ALWAYS_INLINE void exp2_above_lowest(Vector<float>* x, float scale) {
  constexpr bool kOrdinary = kPowers == Powers::kOrdinary;
  Vector<float> power[kCount], p[kCount];
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

#endif

/// x becomes 2^(x * scale), within 1.5 ulp where multiply-adds are fused, for x * scale < 127; exactly 1 for 0. Of any
/// power: 0 for -inf, something below the normal numbers where the power is, and NaN stays NaN.
template <int kCount, Powers kPowers = Powers::kAny>
TAD_ALWAYS_INLINE void exp2_scaled(Vector<float>* x, float scale) {
  if constexpr (kPowers == Powers::kAny) {
    const Vector<float> lowest = splat(kLowestPower<float> / scale);
    for (int k = 0; k < kCount; ++k) x[k] = maximum(lowest, x[k]);
  }
  exp2_above_lowest<kCount, kPowers>(x, scale);
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
