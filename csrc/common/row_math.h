// The mathematics of one logits row, written once: accumulators over parts of a row, their merge, and what follows from
// a whole row's sums. Sums are kept relative to a running maximum, so no large numbers are ever subtracted.
#pragma once

#include <cmath>
#include <cstdint>

#include "platform.h"

namespace tad {
namespace TAD_ISA {

constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

template <class Real>
TAD_HOST_DEVICE Real negative_infinity() {
  return Real(-INFINITY);
}

/// Exponents below this count as probability 0: exp would leave the normal numbers of float32.
constexpr float kLowestExponent = -87.33f;

/// The finite number that a part's exponents are relative to: its maximum, or 0 where nothing is possible.
template <class Real>
TAD_HOST_DEVICE Real reference_of(Real max) {
  return max == negative_infinity<Real>() ? Real(0) : max;
}

/// Sums over a part of a row of logits x at inverse temperature b, with a = b * (x - max).
template <class Real>
struct RowSum {
  Real max = negative_infinity<Real>();
  Real sum = 0;       // sum of exp(a)
  Real weighted = 0;  // sum of exp(a) * a, or what else an accumulator weighs with

  TAD_HOST_DEVICE Real log_sum() const { return std::log(sum); }
};

/// How far the exponents of a part move when they become relative to another maximum.
template <class Real>
TAD_HOST_DEVICE Real shift_to(Real max, const RowSum<Real>& part, Real inverse_temperature) {
  return part.max == max ? Real(0) : inverse_temperature * (reference_of(part.max) - reference_of(max));
}

/// Moves a part's sums to another maximum; `weighted_shift` is how far the factor in `weighted` moves.
template <class Real>
TAD_HOST_DEVICE RowSum<Real> rebase(const RowSum<Real>& part, Real max, Real shift, Real weighted_shift) {
  if (part.sum == 0) return {max, 0, 0};
  if (shift < Real(kLowestExponent)) return {max, part.sum * 0, part.sum * 0};  // nothing is left of it; a NaN stays
  const Real scale = shift == 0 ? Real(1) : std::exp(shift);
  return {max, part.sum * scale, (part.weighted + part.sum * weighted_shift) * scale};
}

template <class Real>
TAD_HOST_DEVICE RowSum<Real> merge(const RowSum<Real>& a, const RowSum<Real>& b, Real inverse_temperature = 1) {
  const Real max = a.max > b.max ? a.max : b.max;
  const Real left_shift = shift_to(max, a, inverse_temperature), right_shift = shift_to(max, b, inverse_temperature);
  RowSum<Real> left = rebase(a, max, left_shift, left_shift);
  const RowSum<Real> right = rebase(b, max, right_shift, right_shift);
  left.sum += right.sum;
  left.weighted += right.weighted;
  return left;
}

/// Sums over a part of a row at temperature 1, with a = x - max, of all elements but the largest (one of them, where
/// several are): so nothing of what stands beside a peak is lost in its 1, however sure the row is.
template <class Real>
struct PeakedSum {
  Real max = negative_infinity<Real>();
  Real others = 0;    // sum of exp(a), and so (1 - p) / p of the largest element's probability p; NaN where a logit is
  Real weighted = 0;  // sum of exp(a) * a

  /// Whether there is an element at all.
  TAD_HOST_DEVICE bool any() const { return max > negative_infinity<Real>(); }
  /// The same sums with the largest element's among them.
  TAD_HOST_DEVICE RowSum<Real> whole() const { return {max, any() ? others + 1 : others, weighted}; }
  TAD_HOST_DEVICE Real log_sum() const { return std::log1p(others); }
  /// Given log_sum(), which costs as much as all the rest.
  TAD_HOST_DEVICE Real entropy(Real log_sum) const { return log_sum - weighted / (1 + others); }
  /// (1 - p) / p of the probability p of an element that is not above the largest.
  TAD_HOST_DEVICE Real odds_against(Real x) const {
    return x == max ? others : (1 + others) * std::exp(max - x) - 1;  // at least 1 in the second case
  }
};

template <class Real>
TAD_HOST_DEVICE PeakedSum<Real> merge(const PeakedSum<Real>& a, const PeakedSum<Real>& b) {
  const bool left = a.max >= b.max;  // values, not references: on a GPU they stay in registers
  const Real max = left ? a.max : b.max, others = left ? a.others : b.others, weighted = left ? a.weighted : b.weighted;
  RowSum<Real> low = b.whole();
  if (!left) low = a.whole();
  const Real shift = shift_to(max, low, Real(1));
  low = rebase(low, max, shift, shift);
  return {max, others + low.sum, weighted + low.weighted};
}

/// Sums for KL(teacher || student) over a part of a student row s and a teacher row t.
template <class Real>
struct DivergenceSum {
  RowSum<Real> student;  // `weighted` is not used
  RowSum<Real> teacher;  // `weighted` is sum of exp(a_t) * (a_t - a_s)

