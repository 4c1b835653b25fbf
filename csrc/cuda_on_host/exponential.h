// 2^y in float32, as a GPU's ex2.approx.ftz.f32 has it: 0 below the normal numbers, and not rounded to the nearest.
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

/// Off by up to 2 ulp, up or down as the bits of y say, but for what the instruction has exactly: 0, infinity, NaN, and
/// 2^0, for which it takes that of a subnormal number.
inline float exp2_off(float y) {
  const float rounded = exp2_rounded(y);
  if (rounded == 0 || !std::isfinite(rounded) || std::abs(y) < kLeastNormal) return rounded;
  const uint32_t ulps = (std::bit_cast<uint32_t>(y) * 0x9E3779B1u >> 16) % 5;
  return flushed(std::bit_cast<float>(std::bit_cast<uint32_t>(rounded) + ulps - 2));
}

}  // namespace cuda_on_host
