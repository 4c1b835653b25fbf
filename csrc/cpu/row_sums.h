// Sums over a slice of a row: vector arithmetic inside a block, float64 accumulators from block to block.
//
// Where all logits of a block are ordinary numbers, as nearly always, exponentials are taken of them as they are. Where
// they are not, exponentials are relative to the block's maximum: none overflows.
#pragma once

#include <limits>

#include "block_loops.h"
#include "exponential.h"
#include "rows.h"

namespace tad {
namespace TAD_ISA {

/// An accumulator as the plain bytes of the kernels' interface, and back.
template <class Plain, class Sum>
inline void write_plain(const Sum& sum, Plain* plain) {
  static_assert(sizeof(Sum) <= sizeof(Plain));
  std::memcpy(plain, &sum, sizeof(sum));
}
template <class Sum, class Plain>
inline Sum read_plain(const Plain& plain) {
  Sum sum;
  std::memcpy(static_cast<void*>(&sum), &plain, sizeof(sum));
  return sum;
}

template <class Real, class Element>
inline Real block_max(const Element* block, int64_t length) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  Vector<Real> a = splat(negative_infinity<Real>()), b = a;
  for (int64_t i = 0; i < length; i += 2 * kLanes) {
    a = maximum(a, load_half<0, Real>(block + i));
    b = maximum(b, load_half<1, Real>(block + i));
  }
  return horizontal_max<Real>(maximum(a, b));
}

/// The largest magnitude among elements; inf or NaN where one is.
template <class Element>
class Magnitude {
 public:
  /// Takes a pair of vectors into account.
  template <class Real>
  TAD_ALWAYS_INLINE void admit(const Element* pair) {
    for (int64_t i = 0; i < 2 * Simd<Real>::kLanes; i += kLanes) {
      Bits bits;
      std::memcpy(&bits, pair + i, sizeof(bits));
      bits &= kAllButSign;
      largest_ = bits > largest_ ? bits : largest_;
    }
  }

  double value() const {
    const Pattern largest = horizontal_max<Pattern>(largest_);
    Element element;
    std::memcpy(&element, &largest, sizeof(element));
    return from_storage<double>(element);
  }

 private:
  // Bit patterns without their signs are ordered as integers like the numbers.
  typedef typename IntegerOf<sizeof(Element)>::Scalar Pattern;
  typedef typename IntegerOf<sizeof(Element)>::Vector Bits;
  static constexpr Pattern kAllButSign = std::numeric_limits<Pattern>::max();
  static constexpr int64_t kLanes = sizeof(Bits) / sizeof(Pattern);
  Bits largest_{};
};

/// The number that exponents are relative to, from block to block: near the maximum of what was seen.
template <class Real>
class Reference {
 public:
  /// No element stands more than this above it.
  static constexpr Real kHeadroom = 1;

  /// Takes a block's maximum into account (and a NaN stays a NaN). Whether it changed.
  bool admit(Real max) {
    const bool changes = !(max <= value_ + kHeadroom);
    if (changes) value_ = max;
    return changes;
  }
  /// Before a block: its maximum where there is nothing yet to be relative to, as in a slice's first block.
  template <class Element>
  void start(const Element* block, int64_t length) {
    if (value_ == negative_infinity<Real>()) value_ = block_max<Real>(block, length);
  }
  Real value() const { return value_; }
  Real zero() const { return reference_of(value_); }  // the finite number

