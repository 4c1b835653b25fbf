// Sums over a slice of a row: vector arithmetic inside a block, float64 accumulators from block to block.
//
// Exponents are relative to a reference near the maximum of what was seen, which stays the same until a block stands
// far above it: so blocks are added without rescaling, and no exponential overflows.
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

/// The number that exponents are relative to.
template <class Real>
class Reference {
 public:
  explicit Reference(double inverse_temperature) : headroom_(Real(20 / inverse_temperature)) {}

  /// Takes a block's maximum into account: exponents stay below 20 (and a NaN stays a NaN).
  void admit(Real max) {
    if (!(max <= value_ + headroom_)) value_ = max;
  }
  Real value() const { return value_; }

 private:
  Real value_ = negative_infinity<Real>();
  Real headroom_;
};

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

/// Sum of exp over a block. `keep`, unless null, gets the exponentials.
template <bool kKeep, class Real, class Element>
inline double block_sum(const Element* block, int64_t length, Real reference, Real scale, Real* keep) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  Vector<Real> sum{};
  for_each_vectors<Real, kSide>(length, [&](int64_t i, auto vectors) TAD_INLINED {
    constexpr int kCount = vectors.value;
    prefetch_next(block + i, length, kCount * kLanes);
    Vector<Real> e[kCount];
    for (int k = 0; k < kCount; ++k) e[k] = load<Real>(block + i + k * kLanes) - reference;
    exp2_scaled<kCount>(e, scale);
    sum += tree_sum<Real, kCount>(e);
    for (int k = 0; k < kCount; ++k)
      if (kKeep) store(keep + i + k * kLanes, e[k]);
  });
  return double(horizontal_sum<Real>(sum));
}

/// The sum of a slice at inverse temperature b; without `weighted`. `keep` and `references` (of the whole row) get the
/// exponentials, unless null.
template <class Real>
inline RowSum<double> softmax_sum(
    RowReader<Real>& reader, int64_t vocabulary, int64_t slice, double b, Real* keep, Real* references) {
  const Real scale = Real(b * kLog2E);
  Reference<Real> reference(b);
  RowSum<double> row;
  for_each_block(vocabulary, slice, [&](int64_t begin, int64_t count) {
    visit_block(reader, begin, count, [&](auto block, int64_t length) {
      reference.admit(block_max<Real>(block, length));
      const Real relative_to = reference_of(reference.value());
      const double sum = keep ? block_sum<true>(block, length, relative_to, scale, keep + begin)
                              : block_sum<false>(block, length, relative_to, scale, keep);
      if (references) references[begin / kBlock] = relative_to;
      row = merge(row, {double(reference.value()), sum, 0}, b);
    });
  });
  return row;
}

/// Sums and weighted sums of a slice at temperature 1. `visit(block, begin, length, max)` sees every block as well.
template <class Real, class Visit>
inline RowSum<double> entropy_sum(RowReader<Real>& reader, int64_t vocabulary, int64_t slice, const Visit& visit) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  const Vector<Real> lowest = splat(kLowestPower<Real> / Real(kLog2E));  // keeps 0 * -inf out of the sum
  Reference<Real> reference(1);
  RowSum<double> row;
  for_each_block(vocabulary, slice, [&](int64_t begin, int64_t count) {
    visit_block(reader, begin, count, [&](auto block, int64_t length) {
      const Real max = block_max<Real>(block, length);
      reference.admit(max);
      const Real relative_to = reference_of(reference.value());
      Vector<Real> sum{}, weighted{};
      for_each_vectors<Real, kSide>(length, [&](int64_t i, auto vectors) TAD_INLINED {
        constexpr int kCount = vectors.value;
        prefetch_next(block + i, length, kCount * kLanes);
        Vector<Real> e[kCount], a[kCount];
        for (int k = 0; k < kCount; ++k)
          e[k] = a[k] = maximum(lowest, load<Real>(block + i + k * kLanes) - relative_to);
        exp2_scaled<kCount, true>(e, Real(kLog2E));
        sum += tree_sum<Real, kCount>(e);
        for (int k = 0; k < kCount; ++k) weighted += e[k] * a[k];
      });
      const double total = double(horizontal_sum<Real>(sum)), moment = double(horizontal_sum<Real>(weighted));
      row = merge(row, {double(reference.value()), total, moment});
      visit(block, begin, count, max);
    });
  });
  return row;
}

