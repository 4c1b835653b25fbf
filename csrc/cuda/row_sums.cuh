// Sums over a row's columns, by all threads of a block: each thread keeps the accumulators of csrc/common/row_math.h
// over its groups of columns, then they are merged. As on the CPU, arithmetic inside a group is in the logits' Real,
// sums from group to group are float64: a handful of float64 operations per eight columns, and sums that neither lose
// digits nor overflow.
#pragma once

#include "platform.cuh"

#include "../common/row_math.h"
#include "block_reduce.cuh"
#include "row_io.cuh"

namespace tad {
namespace cuda {

/// Threads of a block that works on one row: of float64 each thread holds twice as many registers.
template <class Element>
constexpr int kRowThreads = sizeof(Element) == 8 ? 256 : 512;

/// Blocks per multiprocessor that registers must suffice for. Without this number ptxas guesses one, and spills to meet
/// it.
template <class Element>
constexpr int kRowBlocks = sizeof(Element) == 8 ? 1 : 2;

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

/// b * log2(e), which turns differences of logits into exponents of two, in two parts: rounding it to one number would
/// act as another temperature on all columns alike.
template <class Real>
struct Base2Scale {
  Real high, low;

  __device__ explicit Base2Scale(double b) : high(Real(b * kLog2E)), low(Real(b * kLog2E - double(high))) {}

  __device__ __forceinline__ Real exponent(Real x, Real reference) const {
    const Real difference = x - reference, y = difference * high;
    return y > Real(-INFINITY) ? y + difference * low : y;
  }
};

/// The largest of a group; NaN does not count.
template <class Real>
__device__ __forceinline__ Real max_of(const Group<Real>& x) {
  Real max = Real(-INFINITY);
  for (int i = 0; i < kGroup; ++i) max = fmax(max, x.value[i]);
  return max;
}

/// Adds a group of logits at inverse temperature b to a thread's sums; `weighted` only where it is wanted.
template <bool kWeighted, class Real>
__device__ __forceinline__ void accumulate(RowSum<double>& part, const Group<Real>& x, double b) {
  const double max = max_of(x);
  if (max > part.max) {
    const double shift = shift_to(max, part, b);
    part = rebase(part, max, shift, shift);
  }
  const Real reference = Real(reference_of(part.max));
  const Base2Scale<Real> scale(b);
  Real sum = 0, weighted = 0;
  for (int i = 0; i < kGroup; ++i) {
    const Real y = scale.exponent(x.value[i], reference), e = exp_base2(y);
    sum += e;
    if (kWeighted) weighted += e * (y < Real(-1000) ? Real(-1000) : y);  // no 0 * -inf
  }
  part.sum += double(sum);
  if (kWeighted) part.weighted += double(weighted) * kLn2;
}

/// Adds a group of student logits s and teacher logits t.
template <class Real>
__device__ __forceinline__ void accumulate(
    DivergenceSum<double>& part, const Group<Real>& s, const Group<Real>& t, double b) {
  const double student_max = max_of(s), teacher_max = max_of(t);
  if (student_max > part.student.max || teacher_max > part.teacher.max)
    part = rebase(
        part, student_max > part.student.max ? student_max : part.student.max,
        teacher_max > part.teacher.max ? teacher_max : part.teacher.max, b);
  const Real student_reference = Real(reference_of(part.student.max));
  const Real teacher_reference = Real(reference_of(part.teacher.max));
  const Base2Scale<Real> scale(b);
  Real student_sum = 0, teacher_sum = 0, weighted = 0;
  for (int i = 0; i < kGroup; ++i) {
    const Real student_y = scale.exponent(s.value[i], student_reference);
    const Real teacher_y = scale.exponent(t.value[i], teacher_reference);
    const Real e = exp_base2(teacher_y);
    student_sum += exp_base2(student_y);
    teacher_sum += e;
    // Where the teacher has no probability the term is 0, whatever the student says. NaN reaches the sums. An eighth of
    // each term, so that eight of the largest do not overflow.
    if (e > 0) weighted += e * ((teacher_y - student_y) * Real(1.0 / kGroup));
  }
  part.student.sum += double(student_sum);
  part.teacher.sum += double(teacher_sum);
  part.teacher.weighted += double(weighted) * (kGroup * kLn2);
}

/// The sums of a whole row, for every thread of the block; without `weighted`.
template <class Real, class Element>
__device__ RowSum<double> softmax_sum(const Element* row, int64_t columns, double b) {
  RowSum<double> part;
  for_each_group(
      0, columns, [&](int64_t column) { accumulate<false>(part, load_group<Real>(row, column, columns), b); });
  const auto merge_at_b = [b](const RowSum<double>& x, const RowSum<double>& y) { return merge(x, y, b); };
  return block_reduce<kRowThreads<Element>>(part, merge_at_b);
}

/// The sums for KL(teacher || student) of a whole pair of rows, for every thread of the block.
template <class Real, class Element>
__device__ DivergenceSum<double> divergence_sum(
    const Element* student, const AnyRow& teacher, int64_t columns, double b) {
  using Sum = DivergenceSum<double>;
  Sum part;
  for_each_group(0, columns, [&](int64_t column) {
    accumulate(part, load_group<Real>(student, column, columns), teacher.load<Real>(column, columns), b);
  });
  const auto merge_at_b = [b](const Sum& x, const Sum& y) { return merge(x, y, b); };
  return block_reduce<kRowThreads<Element>>(part, merge_at_b);
}

}  // namespace cuda
}  // namespace tad
