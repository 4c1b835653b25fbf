// Element types in memory, and their conversion to and from the type that arithmetic is done in.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../common/platform.h"

namespace tad {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

namespace TAD_ISA {

inline float bits_to_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

inline uint32_t float_to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

template <class Real>
inline Real from_storage(float x) {
  return Real(x);
}
template <class Real>
inline Real from_storage(double x) {
  return Real(x);
}
template <class Real>
inline Real from_storage(BFloat16 x) {
  return Real(bits_to_float(uint32_t(x.bits) << 16));
}
template <class Real>
inline Real from_storage(Float16 x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return Real(bits_to_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13)));
  // 2^-112 rescales the exponent; a subnormal half becomes a normal float this way.
  const float scaled = bits_to_float(magnitude << 13) * 5.192296858534828e+33f;
  return Real(bits_to_float(sign | float_to_bits(scaled)));
}

/// Rounds to nearest even, as PyTorch does.
template <class Real>
inline void to_storage(Real x, float* out) {
  *out = float(x);
}
template <class Real>
inline void to_storage(Real x, double* out) {
  *out = double(x);
}
template <class Real>
inline void to_storage(Real x, BFloat16* out) {
  const uint32_t bits = float_to_bits(float(x));
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out->bits = (bits & 0x7fffffffu) > 0x7f800000u ? uint16_t(0x7fc0u) : uint16_t(rounded);
}
template <class Real>
inline void to_storage(Real x, Float16* out) {
  const uint32_t bits = float_to_bits(float(x));
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint16_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // subnormal: the float adder does the rounding
    half = uint16_t(float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u);
  } else {
    half = uint16_t((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13);
  }
  out->bits = sign | half;
}

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
