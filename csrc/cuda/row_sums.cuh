// Sums over a thread's columns of a row, and how those of several threads become the accumulators of
// csrc/common/row_math.h. As on the CPU, arithmetic inside a few groups is in the logits' Real, sums from there on are
// float64: a handful of float64 operations per 32 columns, and sums that neither lose digits nor overflow.
//
// While they are added up, sums are of 2^(scale * x - power), where scale = log2(e) / temperature and the power is a
// whole number, scale * max rounded up. So an exponent is one multiply-add, and a sum moves from one maximum to a
// larger one by a power of two, exactly.
#pragma once

#include <limits>

#include "platform.cuh"

#include "../common/row_math.h"
#include "reduce.cuh"
#include "row_io.cuh"

namespace tad {
namespace cuda {

/// exp(x) for a base-2 exponent: y = x * log2(e). As on the CPU, 0 below the normal numbers of float32.
__device__ __forceinline__ float exp_base2(float y) {
  return exp2_approximate(y);
}
__device__ __forceinline__ double exp_base2(double y) {
  return exp2(y);
}

/// 2^y of y <= 0, and 0 below double's numbers; exact where y is whole. (What is not there has a sum of 0, and any y.)
template <class Real>
__device__ __forceinline__ double power_of_two(Real y) {
  const Real whole = ceil(fmin(fmax(y, Real(-1023)), Real(0)));
  const uint64_t bits = uint64_t(1023 + int(whole)) << 52;
  double power;
  memcpy(&power, &bits, sizeof(power));
  return y < whole ? power * double(exp_base2(y - whole)) : power;
}

/// What exponents are relative to: that of x is scale * (x - origin) + offset, and so in (-1, 0], but for rounding, of
/// `max`. The origin is 0, and the offset whole, wherever Real has enough digits for that.
template <class Real>
struct Reference {
  Real max = Real(-INFINITY);
  Real origin = 0, offset = 0;
  Real limit = Real(-INFINITY);  // of the logits whose exponents are
};

/// How logits at inverse temperature b become exponents of two.
template <class Real>
struct Exponent {
  double b;
  Real scale, headroom;

  /// Exponents stay relative to one reference until a logit stands so far above it that exp would exceed e^8: so that
  /// few groups make their thread move what it has, and float32 still has the last digits of such an exponent.
  __host__ __device__ explicit constexpr Exponent(double b) : b(b), scale(Real(b * kLog2E)), headroom(Real(8 / b)) {}

  __device__ __forceinline__ Real exp(Real difference) const { return exp_base2(difference * scale); }

  __device__ __forceinline__ Reference<Real> reference_at(Real max) const {
    if (max == Real(-INFINITY)) return {};
    const Real power = ceil(max * scale);
    if (fabs(power) <= Real(int64_t(1) << std::numeric_limits<Real>::digits)) return {max, 0, -power, max + headroom};
    return {max, max, max - max, max + headroom};  // of an infinite logit: NaN, and so is all that follows
  }

  /// By how much exponents grow when they become relative to another reference.
  __device__ __forceinline__ Real shift(const Reference<Real>& from, const Reference<Real>& to) const {
    return fma(from.origin - to.origin, scale, to.offset - from.offset);
  }

  __device__ __forceinline__ Real of(Real x, const Reference<Real>& at) const {
    return fma(x - at.origin, scale, at.offset);
  }

  /// The exponents of some groups of logits, in their place.
  template <int kGroups>
  __device__ __forceinline__ void of(Group<Real> (&x)[kGroups], const Reference<Real>& at) const {
    if (at.origin != 0)  // huge logits
      for (Group<Real>& group : x)
        for (Real& value : group.value) value -= at.origin;
    for (Group<Real>& group : x)
      for (Real& value : group.value) value = fma(value, scale, at.offset);
  }

  /// The exponent of a reference's own logit.
  __device__ __forceinline__ Real of_largest(const Reference<Real>& at) const { return of(reference_of(at.max), at); }
};

/// The sum over a part of a row, relative to a reference.
template <class Real>
struct PowerSum {
  Reference<Real> at;
  double sum = 0;

  /// Relative to a larger logit; by so much do exponents grow. What the sum is multiplied by is returned.
  __device__ __forceinline__ double move_to(const Reference<Real>& next, Real shift) {
    const double factor = power_of_two(shift);
    at = next;
    sum *= factor;
    return factor;
  }

  /// Relative to exp of the reference's logit, as that was added.
  __device__ __forceinline__ RowSum<double> row_sum(const Exponent<Real>& exponent) const {
    return {double(at.max), sum / double(exp_base2(exponent.of_largest(at))), 0};
  }
};

/// The sums over a part of a student's and a teacher's row.
template <class Real>
struct PowerSums {
  PowerSum<Real> student, teacher;
  Real apart = 0;       // the exponent of the teacher's reference less that of the student's
  double weighted = 0;  // sum of the teacher's terms times (its exponent - the student's - apart): of a peak of both, 0

