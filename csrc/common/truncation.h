// Which of a row's logits stay where only the most probable ones may: numbers as integers in the same order, and the
// search for the least of those that stay, digit by digit. Weights are integers, so their sums do not depend on any
// order, and neither does the result.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "arguments.h"
#include "platform.h"
#include "storage.h"

namespace tad {
namespace TAD_ISA {

/// Integers in the order of the numbers: -0 is 0, and NaN is above all.
TAD_HOST_DEVICE uint32_t key_of(float x) {
  const uint32_t bits = float_to_bits(x + 0.0f), sign = 0x80000000u;
  return x != x ? ~0u : bits & sign ? ~bits : bits | sign;
}
TAD_HOST_DEVICE uint64_t key_of(double x) {
  const double number = x + 0.0;
  const uint64_t sign = uint64_t(1) << 63;
  uint64_t bits;
  memcpy(&bits, &number, sizeof(bits));
  return x != x ? ~uint64_t(0) : bits & sign ? ~bits : bits | sign;
}

template <class Real>
using KeyOf = decltype(key_of(Real()));

/// The number of a key; of one whose silent bits are 0 a number that lies between the next lower one and its own.
TAD_HOST_DEVICE float number_of(uint32_t key) {
  return bits_to_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}
TAD_HOST_DEVICE double number_of(uint64_t key) {
  const uint64_t sign = uint64_t(1) << 63, bits = key & sign ? key ^ sign : ~key;
  double x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

/// Whether there is a probability to speak of: no NaN and no +inf in the row, and something that is not -inf.
template <class Real>
TAD_HOST_DEVICE bool has_probabilities(Real max) {
  return max > Real(-INFINITY) && max < Real(INFINITY);
}

/// The lower bits of a key that say nothing, as numbers of this dtype have none there.
TAD_HOST_DEVICE int silent_bits(DType dtype) {
  return dtype == DType::kBFloat16 ? 16 : dtype == DType::kFloat16 ? 12 : 0;
}

/// Looks for the key at which weights, added up from the largest key down, reach what is needed. A step divides what is
/// left into 2^digit parts and enters the one in which that happens.
template <class Key>
struct Descent {
  Key low = 0;  // the key is not below it, but below low + 2^bits
  int bits = 8 * int(sizeof(Key));
  int64_t missing = 0;  // when all keys from low + 2^bits on are counted

  /// The part that a key is in, counted from below; 2^digit or more: in none.
  TAD_HOST_DEVICE Key part_of(Key key, int digit) const { return (key - low) >> (bits - digit); }

  /// `above`: the weight of the parts above it.
  TAD_HOST_DEVICE void enter(Key part, int digit, int64_t above) {
    bits -= digit;
    low += part << bits;
    missing -= above;
  }
};

/// The weight of the most probable token, to which others are in proportion: a whole row's weight fits an integer.
TAD_HOST_DEVICE double weight_of_peak(int64_t vocabulary) {
  double weight = double(int64_t(1) << 61);
  for (; vocabulary > 0; vocabulary /= 2) weight /= 2;
  return weight;
}

/// The part of all weight down to which tokens stay.
TAD_HOST_DEVICE int64_t needed_weight(double top_p, int64_t total) {
  return int64_t(std::ceil(top_p * double(total)));
}

}  // namespace TAD_ISA
}  // namespace tad
