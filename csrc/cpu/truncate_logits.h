// The most probable tokens of one row. The numbers lie in a workspace, where each step of the search leaves those that
// may still be the least one: a tenth, or less, after the first.
#pragma once

#include "../common/truncation.h"
#include "block_loops.h"
#include "exponential.h"
#include "row_sums.h"
#include "rows.h"

namespace tad {
namespace TAD_ISA {

constexpr int kFirstDigit = 11;  // whose sums fit the first-level cache
constexpr int kDigit = 7;        // of what is left then, which may be less than sums to look through

/// Calls visit(begin, length) for every block of some numbers.
template <class Visit>
void for_each_block_of(int64_t count, const Visit& visit) {
  for (int64_t begin = 0; begin < count; begin += kBlock) visit(begin, count - begin < kBlock ? count - begin : kBlock);
}

/// Elements of a row that are not below `least` (NaN: all of them), followed by -inf up to whole pairs of vectors.
/// Their number.
template <class Real>
int64_t collect(const Rows& rows, int64_t row, int64_t vocabulary, Real least, Real* x) {
  RowReader<Real> reader(rows, row);
  int64_t count = 0;
  for_each_block_of(vocabulary, [&](int64_t begin, int64_t length) {
    const Real* block = reader.template block<Real>(begin, length);
    if (least != least) {
      std::memcpy(x + count, block, size_t(length) * sizeof(Real));
      count += length;
      return;
    }
    for (int64_t i = 0; i < length; ++i) {
      x[count] = block[i];
      count += !(block[i] < least);
    }
  });
  for (int64_t i = count; i < padded<Real>(count); ++i) x[i] = negative_infinity<Real>();
  return count;
}

/// The largest of some numbers, in whole pairs of vectors; NaN where one is.
template <class Real>
Real max_or_nan(const Real* x, int64_t length) {
  typename Simd<Real>::Mask unordered{};
  for (int64_t i = 0; i < length; i += Simd<Real>::kLanes) {
    const Vector<Real> v = load<Real>(x + i);
    unordered |= v != v;
  }
  using Lane = typename IntegerOf<sizeof(Real)>::Scalar;
  return horizontal_sum<Lane>(unordered) != 0 ? Real(NAN) : block_max<Real>(x, length);
}

/// In a loop of its own, which the compiler turns into vectors.
template <class Real>
void write_keys(const Real* x, int64_t length, KeyOf<Real>* keys) {
  for (int64_t i = 0; i < length; ++i) keys[i] = key_of(x[i]);
}

/// Calls visit(first, last) for every vector's worth of a block's keys among which one may still be the least: few,
/// once the search has taken a step.
template <class Real, class Visit>
void for_each_vector_with(
    const Descent<KeyOf<Real>>& left, const KeyOf<Real>* keys, int64_t length, const Visit& visit) {
  using Lanes = IntegerOf<sizeof(Real)>;
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  const typename Lanes::Scalar low = left.low, others = ~((KeyOf<Real>(1) << left.bits) - 1);
  for (int64_t i = 0; i < length; i += kLanes) {
    typename Lanes::Vector key;
    std::memcpy(&key, keys + i, sizeof(key));
    const auto inside = ((key ^ low) & others) == 0;  // the lower bits of `low` are 0
    if (any_above<Real>(inside ? splat(Real(1)) : Vector<Real>{}, 0))
      visit(i, i + kLanes < length ? i + kLanes : length);
  }
}

/// The key at which weights reach needed(their sum). `weigh` writes those of a block, whole vectors, as Reals.
template <class Real, class Weigh, class Needed>
KeyOf<Real> least_key(Real* x, int64_t count, int silent, const Weigh& weigh, const Needed& needed) {
  using Key = KeyOf<Real>;
  alignas(64) Key keys[kBlock];
  alignas(64) Real weights[kBlock];
  int64_t sums[1 << kFirstDigit];
  Descent<Key> left;
  for (bool first = true; left.bits > silent; first = false) {
    const int most = first ? kFirstDigit : kDigit, digit = left.bits - silent < most ? left.bits - silent : most;
    std::memset(sums, 0, sizeof(sums[0]) << digit);
    for_each_block_of(count, [&](int64_t begin, int64_t length) {
      write_keys(x + begin, length, keys);
      weigh(x + begin, padded<Real>(length), weights);
      for (int64_t i = 0; i < length; ++i) sums[left.part_of(keys[i], digit)] += int64_t(weights[i]);
    });
    if (first) {
      int64_t total = 0;
      for (int part = 0; part < 1 << digit; ++part) total += sums[part];
      left.missing = needed(total);
    }
    int part = (1 << digit) - 1;
    int64_t above = 0;
    for (; part > 0 && above + sums[part] < left.missing; --part) above += sums[part];
    left.enter(Key(part), digit, above);
    int64_t kept = 0;
    for_each_block_of(count, [&](int64_t begin, int64_t length) {
      write_keys(x + begin, length, keys);
      for_each_vector_with<Real>(left, keys, length, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
          x[kept] = x[begin + i];
          kept += left.part_of(keys[i], 0) == 0;
        }
      });
    });
    count = kept;
  }
  return left.low;
}

