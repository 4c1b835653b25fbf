// Sums over a slice of a row: vector arithmetic inside a block, float64 accumulators from block to block.
//
// Exponents are relative to a reference near the maximum of what was seen, which stays the same until a block stands
// far above it: so blocks are added without rescaling. A block that does, which its own maximum tells when its sums are
// known, is summed again relative to that: no exponential of the result has overflowed.
#pragma once

#include "../common/row_math.h"
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

constexpr int kSide = 6;  // vectors that go through the exponential side by side

/// Asks for what the next block will read where these `elements` of this one are, a block of `length` before it: its
/// first reader does little else, and would wait for the memory.
template <class Element>
TAD_ALWAYS_INLINE void prefetch_next(const Element* elements, int64_t length, int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(Element);
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(elements + length + i);
}

template <class Real, class Element>
inline Real block_max(const Element* block, int64_t length) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  Vector<Real> a = load<Real>(block), b = a;
  int64_t i = 0;
  for (; i + 2 * kLanes <= length; i += 2 * kLanes) {
    a = maximum(a, load<Real>(block + i));
    b = maximum(b, load<Real>(block + i + kLanes));
  }
  if (i < length) a = maximum(a, load<Real>(block + i));
  return horizontal_max<Real>(maximum(a, b));
}

constexpr double kHeadroom = 20;  // how large exponents may become

/// The number that exponents are relative to.
template <class Real>
class Reference {
 public:
  /// No element stands more than `headroom` above it.
  explicit Reference(double headroom) : headroom_(Real(headroom)) {}

  /// Takes a block's maximum into account (and a NaN stays a NaN). Whether it changed.
  bool admit(Real max) {
    const bool changes = !(max <= value_ + headroom_);
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
  Real headroom_;
};

/// Calls visit(i, count) with constant counts: for kCount vectors at a time, then for single ones.
template <int kCount>
struct Count {
  static constexpr int value = kCount;
};
template <class Real, int kCount, class Visit>
TAD_ALWAYS_INLINE void for_each_vectors(int64_t length, const Visit& visit) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  int64_t i = 0;
  for (; i + kCount * kLanes <= length; i += kCount * kLanes) visit(i, Count<kCount>());
  for (; i < length; i += kLanes) visit(i, Count<1>());
}

/// The sum of some vectors, as a tree: few accumulators, which the registers then have room for.
template <class Real, int kCount>
inline Vector<Real> tree_sum(const Vector<Real>* v) {
  if constexpr (kCount == 1) return v[0];
  if constexpr (kCount > 1) return tree_sum<Real, kCount / 2>(v) + tree_sum<Real, kCount - kCount / 2>(v + kCount / 2);
}

/// The largest elements of some vectors, as a tree.
template <class Real, int kCount>
inline Vector<Real> tree_max(const Vector<Real>* v) {
  if constexpr (kCount == 1) return v[0];
  if constexpr (kCount > 1)
    return maximum(tree_max<Real, kCount / 2>(v), tree_max<Real, kCount - kCount / 2>(v + kCount / 2));
}

template <class Real>
struct BlockSum {
  double sum, weighted;
  Real max;  // of the elements
};

/// Sum of exp over a block. `keep`, unless null, gets the exponentials.
template <bool kKeep, class Real, class Element>
inline BlockSum<Real> block_sum(const Element* block, int64_t length, Real reference, Real scale, Real* keep) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  Vector<Real> sum{}, max = splat(negative_infinity<Real>());
  for_each_vectors<Real, kSide>(length, [&](int64_t i, auto vectors) TAD_INLINED {
    constexpr int kCount = vectors.value;
    prefetch_next(block + i, length, kCount * kLanes);
    Vector<Real> e[kCount];
    for (int k = 0; k < kCount; ++k) e[k] = load<Real>(block + i + k * kLanes);
    max = maximum(max, tree_max<Real, kCount>(e));
    for (int k = 0; k < kCount; ++k) e[k] -= reference;
    exp2_scaled<kCount>(e, scale);
    sum += tree_sum<Real, kCount>(e);
    for (int k = 0; k < kCount; ++k)
      if (kKeep) store(keep + i + k * kLanes, e[k]);
  });
  return {double(horizontal_sum<Real>(sum)), 0, horizontal_max<Real>(max)};
}

