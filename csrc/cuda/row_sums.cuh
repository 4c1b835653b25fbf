// Sums over a thread's columns of a row, and how those of several threads become the accumulators of
// csrc/common/row_math.h. As on the CPU, arithmetic inside a few groups is in the logits' Real, sums from there on are
// float64: a handful of float64 operations per 32 columns, and sums that neither lose digits nor overflow.
//
// While they are added up, sums are of 2^(scale * x - power), where scale = log2(e) / temperature and the power is a
// whole number, scale * max rounded up. So an exponent is one multiply-add, and a sum moves from one maximum to a
// larger one by a power of two, exactly. (But a student's beside its teacher, by any factor.) A warp's threads move
// together: their sums need only be added up.
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

/// 2^y of y <= 64, and 0 from the least of double's exponents on; exact where y is whole. (By more than 2 no sum moves
/// up, unless its logits are huge. What is not there has a sum of 0, and any y.)
template <class Real>
__device__ __forceinline__ double power_of_two(Real y) {
  const Real between = fmin(fmax(y, Real(-1023)), Real(64)), whole = ceil(between);
  const uint64_t bits = uint64_t(1023 + int(whole)) << 52;
  double power;
  memcpy(&power, &bits, sizeof(power));
  return power * double(exp_base2(between - whole));
}

/// What exponents are relative to: that of x is scale * (x - origin) + offset, which of the logit that they are
/// relative to is in (-1, 0], but for rounding. The origin is 0 wherever Real has enough digits for that, and then the
/// offset is whole, but for a student's beside its teacher.
template <class Real>
struct Reference {
  Real origin = 0, offset = 0;
};

/// The same of a student's row and of a teacher's.
template <class Real>
struct References {
  Reference<Real> student, teacher;
};

/// How logits at inverse temperature b become exponents of two.
template <class Real>
struct Exponent {
  double b;
  Real scale, headroom;

  __host__ __device__ explicit constexpr Exponent(double b) : b(b), scale(Real(b * kLog2E)), headroom(Real(8 / b)) {}

  /// Exponents stay relative to one logit until another one stands so far above it that exp would exceed e^8: so that
  /// few groups make their warp move what it has, and float32 still has the last digits of such an exponent.
  __device__ __forceinline__ bool is_far_above(Real x, Real max) const { return x > max + headroom; }

  __device__ __forceinline__ Real exp(Real difference) const { return exp_base2(difference * scale); }

  // Without branches: several of these are worked out at the same time.
  __device__ __forceinline__ Reference<Real> reference_at(Real max) const {
    const Real largest = reference_of(max), power = ceil(largest * scale);
    const bool is_huge = !(fabs(power) <= Real(int64_t(1) << std::numeric_limits<Real>::digits));
    return {is_huge ? largest : Real(0), is_huge ? largest - largest : -power};  // of +inf NaN, and so is what follows
  }

  /// The student's largest logit has the exponent of the teacher's: so the difference of two exponents is that of two
  /// logits in proportion to the largest ones, and of a peak of both it is nothing.
  __device__ __forceinline__ References<Real> references_at(Real student_max, Real teacher_max) const {
    const Real of_student = reference_of(student_max), of_teacher = reference_of(teacher_max);
    const Reference<Real> student = reference_at(student_max), teacher = reference_at(teacher_max);
    if (student.origin != 0 || teacher.origin != 0) return {{of_student, of(of_teacher, teacher)}, teacher};
    return {{0, Real(fma(of_teacher - of_student, scale, teacher.offset))}, teacher};
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
    if (at.origin != 0) subtract(at.origin, x);  // huge logits
    scale_and_add(at.offset, x);
  }
  /// The same of a student's and a teacher's.
  template <int kGroups>
  __device__ __forceinline__ void of(
      Group<Real> (&s)[kGroups], Group<Real> (&t)[kGroups], const References<Real>& at) const {
    if (at.student.origin != 0 || at.teacher.origin != 0) {
      subtract(at.student.origin, s);
      subtract(at.teacher.origin, t);
    }
    scale_and_add(at.student.offset, s);
    scale_and_add(at.teacher.offset, t);
  }