  /// Relative to larger logits. Where both rows move alike `weighted` moves by its factor only, so it stays exactly 0
  /// where student and teacher agree.
  __device__ __forceinline__ void move_to(
      const Reference<Real>& student_at, const Reference<Real>& teacher_at, const Exponent<Real>& exponent) {
    const Real student_shift = exponent.shift(student.at, student_at);
    const Real teacher_shift = exponent.shift(teacher.at, teacher_at);
    const Real next = exponent.of_largest(teacher_at) - exponent.of_largest(student_at);
    const double shift = double(teacher_shift) - double(student_shift) - (double(next) - double(apart));
    if (shift != 0 && teacher.sum > 0) weighted += teacher.sum * shift;
    student.move_to(student_at, student_shift);
    const double factor = teacher.move_to(teacher_at, teacher_shift);
    weighted = factor > 0 ? weighted * factor : 0;
    apart = next;
  }

  /// Relative to exp of the references' logits, as those were added.
  __device__ __forceinline__ DivergenceSum<double> divergence_sum(const Exponent<Real>& exponent) const {
    DivergenceSum<double> sums{student.row_sum(exponent), teacher.row_sum(exponent)};
    sums.teacher.weighted = weighted / teacher.sum * sums.teacher.sum * kLn2;
    return sums;
  }
};

/// Adds some groups of logits, of which `max` is the largest, to a thread's sum.
template <int kGroups, class Real>
__device__ __forceinline__ void accumulate(
    PowerSum<Real>& part, const Group<Real> (&x)[kGroups], Real max, const Exponent<Real>& exponent) {
  if (!(max <= part.at.limit)) {
    const Reference<Real> next = exponent.reference_at(max);
    part.move_to(next, exponent.shift(part.at, next));
  }
  Real sum = 0;
  if (part.at.origin == 0) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) sum += exp_base2(fma(x[g].value[i], exponent.scale, part.at.offset));
    }
  } else {  // huge logits
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) sum += exp_base2(exponent.of(x[g].value[i], part.at));
    }
  }
  part.sum += double(sum);
}

/// Adds some groups of student logits s and teacher logits t. They are turned into exponents.
template <int kGroups, class Real>
__device__ __forceinline__ void accumulate(
    PowerSums<Real>& part, Group<Real> (&s)[kGroups], Real student_max, Group<Real> (&t)[kGroups], Real teacher_max,
    const Exponent<Real>& exponent) {
  const bool student_moves = !(student_max <= part.student.at.limit);
  const bool teacher_moves = !(teacher_max <= part.teacher.at.limit);
  if (student_moves || teacher_moves)
    part.move_to(
        student_moves ? exponent.reference_at(student_max) : part.student.at,
        teacher_moves ? exponent.reference_at(teacher_max) : part.teacher.at, exponent);
  exponent.of(s, part.student.at);
  exponent.of(t, part.teacher.at);
  Real student_sum = 0, teacher_sum = 0, weighted = 0;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    for (int i = 0; i < kGroup; ++i) {
      const Real e = exp_base2(t[g].value[i]);
      student_sum += exp_base2(s[g].value[i]);
      teacher_sum += e;
      weighted += e * (t[g].value[i] - s[g].value[i] - part.apart);
    }
  }
  if (weighted != weighted) {
    // Where the teacher has no probability the term is 0, whatever the student says. NaN reaches the sums.
    weighted = 0;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      for (int i = 0; i < kGroup; ++i) {
        const Real e = exp_base2(t[g].value[i]);
        if (e > 0) weighted += e * (t[g].value[i] - s[g].value[i] - part.apart);
      }
    }
  }
  part.student.sum += double(student_sum);
  part.teacher.sum += double(teacher_sum);
  part.weighted += double(weighted);
}

/// The lanes' sums as one: all move to the largest maximum, and then only add.
template <class Real>
struct OfLanes {
  Exponent<Real> exponent;

  template <int kLanes>
  __device__ __forceinline__ PowerSum<Real> operator()(PowerSum<Real> part, Lanes<kLanes> lanes) const {
    const Reference<Real> next = largest(part, lanes);
    part.move_to(next, exponent.shift(part.at, next));
    part.sum = total(part.sum, lanes);
    return part;
  }

  template <int kLanes>
  __device__ __forceinline__ PowerSums<Real> operator()(PowerSums<Real> part, Lanes<kLanes> lanes) const {
    part.move_to(largest(part.student, lanes), largest(part.teacher, lanes), exponent);
    part.student.sum = total(part.student.sum, lanes);
    part.teacher.sum = total(part.teacher.sum, lanes);
    part.weighted = total(part.weighted, lanes);
    return part;
  }

 private:
  template <int kLanes>
  __device__ __forceinline__ Reference<Real> largest(const PowerSum<Real>& part, Lanes<kLanes> lanes) const {
    return exponent.reference_at(by_pairs(Larger())(part.at.max, lanes));
  }
  template <int kLanes>
  __device__ __forceinline__ static double total(double sum, Lanes<kLanes> lanes) {
    return by_pairs(Plus())(sum, lanes);
  }
};

}  // namespace cuda
}  // namespace tad
