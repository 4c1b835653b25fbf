// The partitioned CE/KL loss of one entry, and its gradient with respect to the student's row.
#pragma once

#include "../common/entries.h"
#include "row_sums.h"

namespace tad {
namespace TAD_ISA {

/// Writes the entry's loss (not yet weighted; KL without temperature^2) and the sums that its gradient needs.
template <class Real>
void tad_loss_entry(const TadLossArguments& a, int64_t entry, double* loss, TadRowSums<Real>* sums) {
  *loss = 0;
  *sums = {0, 0, 0, 0};
  const EntryKind kind = kind_of(a, entry);
  if (kind == EntryKind::kSilent || (kind == EntryKind::kDistant && !a.teacher.data)) return;
  RowReader<Real> student(a.student, row_of(a.student_rows, entry));
  if (kind == EntryKind::kNear) {
    const RowSum<double> row = softmax_sum(student, a.vocabulary, Real(1));
    *loss = cross_entropy(row, double(student.element(a.labels[entry])));
    *sums = {Real(row.max), Real(1 / row.sum), 0, 0};
  } else {
    RowReader<Real> teacher(a.teacher, row_of(a.teacher_rows, entry));
    const DivergenceSum<double> row = divergence_sum(student, teacher, a.vocabulary, Real(1 / a.temperature));
    *loss = row.divergence();
    *sums = {Real(row.student.max), Real(1 / row.student.sum), Real(row.teacher.max), Real(1 / row.teacher.sum)};
  }
}

/// Writes (or adds) scale * d loss / d student row, the loss as in tad_loss_entry: softmax - onehot for a near entry,
/// (softmax_student - softmax_teacher) / temperature for a distant one. The output may be the student's row itself.
template <class Real>
void tad_gradient_entry(
    const TadLossArguments& a, int64_t entry, const TadRowSums<Real>& sums, Real scale, const MutableRows& gradient,
    int64_t gradient_row, bool add) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  const EntryKind kind = kind_of(a, entry);
  const bool silent = kind == EntryKind::kSilent || (kind == EntryKind::kDistant && !a.teacher.data);
  RowWriter<Real> writer(gradient, gradient_row, add);
  RowReader<Real> student(a.student, row_of(a.student_rows, entry));
  RowReader<Real> teacher(a.teacher, kind == EntryKind::kDistant && !silent ? row_of(a.teacher_rows, entry) : 0);
  const Real b = kind == EntryKind::kDistant ? Real(1 / a.temperature) : Real(1);
  const Real log2_scale = Real(double(b) * kLog2E);
  const Real student_scale = scale * sums.student_inverse_sum;
  const Real teacher_scale = scale * b * sums.teacher_inverse_sum;
  const Real ratio = sums.student_inverse_sum / sums.teacher_inverse_sum;
  const int64_t label = kind == EntryKind::kNear ? a.labels[entry] : -1;

  for_each_block(a.vocabulary, [&](int64_t begin, int64_t count) {
    const int64_t length = padded<Real>(count);
    Real* out = writer.block();
    if (silent) {
      for (int64_t i = 0; i < length; i += kLanes) store(out + i, Vector<Real>{});
    } else if (kind == EntryKind::kNear) {
      const Real* s = student.block(begin, count);
      for (int64_t i = 0; i < length; i += kLanes)
        store(out + i, exp2(exponent(s + i, sums.student_max, log2_scale)) * student_scale);
      if (label >= begin && label < begin + count) out[label - begin] -= scale;
    } else {
      const Real* s = student.block(begin, count);
      const Real* t = teacher.block(begin, count);
      for (int64_t i = 0; i < length; i += kLanes) {
        const Vector<Real> q = exp2(exponent(s + i, sums.student_max, log2_scale));
        const Vector<Real> p = exp2(exponent(t + i, sums.teacher_max, log2_scale));
        store(out + i, (q * ratio - p) * teacher_scale);  // exactly 0 where student and teacher agree
      }
    }
    writer.finish(begin, count);
  });
}

}  // namespace TAD_ISA
}  // namespace tad
