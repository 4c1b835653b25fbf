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

#include "../common/platform.h"

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

/// What is left of a vector of `kBytes` after fold(lower half, upper half), again and again, has left one element.
template <class Scalar, size_t kBytes, class Fold>
TAD_ALWAYS_INLINE Scalar folded(const void* lanes, const Fold& fold) {
  if constexpr (kBytes > 16) {
    typedef Scalar Half __attribute__((vector_size(kBytes / 2)));
    Half low, high;
    std::memcpy(&low, lanes, sizeof(low));
    std::memcpy(&high, static_cast<const char*>(lanes) + sizeof(low), sizeof(high));
    low = fold(low, high);
    return folded<Scalar, sizeof(low)>(&low, fold);
  } else {
    constexpr size_t kCount = kBytes / sizeof(Scalar);
    Scalar left[kCount];
    std::memcpy(left, lanes, kBytes);
    for (size_t width = kCount / 2; width > 0; width /= 2)
      for (size_t i = 0; i < width; ++i) left[i] = fold(left[i], left[i + width]);
    return left[0];
  }
}

template <class Scalar, class V>
inline Scalar horizontal_max(V v) {
  return folded<Scalar, sizeof(v)>(&v, [](auto a, auto b) TAD_INLINED { return a > b ? a : b; });
}
template <class Scalar, class V>
inline Scalar horizontal_sum(V v) {
  return folded<Scalar, sizeof(v)>(&v, [](auto a, auto b) TAD_INLINED { return a + b; });
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

}  // namespace TAD_ISA
}  // namespace tad
