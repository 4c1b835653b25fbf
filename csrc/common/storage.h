// Element types in memory, and their conversion to and from the type that arithmetic is done in.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include "arguments.h"
#include "platform.h"

namespace tad {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

namespace TAD_ISA {

/// Bytes of an element.
TAD_HOST_DEVICE int64_t element_size(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

TAD_HOST_DEVICE float bits_to_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

TAD_HOST_DEVICE uint32_t float_to_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}

template <class Real>
TAD_HOST_DEVICE Real from_storage(float x) {
  return Real(x);
}
template <class Real>
TAD_HOST_DEVICE Real from_storage(double x) {
  return Real(x);
}
template <class Real>
TAD_HOST_DEVICE Real from_storage(BFloat16 x) {
  return Real(bits_to_float(uint32_t(x.bits) << 16));
}
template <class Real>
TAD_HOST_DEVICE Real from_storage(Float16 x) {
#if defined(__CUDA_ARCH__)
  return Real(__half2float(__ushort_as_half(x.bits)));
#else
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return Real(bits_to_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13)));
  // 2^-112 rescales the exponent; a subnormal half becomes a normal float this way.
  const float scaled = bits_to_float(magnitude << 13) * 5.192296858534828e+33f;
  return Real(bits_to_float(sign | float_to_bits(scaled)));
#endif
}

/// One element of a row.
template <class Real>
TAD_HOST_DEVICE Real element_of(const Rows& rows, int64_t row, int64_t column) {
  const int64_t i = row * rows.row_stride + column;
  switch (rows.dtype) {
    case DType::kFloat32: return from_storage<Real>(static_cast<const float*>(rows.data)[i]);
    case DType::kFloat64: return from_storage<Real>(static_cast<const double*>(rows.data)[i]);
    case DType::kBFloat16: return from_storage<Real>(static_cast<const BFloat16*>(rows.data)[i]);
    default: return from_storage<Real>(static_cast<const Float16*>(rows.data)[i]);
  }
}

/// Rounds to nearest even, as PyTorch does.
template <class Real>
TAD_HOST_DEVICE void to_storage(Real x, float* out) {
  *out = float(x);
}
template <class Real>
TAD_HOST_DEVICE void to_storage(Real x, double* out) {
  *out = double(x);
}
template <class Real>
TAD_HOST_DEVICE void to_storage(Real x, BFloat16* out) {
#if defined(__CUDA_ARCH__)
  out->bits = __bfloat16_as_ushort(__float2bfloat16_rn(float(x)));
#else
  const uint32_t bits = float_to_bits(float(x));
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out->bits = (bits & 0x7fffffffu) > 0x7f800000u ? uint16_t(0x7fc0u) : uint16_t(rounded);
#endif
}
template <class Real>
TAD_HOST_DEVICE void to_storage(Real x, Float16* out) {
#if defined(__CUDA_ARCH__)
  out->bits = __half_as_ushort(__float2half_rn(float(x)));
#else
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
#endif
}

}  // namespace TAD_ISA
}  // namespace tad
