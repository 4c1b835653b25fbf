// Sums over a thread's columns of a row: the accumulators of csrc/common/row_math.h. As on the CPU, arithmetic inside a
// few groups is in the logits' Real, sums from there on are float64: a handful of float64 operations per 32 columns,
// and sums that neither lose digits nor overflow.
#pragma once

#include "platform.cuh"

#include "../common/row_math.h"
#include "row_io.cuh"

namespace tad {
namespace cuda {

/// exp(x) for a base-2 exponent: y = x * log2(e). As on the CPU, 0 below the normal numbers of float32, on which exp2f
/// would spend three more instructions.
__device__ __forceinline__ float exp_base2(float y) {
#if defined(__CUDA_ARCH__)
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(y));
  return power;
#else
  return exp2f(y);
#endif
}
__device__ __forceinline__ double exp_base2(double y) {
  return exp2(y);
}

/// How differences of logits at inverse temperature b become exponents of two.
template <class Real>
struct Exponent {
  double b, headroom;
  Real scale;

  /// Exponents stay relative to one reference until a logit stands so far above it that exp would exceed e^20: so that
  /// hardly any group makes its thread rescale what it has.
  __device__ explicit Exponent(double b) : b(b), headroom(20 / b), scale(Real(b * kLog2E)) {}

  __device__ __forceinline__ Real exp(Real difference) const { return exp_base2(difference * scale); }
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

/// Adds some groups of logits to a thread's sums, without `weighted`.
template <int kGroups, class Real>
__device__ __forceinline__ void accumulate(
    RowSum<double>& part, const Group<Real> (&x)[kGroups], const Exponent<Real>& exponent) {
  const Real max = max_of(x);
  if (!(double(max) <= part.max + exponent.headroom)) {
    const double shift = shift_to(double(max), part, exponent.b);
    part = rebase(part, double(max), shift, shift);
    part.weighted = 0;
  }
  const Real reference = Real(reference_of(part.max));
  Real sum = 0;
#pragma unroll
  for (int g = 0; g < kGroups; ++g)
    for (int i = 0; i < kGroup; ++i) sum += exponent.exp(x[g].value[i] - reference);
  part.sum += double(sum);
}

/// The sums of some groups of logits at temperature 1; `others` may have lost its digits.
template <int kGroups, class Real>
__device__ __forceinline__ PeakedSum<double> peaked_sum(const Group<Real> (&x)[kGroups]) {
  const Exponent<Real> exponent(1);
  const Real max = max_of(x), reference = reference_of(max);
  Real sum = 0, weighted = 0;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    for (int i = 0; i < kGroup; ++i) {
      const Real difference = x[g].value[i] - reference, e = exponent.exp(difference);
      sum += e;
      weighted += e * fmax(difference, Real(-1000));  // no 0 * -inf
    }
  }
  return {double(max), double(sum - 1), double(weighted)};
}

/// Whether the largest logit stands so far apart that the others' sum has lost digits beside its 1: they must be added
/// by themselves.
__device__ __forceinline__ bool stands_apart(const PeakedSum<double>& part) {
  return part.others < 0.25;
}

/// What a group adds to the others of the largest logit, `max`.
template <class Real>
__device__ __forceinline__ double others_of(const Group<Real>& x, Real max) {
  const Exponent<Real> exponent(1);
  Real sum = 0;
  for (int i = 0; i < kGroup; ++i)
    if (x.value[i] < max) sum += exponent.exp(x.value[i] - max);
  return double(sum);
}

/// Adds some groups of student logits s and teacher logits t.
template <int kGroups, class Real>
__device__ __forceinline__ void accumulate(
    DivergenceSum<double>& part, const Group<Real> (&s)[kGroups], const Group<Real> (&t)[kGroups],
    const Exponent<Real>& exponent) {
  const Real student_max = max_of(s), teacher_max = max_of(t);
  const bool student_moves = !(double(student_max) <= part.student.max + exponent.headroom);
  const bool teacher_moves = !(double(teacher_max) <= part.teacher.max + exponent.headroom);
  if (student_moves || teacher_moves)
    part = rebase(
        part, student_moves ? double(student_max) : part.student.max,
        teacher_moves ? double(teacher_max) : part.teacher.max, exponent.b);
  const Real student_reference = Real(reference_of(part.student.max));
  const Real teacher_reference = Real(reference_of(part.teacher.max));
  Real student_sum = 0, teacher_sum = 0, weighted = 0;
  for (int g = 0; g < kGroups; ++g) {
    for (int i = 0; i < kGroup; ++i) {
      const Real student = s[g].value[i] - student_reference, teacher = t[g].value[i] - teacher_reference;
      const Real e = exponent.exp(teacher);
      student_sum += exponent.exp(student);
      teacher_sum += e;
      // Where the teacher has no probability the term is 0, whatever the student says. NaN reaches the sums.
      if (e > 0) weighted += e * (teacher - student);
    }
  }
  part.student.sum += double(student_sum);
  part.teacher.sum += double(teacher_sum);
  part.teacher.weighted += double(weighted) * exponent.b;
}

}  // namespace cuda
}  // namespace tad