/// Exponentials of a block of numbers, times a weight.
template <class Real>
void weigh_exponentials(const Real* x, int64_t length, Real max, Real scale, Real weight, Real* weights) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  for_each_vectors<Real, kSide>(length, [&](int64_t i, auto vectors) TAD_INLINED {
    constexpr int kCount = vectors.value;
    Vector<Real> e[kCount];
    for (int k = 0; k < kCount; ++k) e[k] = load<Real>(x + i + k * kLanes) - max;
    exp2_scaled<kCount>(e, scale);
    for (int k = 0; k < kCount; ++k) store(weights + i + k * kLanes, e[k] * weight);
  });
}

/// Copies a row; what is below `least` becomes -inf.
template <class Real>
void write_truncated(const TruncationArguments& a, int64_t row, Real least) {
  RowReader<Real> reader(a.logits, row);
  RowWriter<Real> writer(a.out, row, a.vocabulary, false);
  const Vector<Real> nothing = splat(negative_infinity<Real>());
  for_each_block_of(a.vocabulary, [&](int64_t begin, int64_t length) {
    const Real* block = reader.template block<Real>(begin, length);
    writer.write(begin, length, [&](int64_t i) TAD_INLINED {
      const Vector<Real> x = load<Real>(block + i);
      return x < least ? nothing : x;
    });
  });
}

/// `x` has room for a row in whole blocks.
template <class Real>
void truncate_logits(const TruncationArguments& a, int64_t row, Real* x) {
  const int silent = silent_bits(a.logits.dtype);
  KeyOf<Real> low = 0;
  if (a.top_k < a.vocabulary) {
    const auto ones = [](const Real*, int64_t length, Real* weights) {
      for (int64_t i = 0; i < length; ++i) weights[i] = 1;
    };
    const int64_t count = collect(a.logits, row, a.vocabulary, Real(number_of(low)), x);
    low = least_key(x, count, silent, ones, [&](int64_t) { return a.top_k; });
  }
  if (a.top_p < 1) {
    const int64_t count = collect(a.logits, row, a.vocabulary, Real(number_of(low)), x);
    const Real max = max_or_nan(x, padded<Real>(count));
    if (has_probabilities(max)) {
      const Real scale = scale_of<Real>(1 / a.temperature), weight = Real(weight_of_peak(a.vocabulary));
      const auto weigh = [&](const Real* block, int64_t length, Real* weights) {
        weigh_exponentials(block, length, max, scale, weight, weights);
      };
      low = least_key(x, count, silent, weigh, [&](int64_t total) { return needed_weight(a.top_p, total); });
    }
  }
  write_truncated(a, row, Real(number_of(low)));
}

}  // namespace TAD_ISA
}  // namespace tad