/// The sum of a slice at inverse temperature b; without `weighted`. `keep` and `references` (of the whole row) get the
/// exponentials, unless null.
template <class Real>
inline RowSum<double> softmax_sum(
    RowReader<Real>& reader, int64_t vocabulary, int64_t slice, double b, Real* keep, Real* references) {
  const Real scale = Real(b * kLog2E);
  Reference<Real> reference(kHeadroom / b);
  RowSum<double> row;
  for_each_block(vocabulary, slice, [&](int64_t begin, int64_t count) {
    visit_block(reader, begin, count, [&](auto block, int64_t length) {
      const auto sums = [&] {
        return keep ? block_sum<true>(block, length, reference.zero(), scale, keep + begin)
                    : block_sum<false>(block, length, reference.zero(), scale, keep);
      };
      reference.start(block, length);
      BlockSum<Real> part = sums();
      if (reference.admit(part.max)) part = sums();
      if (references) references[begin / kBlock] = reference.zero();
      row = merge(row, {double(reference.value()), part.sum, 0}, b);
    });
  });
  return row;
}

/// Sums of exp(a) and of exp(a) * a over a block.
template <class Real, class Element>
inline BlockSum<Real> block_entropy(const Element* block, int64_t length, Real reference) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  const Vector<Real> lowest = splat(kLowestPower<Real> / Real(kLog2E));  // keeps 0 * -inf out of the sum
  Vector<Real> sum{}, weighted{}, max = splat(negative_infinity<Real>());
  for_each_vectors<Real, kSide>(length, [&](int64_t i, auto vectors) TAD_INLINED {
    constexpr int kCount = vectors.value;
    prefetch_next(block + i, length, kCount * kLanes);
    Vector<Real> e[kCount], a[kCount];
    for (int k = 0; k < kCount; ++k) a[k] = load<Real>(block + i + k * kLanes);
    max = maximum(max, tree_max<Real, kCount>(a));
    for (int k = 0; k < kCount; ++k) e[k] = a[k] = maximum(lowest, a[k] - reference);
    exp2_scaled<kCount, true>(e, Real(kLog2E));
    sum += tree_sum<Real, kCount>(e);
    for (int k = 0; k < kCount; ++k) weighted += e[k] * a[k];
  });
  return {double(horizontal_sum<Real>(sum)), double(horizontal_sum<Real>(weighted)), horizontal_max<Real>(max)};
}

/// Sums and weighted sums of a slice at temperature 1. `visit(block, begin, count, max)` sees every block as well.
template <class Real, class Visit>
inline RowSum<double> entropy_sum(RowReader<Real>& reader, int64_t vocabulary, int64_t slice, const Visit& visit) {
  // log(sum) and weighted / sum are about as large as the peak stands above the reference, the entropy of a peaked row
  // is nearly nothing.
  Reference<Real> reference(1);
  RowSum<double> row;
  for_each_block(vocabulary, slice, [&](int64_t begin, int64_t count) {
    visit_block(reader, begin, count, [&](auto block, int64_t length) {
      reference.start(block, length);
      BlockSum<Real> part = block_entropy(block, length, reference.zero());
      if (reference.admit(part.max)) part = block_entropy(block, length, reference.zero());
      row = merge(row, {double(reference.value()), part.sum, part.weighted});
      visit(block, begin, count, double(part.max));
    });
  });
  return row;
}

/// A constant as an argument.
template <bool kValue>
struct Flag {
  static constexpr bool value = kValue;
};

/// Sums for KL(teacher || student) over a block, with differences of logits in `weighted`.
template <class Real>
struct BlockDivergence {
  double student_sum, teacher_sum, weighted;
  Real student_max, teacher_max;
};