 private:
  template <int kGroups>
  __device__ __forceinline__ static void subtract(Real origin, Group<Real> (&x)[kGroups]) {
#pragma unroll
    for (Group<Real>& group : x)
      for (Real& value : group.value) value -= origin;
  }
  template <int kGroups>
  __device__ __forceinline__ void scale_and_add(Real offset, Group<Real> (&x)[kGroups]) const {
#pragma unroll
    for (Group<Real>& group : x)
      for (Real& value : group.value) value = fma(value, scale, offset);
  }
};

/// The sum over a part of a row, relative to reference_at(max).
template <class Real>
struct PowerSum {
  Real max = Real(-INFINITY);
  double sum = 0;

  /// Relative to exp of the largest logit, as that was added.
  __device__ __forceinline__ RowSum<double> row_sum(const Exponent<Real>& exponent, const Reference<Real>& at) const {
    return {double(max), sum / double(exp_base2(exponent.of(reference_of(max), at))), 0};
  }
};

/// The sums over a part of a student's and a teacher's row, relative to references_at(student.max, teacher.max).
template <class Real>
struct PowerSums {
  PowerSum<Real> student, teacher;
  double weighted = 0;  // sum of the teacher's terms times (its exponent - the student's)

  /// Relative to exp of the largest logits, as those were added.
  __device__ __forceinline__ DivergenceSum<double> divergence_sum(
      const Exponent<Real>& exponent, const References<Real>& at) const {
    DivergenceSum<double> sums{student.row_sum(exponent, at.student), teacher.row_sum(exponent, at.teacher)};
    const Real student_largest = exponent.of(reference_of(student.max), at.student);
    const Real teacher_largest = exponent.of(reference_of(teacher.max), at.teacher);
    const double apart = double(teacher_largest) - double(student_largest);  // what rounding has left between them
    sums.teacher.weighted = (weighted / teacher.sum - apart) * sums.teacher.sum * kLn2;
    return sums;
  }
};

/// Makes a sum relative to another reference; by so much do exponents grow. What it is multiplied by is returned.
template <class Real>
__device__ __forceinline__ double move(PowerSum<Real>& part, Real shift) {
  const double factor = power_of_two(shift);
  part.sum *= factor;
  return factor;
}

/// The same of a pair's. Where both rows move alike `weighted` moves by its factor only, so it stays exactly 0 where
/// student and teacher agree.
template <class Real>
__device__ __forceinline__ void move(
    PowerSums<Real>& part, const References<Real>& from, const References<Real>& to, const Exponent<Real>& exponent) {
  const Real student_shift = exponent.shift(from.student, to.student);
  const Real teacher_shift = exponent.shift(from.teacher, to.teacher);
  if (part.teacher.sum > 0) part.weighted += part.teacher.sum * (double(teacher_shift) - double(student_shift));
  move(part.student, student_shift);
  const double factor = move(part.teacher, teacher_shift);
  part.weighted = teacher_shift > Real(-1023) ? part.weighted * factor : 0;
}

/// What a thread adds up. All threads of its warp have the same largest logit, and the same reference.
template <class Real>
struct ThreadSum {
  PowerSum<Real> part;
  Reference<Real> at;
};
template <class Real>
struct ThreadSums {
  PowerSums<Real> part;
  References<Real> at;
};

/// Makes a warp's sums relative to what the next logits ask for, of which `max` is the thread's largest. By all lanes.
template <class Real>
__device__ __forceinline__ void follow(ThreadSum<Real>& of_thread, Real max, const Exponent<Real>& exponent) {
  PowerSum<Real>& part = of_thread.part;
  if (!__any_sync(~0u, exponent.is_far_above(max, part.max))) return;
  const Real largest = largest_of_warp(max);
  const Reference<Real> next = exponent.reference_at(largest);
  if (part.max > Real(-INFINITY)) move(part, exponent.shift(of_thread.at, next));
  part.max = largest;
  of_thread.at = next;
}
template <class Real>
__device__ __forceinline__ void follow(
    ThreadSums<Real>& of_thread, Real student_max, Real teacher_max, const Exponent<Real>& exponent) {
  PowerSums<Real>& part = of_thread.part;
  const bool student_moves = exponent.is_far_above(student_max, part.student.max);
  const bool teacher_moves = exponent.is_far_above(teacher_max, part.teacher.max);
  if (!__any_sync(~0u, student_moves || teacher_moves)) return;
  const Real student_largest = largest_of_warp(fmax(student_max, part.student.max));
  const Real teacher_largest = largest_of_warp(fmax(teacher_max, part.teacher.max));
  const References<Real> next = exponent.references_at(student_largest, teacher_largest);
  const bool is_empty = part.student.max == Real(-INFINITY) && part.teacher.max == Real(-INFINITY);
  if (!is_empty) move(part, of_thread.at, next, exponent);
  part.student.max = student_largest;
  part.teacher.max = teacher_largest;
  of_thread.at = next;
}

