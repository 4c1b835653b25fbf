// Sums over blocks of a row: vector arithmetic inside a block, float64 accumulators from block to block.
#pragma once

#include "../common/row_math.h"
#include "row_blocks.h"

namespace tad {
namespace TAD_ISA {

/// Adds to `row` one block whose maximum is `max`, at inverse temperature `b`.
template <class Real, bool kWithEntropy>
inline void add_block(RowSum<double>& row, const Real* block, int64_t length, Real max, Real b) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  row = rebase(row, row.max > double(max) ? row.max : double(max), double(b));
  const Real reference = Real(reference_of(row.max));
  const Vector<Real> lowest = splat(Real(kLowestExponent));
  Vector<Real> sum0{}, sum1{}, weighted0{}, weighted1{};
  const auto visit = [&](int64_t i, Vector<Real>& sum, Vector<Real>& weighted) {
    const Vector<Real> a = (load(block + i) - reference) * b;
    const Vector<Real> e = exp_nonpositive(a);
    sum += e;
    // Clamping a keeps 0 * -inf out of the sum; what is below the lowest exponent is too small to matter.
    if (kWithEntropy) weighted += e * maximum(lowest, a);
  };
  int64_t i = 0;
  for (; i + 2 * kLanes <= length; i += 2 * kLanes) {
    visit(i, sum0, weighted0);
    visit(i + kLanes, sum1, weighted1);
  }
  if (i < length) visit(i, sum0, weighted0);
  row.sum += horizontal_sum<Real>(sum0 + sum1);
  if (kWithEntropy) row.weighted += horizontal_sum<Real>(weighted0 + weighted1);
}

/// The sums of a whole row.
template <class Real>
inline RowSum<double> softmax_sum(RowReader<Real>& reader, int64_t vocabulary, Real b) {
  RowSum<double> row;
  for_each_block(vocabulary, [&](int64_t begin, int64_t count) {
    const Real* block = reader.block(begin, count);
    const int64_t length = padded<Real>(count);
    add_block<Real, false>(row, block, length, block_max(block, length), b);
  });
  return row;
}

/// The sums for KL(teacher || student) of a whole pair of rows.
template <class Real>
inline DivergenceSum<double> divergence_sum(
    RowReader<Real>& student, RowReader<Real>& teacher, int64_t vocabulary, Real b) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  DivergenceSum<double> row;
  for_each_block(vocabulary, [&](int64_t begin, int64_t count) {
    const Real* s = student.block(begin, count);
    const Real* t = teacher.block(begin, count);
    const int64_t length = padded<Real>(count);
    const double student_max = block_max(s, length), teacher_max = block_max(t, length);
    row = rebase(
        row, row.student.max > student_max ? row.student.max : student_max,
        row.teacher.max > teacher_max ? row.teacher.max : teacher_max, double(b));
    const Real student_reference = Real(reference_of(row.student.max));
    const Real teacher_reference = Real(reference_of(row.teacher.max));
    const Vector<Real> zero{};
    Vector<Real> student_sum{}, teacher_sum{}, weighted{};
    for (int64_t i = 0; i < length; i += kLanes) {
      const Vector<Real> student_a = (load(s + i) - student_reference) * b;
      const Vector<Real> teacher_a = (load(t + i) - teacher_reference) * b;
      const Vector<Real> e = exp_nonpositive(teacher_a);
      student_sum += exp_nonpositive(student_a);
      teacher_sum += e;
      // Where the teacher has no probability the term is 0, whatever the student says. NaN reaches the sums.
      weighted += e > zero ? e * (teacher_a - student_a) : zero;
    }
    row.student.sum += horizontal_sum<Real>(student_sum);
    row.teacher.sum += horizontal_sum<Real>(teacher_sum);
    row.teacher.weighted += horizontal_sum<Real>(weighted);
  });
  return row;
}

}  // namespace TAD_ISA
}  // namespace tad