 private:
  Real value_ = negative_infinity<Real>();
};

/// The magnitude, of logits that were taken as they are, says whether that was right.
struct BlockSum {
  double sum, magnitude;
};

/// Sum of exp over a block. `keep` gets the exponentials, of each pair of vectors the halves one behind the other.
template <bool kKeep, bool kOrdinary, class Real, class Element>
inline BlockSum block_sum(const Element* block, int64_t length, Real reference, Real scale, Real* keep) {
  constexpr int64_t kLanes = Simd<Real>::kLanes, kPair = 2 * kLanes;
  constexpr Powers kPowers = kOrdinary ? Powers::kOrdinary : Powers::kAny;
  Vector<Real> sum{};
  Magnitude<Element> magnitude;
  const auto visit = [&](int64_t i, auto pairs, auto half) TAD_INLINED {
    constexpr int kCount = pairs.value, kHalf = half.value;
    if (kHalf == 0) prefetch_next(block + i, length, kCount * kPair);
    if (kOrdinary && kHalf == 0)
      for (int k = 0; k < kCount; ++k) magnitude.template admit<Real>(block + i + k * kPair);
    Vector<Real> e[kCount];
    for (int k = 0; k < kCount; ++k) e[k] = load_half<kHalf, Real>(block + i + k * kPair);
    if (!kOrdinary)
      for (int k = 0; k < kCount; ++k) e[k] -= reference;
    exp2_scaled<kCount, kPowers>(e, scale);
    sum += tree_sum<Real, kCount>(e);
    for (int k = 0; k < kCount; ++k)
      if (kKeep) store(keep + i + k * kPair + kHalf * kLanes, e[k]);
  };
  for_each_halves<Real, kSide>(length, visit);
  return {double(horizontal_sum<Real>(sum)), magnitude.value()};
}

/// The sum of a slice at inverse temperature b, which has been rounded; without `weighted`. `keep` and `references` (of
/// the whole row) get the exponentials, unless null.
template <class Real>
inline RowSum<double> softmax_sum(
    RowReader<Real>& reader, int64_t vocabulary, int64_t slice, double b, Real* keep, Real* references) {
  const Real scale = scale_of<Real>(b);
  bool ordinary = true;
  RowSum<double> row;
  for_each_block(vocabulary, slice, [&](int64_t begin, int64_t count) {
    visit_block(reader, begin, count, [&](auto block, int64_t length) {
      Real max = 0;
      BlockSum part;
      const auto sum = [&](auto as_they_are) {
        with_flag(keep, [&](auto keeps) {
          part = block_sum<keeps.value, as_they_are.value>(
              block, length, reference_of(max), scale, keeps.value ? keep + begin : nullptr);
        });
      };
      if (ordinary) {
        sum(kYes);
        ordinary = part.magnitude * scale <= kOrdinaryPower;
      }
      if (!ordinary) {
        max = block_max<Real>(block, length);
        sum(kNo);
      }
      if (references) references[begin / kBlock] = reference_of(max);
      row = merge(row, {double(max), part.sum, 0}, b);
    });
  });
  return row;
}

template <class Real>
struct BlockEntropy {
  double sum, weighted;
  Real max;  // of the elements
};

/// Sums of exp(a) and of exp(a) * a over a block; with kBelow of the elements below a bound alone.
template <bool kBelow, class Real, class Element>
inline BlockEntropy<Real> block_entropy(const Element* block, int64_t length, Real reference, Real bound = 0) {
  constexpr int64_t kPair = 2 * Simd<Real>::kLanes;
  const Vector<Real> lowest = splat(kLowestPower<Real> / Real(kLog2E));  // keeps 0 * -inf out of the sum
  Vector<Real> sum{}, weighted[2] = {}, max = splat(negative_infinity<Real>());
  const auto visit = [&](int64_t i, auto pairs, auto half) TAD_INLINED {
    constexpr int kCount = pairs.value, kHalf = half.value;
    if (kHalf == 0) prefetch_next(block + i, length, kCount * kPair);
    Vector<Real> e[kCount], a[kCount];
    for (int k = 0; k < kCount; ++k) a[k] = load_half<kHalf, Real>(block + i + k * kPair);
    max = maximum(max, tree_max<Real, kCount>(a));
    for (int k = 0; k < kCount; ++k) {
      const Vector<Real> exponent = maximum(lowest, a[k] - reference);
      e[k] = a[k] = kBelow ? (a[k] >= bound ? lowest : exponent) : exponent;
    }
    exp2_scaled<kCount, Powers::kBounded>(e, Real(kLog2E));
    sum += tree_sum<Real, kCount>(e);
    weighted[kHalf] += dot<Real, kCount>(e, a);
  };
  for_each_halves<Real, kSide>(length, visit);
  return {
      double(horizontal_sum<Real>(sum)), double(horizontal_sum<Real>(weighted[0] + weighted[1])),
      horizontal_max<Real>(max)};
}

/// The sums of a block relative to a reference without its largest element, given those with it. Rare, and not inlined:
/// the loop around it is to keep its registers.
template <class Real, class Element>
__attribute__((noinline)) RowSum<double> without_peak(
    const Element* block, int64_t length, Real reference, const BlockEntropy<Real>& part) {
  const double above = double(part.max) - double(reference), peak = std::exp(above), others = part.sum - peak;
  if (!(others < peak / 4)) return {double(reference), others, part.weighted - peak * above};
  // A sum in float32 would have lost them beside the peak.
  const BlockEntropy<Real> below = block_entropy<true>(block, length, reference, part.max);
  return {double(reference), below.sum, below.weighted};
}

/// Sums of a slice at temperature 1. `visit(block, begin, count, max)` sees every block as well.
template <class Real, class Visit>
inline PeakedSum<double> peaked_sum(RowReader<Real>& reader, int64_t vocabulary, int64_t slice, const Visit& visit) {
  // Weighted sums are about as large as the peak stands above the reference, the entropy of a peaked row is nearly
  // nothing: so a block that stands above the reference is summed again relative to its own maximum.
  Reference<Real> reference;
  RowSum<double> others;  // all elements but the largest so far
  double max = negative_infinity<double>();
  for_each_block(vocabulary, slice, [&](int64_t begin, int64_t count) {
    visit_block(reader, begin, count, [&](auto block, int64_t length) {
      reference.start(block, length);
      BlockEntropy<Real> part = block_entropy<false>(block, length, reference.zero());
      if (reference.admit(part.max)) part = block_entropy<false>(block, length, reference.zero());
      RowSum<double> sum{double(reference.value()), part.sum, part.weighted};
      if (double(part.max) > max) {  // rare after the first blocks
        sum = without_peak(block, length, reference.zero(), part);
        if (max > negative_infinity<double>()) others = merge(others, {max, 1, 0});
        max = double(part.max);
      }
      others = merge(others, sum);
      visit(block, begin, count, double(part.max));
    });
  });
  const double shift = shift_to(max, others, 1.0);
  others = rebase(others, max, shift, shift);
  return {max, others.sum, others.weighted};
}

/// Sums for KL(teacher || student) over a block, with differences of logits in `weighted`.
struct BlockDivergence {
  double student_sum, teacher_sum, weighted;
  double magnitude;
};

/// Where the teacher has no probability the term is 0, whatever the student says. Only with kImpossible is that so for
/// 0 * inf as well: a block in which it occurs shows as a NaN in `weighted`. NaN logits reach all sums.
template <bool kKeep, bool kOrdinary, bool kImpossible, class Real, class Element>
inline BlockDivergence block_divergence(
    const Element* s, const Element* t, int64_t length, Real student_reference, Real teacher_reference, Real scale,
    Real* keep_student, Real* keep_teacher) {
  constexpr int64_t kLanes = Simd<Real>::kLanes, kPair = 2 * kLanes;
  constexpr Powers kPowers = kOrdinary ? Powers::kOrdinary : Powers::kAny;
  const Vector<Real> zero{};
  Vector<Real> student_sum{}, teacher_sum{}, weighted[2] = {};
  Magnitude<Element> magnitude;
  const auto visit = [&](int64_t i, auto pairs, auto half) TAD_INLINED {
    constexpr int kCount = pairs.value, kHalf = half.value;
    if (kHalf == 0) prefetch_next(s + i, length, kCount * kPair);
    if (kHalf == 0) prefetch_next(t + i, length, kCount * kPair);
    if (kOrdinary && kHalf == 0)
      for (int k = 0; k < kCount; ++k) {
        magnitude.template admit<Real>(s + i + k * kPair);
        magnitude.template admit<Real>(t + i + k * kPair);
      }
    Vector<Real> e[2 * kCount], difference[kCount];  // the student's, then the teacher's
    for (int k = 0; k < kCount; ++k) {
      e[k] = load_half<kHalf, Real>(s + i + k * kPair);
      e[kCount + k] = load_half<kHalf, Real>(t + i + k * kPair);
      if (!kOrdinary) e[k] -= student_reference;
      if (!kOrdinary) e[kCount + k] -= teacher_reference;
      difference[k] = e[kCount + k] - e[k];
    }
    exp2_scaled<2 * kCount, kPowers>(e, scale);
    student_sum += tree_sum<Real, kCount>(e);
    teacher_sum += tree_sum<Real, kCount>(e + kCount);
    for (int k = 0; k < kCount; ++k)
      if (kImpossible) difference[k] = e[kCount + k] > zero ? difference[k] : zero;
    weighted[kHalf] += dot<Real, kCount>(e + kCount, difference);
    for (int k = 0; k < kCount; ++k)
      if (kKeep) {
        store(keep_student + i + k * kPair + kHalf * kLanes, e[k]);
        store(keep_teacher + i + k * kPair + kHalf * kLanes, e[kCount + k]);
      }
  };
  for_each_halves<Real, kSide / 2>(length, visit);
  return {
      double(horizontal_sum<Real>(student_sum)), double(horizontal_sum<Real>(teacher_sum)),
      double(horizontal_sum<Real>(weighted[0] + weighted[1])), magnitude.value()};
}

/// How many times as large one of two rows' sums may be. A small divergence is what remains of differences of logits,
/// and loses digits the further the rows stand apart.
constexpr double kMostApart = 32;

/// The sums for KL(teacher || student) of a slice of a pair of rows at inverse temperature b, which has been rounded.
/// `kept`, unless null, gets the exponentials.
template <class Real>
inline DivergenceSum<double> divergence_sum(
    RowReader<Real>& student, RowReader<Real>& teacher, int64_t vocabulary, int64_t slice, double b,
    const Exponentials<Real>* kept) {
  const Real scale = scale_of<Real>(b);
  bool ordinary = true;
  DivergenceSum<double> row;
  for_each_block(vocabulary, slice, [&](int64_t begin, int64_t count) {
    visit_block(student, teacher, begin, count, [&](auto s, auto t, int64_t length) {
      Real student_max = 0, teacher_max = 0;
      BlockDivergence part;
      const auto sum = [&](auto as_they_are, auto impossible) {
        with_flag(kept, [&](auto keeps) {
          part = block_divergence<keeps.value, as_they_are.value, impossible.value>(
              s, t, length, reference_of(student_max), reference_of(teacher_max), scale,
              keeps.value ? kept->student + begin : nullptr, keeps.value ? kept->teacher + begin : nullptr);
        });
      };
      if (ordinary) {
        sum(kYes, kNo);
        ordinary = part.magnitude * scale <= kOrdinaryPower && part.student_sum < kMostApart * part.teacher_sum &&
                   part.teacher_sum < kMostApart * part.student_sum;
      }
      if (!ordinary) {
        student_max = block_max<Real>(s, length);
        teacher_max = block_max<Real>(t, length);
        sum(kNo, kNo);
        if (std::isnan(part.weighted)) sum(kNo, kYes);
      }
      if (kept) {
        kept->student_references[begin / kBlock] = reference_of(student_max);
        kept->teacher_references[begin / kBlock] = reference_of(teacher_max);
      }
      row = merge(
          row, {{double(student_max), part.student_sum, 0}, {double(teacher_max), part.teacher_sum, part.weighted * b}},
          b);
    });
  });
  return row;
}

}  // namespace TAD_ISA
}  // namespace tad
