// Sums over the blocks of a row: vector arithmetic inside a block, float64 accumulators from block to block.
//
// Exponents are taken in base 2, relative to a reference near the row's maximum: y = (x - reference) * b * log2(e). The
// reference is the maximum of the first block in which anything is possible. A later element may exceed it; only where
// that makes a block's sum enormous is the block done again with its own maximum, so that most rows never look for one.
#pragma once

#include "../common/row_math.h"
#include "row_blocks.h"

namespace tad {
namespace TAD_ISA {

/// Above this a block's sum calls for a new reference. NaN does, too.
constexpr double kEnormous = 1e15;

template <class Real>
inline Vector<Real> exponent(const Real* x, Real reference, Real scale) {
  return (load(x) - reference) * scale;
}

/// Sum of exp over a block.
template <class Real>
inline double block_sum(const Real* block, int64_t length, Real reference, Real scale) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  Vector<Real> a{}, b{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= length; i += 2 * kLanes) {
    a += exp2(exponent(block + i, reference, scale));
    b += exp2(exponent(block + i + kLanes, reference, scale));
  }
  if (i < length) a += exp2(exponent(block + i, reference, scale));
  return double(horizontal_sum<Real>(a + b));
}

/// The sums of a whole row at inverse temperature b; without `weighted`.
template <class Real>
inline RowSum<double> softmax_sum(RowReader<Real>& reader, int64_t vocabulary, Real b) {
  const Real scale = Real(double(b) * kLog2E);
  RowSum<double> row;
  for_each_block(vocabulary, [&](int64_t begin, int64_t count) {
    const Real* block = reader.block(begin, count);
    const int64_t length = padded<Real>(count);
    RowSum<double> part{row.max, 0, 0};
    if (row.max > -INFINITY) part.sum = block_sum(block, length, Real(row.max), scale);
    if (row.max == -INFINITY || !(part.sum < kEnormous)) {
      const double max = block_max(block, length);
      part.max = row.max > max ? row.max : max;
      part.sum = block_sum(block, length, Real(reference_of(part.max)), scale);
    }
    row = merge(row, part, double(b));
  });
  return row;
}

/// Sums and weighted sums of a whole row at temperature 1. `visit(block, begin, count, max)` sees every block as well.
template <class Real, class Visit>
inline RowSum<double> entropy_sum(RowReader<Real>& reader, int64_t vocabulary, Visit visit) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  const Real scale = Real(kLog2E);
  const Vector<Real> lowest = splat(Real(-1000));  // keeps 0 * -inf out of the sum
  RowSum<double> row;
  for_each_block(vocabulary, [&](int64_t begin, int64_t count) {
    const Real* block = reader.block(begin, count);
    const int64_t length = padded<Real>(count);
    const Real max = block_max(block, length);
    RowSum<double> part{row.max > double(max) ? row.max : double(max), 0, 0};
    const Real reference = Real(reference_of(part.max));
    Vector<Real> sum{}, weighted{};
    for (int64_t i = 0; i < length; i += kLanes) {
      const Vector<Real> y = exponent(block + i, reference, scale);
      const Vector<Real> e = exp2(y);
      sum += e;
      weighted += e * maximum(lowest, y);
    }
    part.sum = double(horizontal_sum<Real>(sum));
    part.weighted = double(horizontal_sum<Real>(weighted)) * kLn2;
    row = merge(row, part);
    visit(block, begin, count, max);
  });
  return row;
}

/// The sums for KL(teacher || student) over a block.
template <class Real>
inline DivergenceSum<double> block_divergence(
    const Real* s, const Real* t, int64_t length, double student_max, double teacher_max, Real scale) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  const Real student_reference = Real(reference_of(student_max)), teacher_reference = Real(reference_of(teacher_max));
  const Vector<Real> zero{};
  Vector<Real> student_sum{}, teacher_sum{}, weighted{};
  for (int64_t i = 0; i < length; i += kLanes) {
    const Vector<Real> student_y = exponent(s + i, student_reference, scale);
    const Vector<Real> teacher_y = exponent(t + i, teacher_reference, scale);
    const Vector<Real> e = exp2(teacher_y);
    student_sum += exp2(student_y);
    teacher_sum += e;
    // Where the teacher has no probability the term is 0, whatever the student says. NaN reaches the sums.
    weighted += e > zero ? e * (teacher_y - student_y) : zero;
  }
  return {
      {student_max, double(horizontal_sum<Real>(student_sum)), 0},
      {teacher_max, double(horizontal_sum<Real>(teacher_sum)), double(horizontal_sum<Real>(weighted)) * kLn2}};
}

/// The sums for KL(teacher || student) of a whole pair of rows at inverse temperature b.
template <class Real>
inline DivergenceSum<double> divergence_sum(
    RowReader<Real>& student, RowReader<Real>& teacher, int64_t vocabulary, Real b) {
  const Real scale = Real(double(b) * kLog2E);
  DivergenceSum<double> row;
  for_each_block(vocabulary, [&](int64_t begin, int64_t count) {
    const Real* s = student.block(begin, count);
    const Real* t = teacher.block(begin, count);
    const int64_t length = padded<Real>(count);
    const bool first = row.student.max == -INFINITY || row.teacher.max == -INFINITY;
    DivergenceSum<double> part;
    if (!first) part = block_divergence(s, t, length, row.student.max, row.teacher.max, scale);
    if (first || !(part.student.sum < kEnormous && part.teacher.sum < kEnormous)) {
      const double student_max = block_max(s, length), teacher_max = block_max(t, length);
      part = block_divergence(
          s, t, length, row.student.max > student_max ? row.student.max : student_max,
          row.teacher.max > teacher_max ? row.teacher.max : teacher_max, scale);
    }
    row = merge(row, part, double(b));
  });
  return row;
}

}  // namespace TAD_ISA
}  // namespace tad
