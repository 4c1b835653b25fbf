// Sums over a thread's columns of a row, and how those of several threads become the accumulators of
// csrc/common/row_math.h. As on the CPU, arithmetic inside a few groups is in the logits' Real, sums from there on are
// float64: a handful of float64 operations per 32 columns, and sums that neither lose digits nor overflow.
//
// While they are added up, sums are of 2^(scale * x - power), where scale = log2(e) / temperature and the power is a
// whole number, scale * max rounded up. So a sum moves from one maximum to a larger one by a power of two, exactly, and
// without an exponential.
#pragma once

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

/// 2^y of a whole y <= 0, and 0 below double's numbers. (What is not there has a sum of 0, and any power.)
__device__ __forceinline__ double power_of_two(double y) {
  const int exponent = int(fmin(fmax(y, -1023.0), 0.0));
  const uint64_t bits = uint64_t(1023 + exponent) << 52;
  double power;
  memcpy(&power, &bits, sizeof(power));
  return power;
}

/// What exponents are relative to: scale * x - power = scale * (x - reference_of(max)) + rest.
template <class Real>
struct Reference {
  Real max = Real(-INFINITY), rest = 0;  // rest in (-1, 0]
  double power = 0;
};

/// Beyond it scale * max need not be a number that float64 has; and the nearest ones are far apart long before.
constexpr double kLargestPower = 1e308;

/// How logits at inverse temperature b become exponents of two.
template <class Real>
struct Exponent {
  double b;
  Real scale, headroom;

  /// Exponents stay relative to one reference until a logit stands so far above it that exp would exceed e^8: so that
  /// few groups make their thread move what it has, and float32 still has the last digits of such an exponent.
  __device__ explicit Exponent(double b) : b(b), scale(Real(b * kLog2E)), headroom(Real(8 / b)) {}

  __device__ __forceinline__ Real exp(Real difference) const { return exp_base2(difference * scale); }
  __device__ __forceinline__ Real exp(Real difference, Real rest) const { return exp_base2(difference * scale + rest); }

  __device__ __forceinline__ Reference<Real> reference_at(Real max) const {
    if (max == Real(-INFINITY)) return {};
    const double scaled = double(max) * double(scale);
    const double power = ceil(fmin(fmax(scaled, -kLargestPower), kLargestPower));
    const double rest = fmin(fmax(fma(double(max), double(scale), -power), -1.0), 0.0);
    return {max, Real(rest + (max - max)), power};  // of an infinite logit: NaN, and so is all that follows
  }
};

/// The largest of a group; NaN does not count.
template <class Real>
__device__ __forceinline__ Real max_of(const Group<Real>& x) {
  Real max = Real(-INFINITY);
  for (int i = 0; i < kGroup; ++i) max = fmax(max, x.value[i]);
  return max;
}

template <int kGroups, class Real>
__device__ __forceinline__ Real max_of(const Group<Real> (&x)[kGroups]) {
  Real max = max_of(x[0]);
#pragma unroll
  for (int g = 1; g < kGroups; ++g) max = fmax(max, max_of(x[g]));
  return max;
}

/// The sum over a part of a row, relative to a reference.
template <class Real>
struct PowerSum {
  Reference<Real> at;
  double sum = 0;

  /// Relative to a larger logit. What it is multiplied by is returned.
  __device__ __forceinline__ double move_to(const Reference<Real>& next) {
    const double factor = power_of_two(at.power - next.power);
    at = next;
    sum *= factor;
    return factor;
  }

  /// Relative to exp of the reference's logit, as that was added.
  __device__ __forceinline__ RowSum<double> row_sum() const {
    return {double(at.max), sum / double(exp_base2(at.rest)), 0};
  }
};

/// Adds some groups of logits to a thread's sum.
template <int kGroups, class Real>
__device__ __forceinline__ void accumulate(
    PowerSum<Real>& part, const Group<Real> (&x)[kGroups], const Exponent<Real>& exponent) {
  const Real max = max_of(x);
  if (!(max <= part.at.max + exponent.headroom)) part.move_to(exponent.reference_at(max));
  const Real origin = reference_of(part.at.max), rest = part.at.rest;
  Real sum = 0;
#pragma unroll
  for (int g = 0; g < kGroups; ++g)
    for (int i = 0; i < kGroup; ++i) sum += exponent.exp(x[g].value[i] - origin, rest);
  part.sum += double(sum);
}

/// The sums over a part of a student's and a teacher's row.
template <class Real>
struct PowerSums {
  PowerSum<Real> student, teacher;
  double weighted = 0;  // sum of the teacher's terms times (its logit - its largest) - (the student's - its largest)

  /// Relative to larger logits. Where both rows move alike `weighted` moves by its factor only, so it stays exactly 0
  /// where student and teacher agree.
  __device__ __forceinline__ void move_to(const Reference<Real>& student_at, const Reference<Real>& teacher_at) {
    const auto moved = [](const Reference<Real>& from, const Reference<Real>& to) {
      return double(reference_of(from.max)) - double(reference_of(to.max));
    };
    const double shift = moved(teacher.at, teacher_at) - moved(student.at, student_at);
    if (shift != 0 && teacher.sum > 0) weighted += teacher.sum * shift;
    student.move_to(student_at);
    const double factor = teacher.move_to(teacher_at);
    weighted = factor > 0 ? weighted * factor : 0;
  }

  /// Relative to exp of the references' logits, at inverse temperature b.
  __device__ __forceinline__ DivergenceSum<double> divergence_sum(double b) const {
    DivergenceSum<double> sums{student.row_sum(), teacher.row_sum()};
    sums.teacher.weighted = weighted * b / double(exp_base2(teacher.at.rest));
    return sums;
  }
};

/// Adds some groups of student logits s and teacher logits t.
template <int kGroups, class Real>
__device__ __forceinline__ void accumulate(
    PowerSums<Real>& part, const Group<Real> (&s)[kGroups], const Group<Real> (&t)[kGroups],
    const Exponent<Real>& exponent) {
  const Real student_max = max_of(s), teacher_max = max_of(t);
  const bool student_moves = !(student_max <= part.student.at.max + exponent.headroom);
  const bool teacher_moves = !(teacher_max <= part.teacher.at.max + exponent.headroom);
  if (student_moves || teacher_moves)
    part.move_to(
        student_moves ? exponent.reference_at(student_max) : part.student.at,
        teacher_moves ? exponent.reference_at(teacher_max) : part.teacher.at);
  const Real student_origin = reference_of(part.student.at.max), student_rest = part.student.at.rest;
  const Real teacher_origin = reference_of(part.teacher.at.max), teacher_rest = part.teacher.at.rest;
  Real student_sum = 0, teacher_sum = 0, weighted = 0;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    for (int i = 0; i < kGroup; ++i) {
      const Real student = s[g].value[i] - student_origin, teacher = t[g].value[i] - teacher_origin;
      const Real e = exponent.exp(teacher, teacher_rest);
      student_sum += exponent.exp(student, student_rest);
      teacher_sum += e;
      // Where the teacher has no probability the term is 0, whatever the student says. NaN reaches the sums.
      if (e > 0) weighted += e * (teacher - student);
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
    part.move_to(largest(part, lanes));
    part.sum = total(part.sum, lanes);
    return part;
  }

  template <int kLanes>
  __device__ __forceinline__ PowerSums<Real> operator()(PowerSums<Real> part, Lanes<kLanes> lanes) const {
    part.move_to(largest(part.student, lanes), largest(part.teacher, lanes));
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
