// The partitioned CE/KL loss of one entry, and its gradient with respect to the student's row.
#pragma once

#include "../common/entries.h"
#include "row_sums.h"

namespace tad {
namespace TAD_ISA {

/// Whether an entry reads any logits.
inline bool takes_part(const TadLossArguments& a, EntryKind kind) {
  return kind == EntryKind::kNear || (kind == EntryKind::kDistant && a.teacher.data);
}

/// The inverse temperature of an entry's sums.
template <class Real>
inline double inverse_temperature(const TadLossArguments& a, EntryKind kind) {
  return rounded_inverse<Real>(kind == EntryKind::kDistant ? 1 / a.temperature : 1);
}

/// KL's factor is the square of the temperature that was asked for; this makes it that of the inverse temperature b.
inline double temperature_correction(const TadLossArguments& a, double b) {
  const double rounding = 1 / (a.temperature * b);
  return rounding * rounding;
}

template <class Real>
void tad_sums(
    const TadLossArguments& a, int64_t entry, int64_t slice, const Exponentials<Real>* kept, SliceSums* sums) {
  const EntryKind kind = kind_of(a, entry);
  const double b = inverse_temperature<Real>(a, kind);
  DivergenceSum<double> result;
  if (takes_part(a, kind)) {
    RowReader<Real> student(a.student, row_of(a.student_rows, entry));
    if (kind == EntryKind::kNear) {
      result.student = softmax_sum<Real>(
          student, a.vocabulary, slice, b, kept ? kept->student : nullptr, kept ? kept->student_references : nullptr);
    } else {
      RowReader<Real> teacher(a.teacher, row_of(a.teacher_rows, entry));
      result = divergence_sum<Real>(student, teacher, a.vocabulary, slice, b, kept);
    }
  }
  write_plain(result, sums);
}

template <class Real>
double tad_loss(const TadLossArguments& a, int64_t entry, SliceSums* slices) {
  const EntryKind kind = kind_of(a, entry);
  if (!takes_part(a, kind)) return 0;
  const double b = inverse_temperature<Real>(a, kind);
  DivergenceSum<double> row;
  for (int64_t slice = 0; slice < slices_of(a.vocabulary); ++slice)
    row = merge(row, read_plain<DivergenceSum<double>>(slices[slice]), b);
  write_plain(row, slices);
  if (kind == EntryKind::kDistant) return row.divergence() * temperature_correction(a, b);
  const double label_logit = element_of<double>(a.student, row_of(a.student_rows, entry), a.labels[entry]);
  return row.student.log_sum() + b * (row.student.max - label_logit);
}

/// A number whose NaN has zeros in its lower half, as even_odd_bfloat16 wants them.
template <class Real>
inline Real plain_nan(double x) {
  return std::isnan(x) ? Real(NAN) : Real(x);
}

/// What turns a block's exponentials into probabilities times `scale`. Only a block in which nothing is possible may
/// stand above the row's maximum: it is relative to 0, and any finite number turns its exponentials into 0.
template <class Real>
inline Real block_factor(double reference, const RowSum<double>& row, double b, double scale) {
  const double shift = shift_to(row.max, {reference, 1, 0}, b);
  return plain_nan<Real>(scale * std::exp(shift > 0 ? 0 : shift) / row.sum);
}

template <class Real>
void tad_gradient(
    const TadLossArguments& a, int64_t entry, int64_t slice, const Exponentials<Real>& kept, const SliceSums& sums,
    double scale, const MutableRows& gradient, int64_t gradient_row, bool add) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  const EntryKind kind = kind_of(a, entry);
  const bool has_gradient = takes_part(a, kind) && gradient_scale(a, entry, kind) != 0;
  const auto row = read_plain<DivergenceSum<double>>(sums);
  const double b = inverse_temperature<Real>(a, kind);
  const double logit_scale = scale * b * (kind == EntryKind::kDistant ? temperature_correction(a, b) : 1);
  const int64_t label = kind == EntryKind::kNear ? a.labels[entry] : -1;
  // The order in which a row's exponentials are kept: that of the elements which its sums were made from.
  const bool even_odd =
      a.student.dtype == DType::kBFloat16 && (kind == EntryKind::kNear || a.teacher.dtype == DType::kBFloat16);
  RowWriter<Real> writer(gradient, gradient_row, a.vocabulary, add);
  Real student_reference = NAN, teacher_reference = NAN, student_factor = 0, teacher_factor = 0;

  for_each_block(a.vocabulary, slice, [&](int64_t begin, int64_t count) {
    if (!has_gradient) return writer.write_zeros(begin, count);
    const Real *student = kept.student + begin, *teacher = kept.teacher + begin;
    if (kept.student_references[begin / kBlock] != student_reference) {
      student_reference = kept.student_references[begin / kBlock];
      student_factor = block_factor<Real>(student_reference, row.student, b, logit_scale);
    }
    if (kind == EntryKind::kNear) {  // softmax - onehot
      const bool here = label >= begin && label < begin + count;
      const int64_t place = !here ? -1 : even_odd ? even_odd_place<Real>(label - begin) : label - begin;
      return writer.write(
          begin, count,
          [&](int64_t i) TAD_INLINED {
            Vector<Real> p = load<Real>(student + i) * student_factor;
            if (i <= place && place < i + kLanes) p[place - i] -= plain_nan<Real>(scale);
            return p;
          },
          even_odd);
    }
    if (kept.teacher_references[begin / kBlock] != teacher_reference) {
      teacher_reference = kept.teacher_references[begin / kBlock];
      teacher_factor = block_factor<Real>(teacher_reference, row.teacher, b, logit_scale);
    }
    writer.write(
        begin, count,
        [&](int64_t i) TAD_INLINED {  // (softmax_student - softmax_teacher) / temperature
          const Vector<Real> q = rounded_product(load<Real>(student + i), splat(student_factor));
          return q - rounded_product(load<Real>(teacher + i), splat(teacher_factor));
        },
        even_odd);
  });
}

}  // namespace TAD_ISA
}  // namespace tad