  TAD_HOST_DEVICE Real divergence() const {
    return teacher.weighted / teacher.sum - teacher.log_sum() + student.log_sum();
  }
};

/// Moves a pair's sums to other maxima. Where both rows move alike `weighted` moves in proportion to the sum only, so
/// it stays exactly 0 where student and teacher agree.
template <class Real>
TAD_HOST_DEVICE DivergenceSum<Real> rebase(
    const DivergenceSum<Real>& part, Real student_max, Real teacher_max, Real inverse_temperature) {
  const Real student_shift = shift_to(student_max, part.student, inverse_temperature);
  const Real teacher_shift = shift_to(teacher_max, part.teacher, inverse_temperature);
  return {
      rebase(part.student, student_max, student_shift, student_shift),
      rebase(part.teacher, teacher_max, teacher_shift, teacher_shift - student_shift)};
}

template <class Real>
TAD_HOST_DEVICE DivergenceSum<Real> merge(
    const DivergenceSum<Real>& a, const DivergenceSum<Real>& b, Real inverse_temperature) {
  const Real student_max = a.student.max > b.student.max ? a.student.max : b.student.max;
  const Real teacher_max = a.teacher.max > b.teacher.max ? a.teacher.max : b.teacher.max;
  DivergenceSum<Real> left = rebase(a, student_max, teacher_max, inverse_temperature);
  const DivergenceSum<Real> right = rebase(b, student_max, teacher_max, inverse_temperature);
  left.student.sum += right.student.sum;
  left.teacher.sum += right.teacher.sum;
  left.teacher.weighted += right.teacher.weighted;
  return left;
}

/// The two best elements of a part of a row. Ties go to the lowest index; -inf and NaN never enter.
template <class Real>
struct Top2 {
  Real value = negative_infinity<Real>();
  Real second_value = negative_infinity<Real>();
  int64_t index = -1;
  int64_t second_index = -1;

  /// Elements must come in ascending order of index.
  TAD_HOST_DEVICE void push(Real x, int64_t i) {
    if (x > value) {
      second_value = value;
      second_index = index;
      value = x;
      index = i;
    } else if (x > second_value) {
      second_value = x;
      second_index = i;
    }
  }
};

template <class Real>
TAD_HOST_DEVICE bool precedes(Real x, int64_t i, Real y, int64_t j) {
  return (j < 0) | ((i >= 0) & ((x > y) | ((x == y) & (i < j))));  // no branches: lanes of a warp go different ways
}

template <class Real>
TAD_HOST_DEVICE Top2<Real> merge(const Top2<Real>& a, const Top2<Real>& b) {
  Top2<Real> first = a, other = b;  // copies, not references: on a GPU they stay in registers
  if (!precedes(a.value, a.index, b.value, b.index)) {
    first = b;
    other = a;
  }
  if (!precedes(first.second_value, first.second_index, other.value, other.index)) {
    first.second_value = other.value;
    first.second_index = other.index;
  }
  return first;
}

/// -log softmax(x)[label] from the row's sums.
template <class Real>
TAD_HOST_DEVICE Real cross_entropy(const RowSum<Real>& row, Real label_logit) {
  return row.log_sum() + (row.max - label_logit);
}

}  // namespace TAD_ISA
}  // namespace tad
