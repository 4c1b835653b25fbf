// What a GPU's approximate instructions have in float32: results that are not rounded to the nearest, and 2^y below the
// normal numbers as 0.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace cuda_on_host {

constexpr float kLeastNormal = std::numeric_limits<float>::min();

inline float flushed(float x) {
  return x < kLeastNormal ? 0 : x;
}

/// To the nearest.
inline float exp2_rounded(float y) {
  return flushed(float(std::exp2(double(y))));
}

/// A result other than 0, infinity and NaN off by up to 2 ulp, up or down as the bits of an operand say.
inline float off(float result, float operand) {
  if (result == 0 || !std::isfinite(result)) return result;
  const uint32_t ulps = (std::bit_cast<uint32_t>(operand) * 0x9E3779B1u >> 16) % 5;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(result) + ulps - 2);
}

/// But 2^0, for which it takes that of a subnormal number, is exact.
inline float exp2_off(float y) {
  const float rounded = exp2_rounded(y);
  return std::abs(y) < kLeastNormal ? rounded : flushed(off(rounded, y));
}

/// Off by up to 2^-21 where x is between 1/2 and 2, and there hardly ever exact.
inline float log2_off(float x) {
  const float logarithm = std::log2(x);
  return std::abs(logarithm) < 1 ? off(logarithm + 1, x) - 1 : off(logarithm, x);
}

inline float quotient_off(float x, float y) {
  return off(x / y, y);
}

}  // namespace cuda_on_host