/// Adds some groups of logits to a thread's sum, which has followed them.
template <int kGroups, class Real>
__device__ __forceinline__ void accumulate(
    ThreadSum<Real>& of_thread, const Group<Real> (&x)[kGroups], const Exponent<Real>& exponent) {
  const Reference<Real>& at = of_thread.at;
  Real sum = Real(-0.0);  // adding to which is no operation
  if (at.origin == 0) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) sum += exp_base2(fma(x[g].value[i], exponent.scale, at.offset));
    }
  } else {  // huge logits
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) sum += exp_base2(exponent.of(x[g].value[i], at));
    }
  }
  of_thread.part.sum += double(sum);
}

/// Adds some groups of student logits s and teacher logits t. They are turned into exponents.
template <int kGroups, class Real>
__device__ __forceinline__ void accumulate(
    ThreadSums<Real>& of_thread, Group<Real> (&s)[kGroups], Group<Real> (&t)[kGroups], const Exponent<Real>& exponent) {
  PowerSums<Real>& part = of_thread.part;
  exponent.of(s, t, of_thread.at);
  Real student_sum = Real(-0.0), teacher_sum = Real(-0.0), weighted = 0;  // adding to -0 is no operation
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    for (int i = 0; i < kGroup; ++i) {
      const Real e = exp_base2(t[g].value[i]);
      student_sum += exp_base2(s[g].value[i]);
      teacher_sum += e;
      weighted += e * (t[g].value[i] - s[g].value[i]);
    }
  }
  if (weighted != weighted) {
    // Where the teacher has no probability the term is 0, whatever the student says. NaN reaches the sums.
    weighted = 0;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      for (int i = 0; i < kGroup; ++i) {
        const Real e = exp_base2(t[g].value[i]);
        if (e > 0) weighted += e * (t[g].value[i] - s[g].value[i]);
      }
    }
  }
  part.student.sum += double(student_sum);
  part.teacher.sum += double(teacher_sum);
  part.weighted += double(weighted);
}

/// The lanes' sums as one. A warp's threads have the same largest logit; where lanes stand for warps or blocks, and the
/// others repeat them, all move to the largest of them.
template <class Real>
struct OfLanes {
  static_assert(kRowThreads / kWarp < kWarp && kMaxClusterBlocks < kWarp);  // a whole warp's lanes are its threads
  Exponent<Real> exponent;

  template <int kLanes>
  __device__ __forceinline__ PowerSum<Real> operator()(PowerSum<Real> part, Lanes<kLanes> lanes) const {
    if constexpr (kLanes < kWarp) {
      const Reference<Real> from = exponent.reference_at(part.max);
      part.max = largest_of_warp(part.max);
      move(part, exponent.shift(from, exponent.reference_at(part.max)));
    }
    part.sum = total(part.sum, lanes);
    return part;
  }

  template <int kLanes>
  __device__ __forceinline__ PowerSums<Real> operator()(PowerSums<Real> part, Lanes<kLanes> lanes) const {
    if constexpr (kLanes < kWarp) {
      const References<Real> from = exponent.references_at(part.student.max, part.teacher.max);
      part.student.max = largest_of_warp(part.student.max);
      part.teacher.max = largest_of_warp(part.teacher.max);
      move(part, from, exponent.references_at(part.student.max, part.teacher.max), exponent);
    }
    part.student.sum = total(part.student.sum, lanes);
    part.teacher.sum = total(part.teacher.sum, lanes);
    part.weighted = total(part.weighted, lanes);
    return part;
  }

 private:
  template <int kLanes>
  __device__ __forceinline__ static double total(double sum, Lanes<kLanes> lanes) {
    return by_pairs(Plus())(sum, lanes);
  }
};

}  // namespace cuda
}  // namespace tad