/// Sums for KL(teacher || student) over a block, with differences of logits in `weighted`.
struct BlockDivergence {
  double student_sum, teacher_sum, weighted;
};

template <bool kKeep, class Real, class Element>
inline BlockDivergence block_divergence(
    const Element* s, const Element* t, int64_t length, Real student_reference, Real teacher_reference, Real scale,
    Real* keep_student, Real* keep_teacher) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  const Vector<Real> zero{};
  Vector<Real> student_sum{}, teacher_sum{}, weighted{};
  for_each_vectors<Real, kSide / 2>(length, [&](int64_t i, auto pairs) TAD_INLINED {
    constexpr int kPairs = pairs.value;
    prefetch_next(s + i, length, kPairs * kLanes);
    prefetch_next(t + i, length, kPairs * kLanes);
    Vector<Real> e[2 * kPairs], difference[kPairs];  // the student's, then the teacher's
    for (int k = 0; k < kPairs; ++k) {
      e[k] = load<Real>(s + i + k * kLanes) - student_reference;
      e[kPairs + k] = load<Real>(t + i + k * kLanes) - teacher_reference;
      difference[k] = e[kPairs + k] - e[k];
    }
    exp2_scaled<2 * kPairs>(e, scale);
    student_sum += tree_sum<Real, kPairs>(e);
    teacher_sum += tree_sum<Real, kPairs>(e + kPairs);
    for (int k = 0; k < kPairs; ++k) {
      const Vector<Real> teacher = e[kPairs + k];
      // Where the teacher has no probability the term is 0, whatever the student says. NaN reaches the sums.
      weighted += teacher > zero ? teacher * difference[k] : zero;
      if (kKeep) {
        store(keep_student + i + k * kLanes, e[k]);
        store(keep_teacher + i + k * kLanes, teacher);
      }
    }
  });
  return {
      double(horizontal_sum<Real>(student_sum)), double(horizontal_sum<Real>(teacher_sum)),
      double(horizontal_sum<Real>(weighted))};
}

/// The sums for KL(teacher || student) of a slice of a pair of rows at inverse temperature b. `kept`, unless null, gets
/// the exponentials.
template <class Real>
inline DivergenceSum<double> divergence_sum(
    RowReader<Real>& student, RowReader<Real>& teacher, int64_t vocabulary, int64_t slice, double b,
    const Exponentials<Real>* kept) {
  const Real scale = Real(b * kLog2E);
  Reference<Real> student_reference(b), teacher_reference(b);
  DivergenceSum<double> row;
  for_each_block(vocabulary, slice, [&](int64_t begin, int64_t count) {
    visit_block(student, teacher, begin, count, [&](auto s, auto t, int64_t length) {
      student_reference.admit(block_max<Real>(s, length));
      teacher_reference.admit(block_max<Real>(t, length));
      const Real student_zero = reference_of(student_reference.value());
      const Real teacher_zero = reference_of(teacher_reference.value());
      BlockDivergence part;
      if (kept) {
        part = block_divergence<true>(
            s, t, length, student_zero, teacher_zero, scale, kept->student + begin, kept->teacher + begin);
        kept->student_references[begin / kBlock] = student_zero;
        kept->teacher_references[begin / kBlock] = teacher_zero;
      } else {
        part = block_divergence<false, Real>(s, t, length, student_zero, teacher_zero, scale, nullptr, nullptr);
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