/// Where the teacher has no probability the term is 0, whatever the student says. Only with kImpossible is that so for
/// 0 * inf as well: a block in which it occurs shows as a NaN in `weighted`. NaN logits reach all sums.
template <bool kKeep, bool kImpossible, class Real, class Element>
inline BlockDivergence<Real> block_divergence(
    const Element* s, const Element* t, int64_t length, Real student_reference, Real teacher_reference, Real scale,
    Real* keep_student, Real* keep_teacher) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  const Vector<Real> zero{};
  Vector<Real> student_sum{}, teacher_sum{}, weighted{};
  Vector<Real> student_max = splat(negative_infinity<Real>()), teacher_max = student_max;
  for_each_vectors<Real, kSide / 2>(length, [&](int64_t i, auto pairs) TAD_INLINED {
    constexpr int kPairs = pairs.value;
    prefetch_next(s + i, length, kPairs * kLanes);
    prefetch_next(t + i, length, kPairs * kLanes);
    Vector<Real> e[2 * kPairs], difference[kPairs];  // the student's, then the teacher's
    for (int k = 0; k < kPairs; ++k) {
      e[k] = load<Real>(s + i + k * kLanes);
      e[kPairs + k] = load<Real>(t + i + k * kLanes);
    }
    student_max = maximum(student_max, tree_max<Real, kPairs>(e));
    teacher_max = maximum(teacher_max, tree_max<Real, kPairs>(e + kPairs));
    for (int k = 0; k < kPairs; ++k) {
      e[k] -= student_reference;
      e[kPairs + k] -= teacher_reference;
      difference[k] = e[kPairs + k] - e[k];
    }
    exp2_scaled<2 * kPairs>(e, scale);
    student_sum += tree_sum<Real, kPairs>(e);
    teacher_sum += tree_sum<Real, kPairs>(e + kPairs);
    for (int k = 0; k < kPairs; ++k) {
      const Vector<Real> teacher = e[kPairs + k];
      weighted += kImpossible ? (teacher > zero ? teacher * difference[k] : zero) : teacher * difference[k];
      if (kKeep) {
        store(keep_student + i + k * kLanes, e[k]);
        store(keep_teacher + i + k * kLanes, teacher);
      }
    }
  });
  return {
      double(horizontal_sum<Real>(student_sum)), double(horizontal_sum<Real>(teacher_sum)),
      double(horizontal_sum<Real>(weighted)), horizontal_max<Real>(student_max), horizontal_max<Real>(teacher_max)};
}

/// The sums for KL(teacher || student) of a slice of a pair of rows at inverse temperature b. `kept`, unless null, gets
/// the exponentials.
template <class Real>
inline DivergenceSum<double> divergence_sum(
    RowReader<Real>& student, RowReader<Real>& teacher, int64_t vocabulary, int64_t slice, double b,
    const Exponentials<Real>* kept) {
  const Real scale = Real(b * kLog2E);
  Reference<Real> student_reference(kHeadroom / b), teacher_reference(kHeadroom / b);
  DivergenceSum<double> row;
  for_each_block(vocabulary, slice, [&](int64_t begin, int64_t count) {
    visit_block(student, teacher, begin, count, [&](auto s, auto t, int64_t length) {
      const auto sums = [&](auto impossible) {
        constexpr bool kImpossible = impossible.value;
        const Real student_zero = student_reference.zero(), teacher_zero = teacher_reference.zero();
        if (!kept)
          return block_divergence<false, kImpossible, Real>(
              s, t, length, student_zero, teacher_zero, scale, nullptr, nullptr);
        return block_divergence<true, kImpossible>(
            s, t, length, student_zero, teacher_zero, scale, kept->student + begin, kept->teacher + begin);
      };
      student_reference.start(s, length);
      teacher_reference.start(t, length);
      BlockDivergence<Real> part = sums(Flag<false>());
      const bool student_changed = student_reference.admit(part.student_max);
      if (teacher_reference.admit(part.teacher_max) || student_changed) part = sums(Flag<false>());
      if (std::isnan(part.weighted)) part = sums(Flag<true>());
      if (kept) {
        kept->student_references[begin / kBlock] = student_reference.zero();
        kept->teacher_references[begin / kBlock] = teacher_reference.zero();
      }
      const RowSum<double> student_part{double(student_reference.value()), part.student_sum, 0};
      const RowSum<double> teacher_part{double(teacher_reference.value()), part.teacher_sum, part.weighted * b};
      row = merge(row, {student_part, teacher_part}, b);
    });
  });
  return row;
}

}  // namespace TAD_ISA
}  // namespace tad
