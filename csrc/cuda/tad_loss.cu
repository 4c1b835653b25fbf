// The partitioned CE/KL loss: each entry's loss and sums, the totals of a call, and the gradient.
//
// One block works on one row. The forward kernel reads the row (KL: student and teacher row) once; the gradient kernel
// reads it once more and needs only the four sums that forward left.
#include "platform.cuh"

#include "../common/entries.h"
#include "gradient_rows.cuh"
#include "row_sums.cuh"

namespace tad {
namespace cuda {

constexpr int kTotalsThreads = 512;

/// Block i: entry i's loss and sums. An entry whose label or row is out of range gets NaN.
template <class Element>
__global__ void __launch_bounds__(kRowThreads<Element>, kRowBlocks<Element>)
    tad_loss_kernel(TadLossArguments a, double* losses, TadRowSums<typename RealOf<Element>::type>* row_sums) {
  using Real = typename RealOf<Element>::type;
  const int64_t entry = blockIdx.x;
  const EntryKind kind = kind_of(a, entry);
  double loss = 0;
  TadRowSums<Real> sums{0, 0, 0, 0};
  if (!indices_are_valid(a, entry, kind)) {
    loss = NAN;
    sums = {Real(NAN), Real(NAN), Real(NAN), Real(NAN)};
  } else if (kind == EntryKind::kNear) {
    const Element* student = row_pointer<Element>(a.student, row_of(a.student_rows, entry));
    const RowSum<double> row = softmax_sum<Real>(student, a.vocabulary, 1.0);
    loss = cross_entropy(row, from_storage<double>(student[a.labels[entry]]));
    sums = {Real(row.max), Real(1 / row.sum), 0, 0};
  } else if (kind == EntryKind::kDistant && a.teacher.data) {
    const Element* student = row_pointer<Element>(a.student, row_of(a.student_rows, entry));
    const AnyRow teacher(a.teacher, row_of(a.teacher_rows, entry));
    const DivergenceSum<double> row = divergence_sum<Real>(student, teacher, a.vocabulary, 1 / a.temperature);
    loss = row.divergence();
    sums = {Real(row.student.max), Real(1 / row.student.sum), Real(row.teacher.max), Real(1 / row.teacher.sum)};
  }
  if (threadIdx.x == 0) {
    losses[entry] = loss;
    row_sums[entry] = sums;
  }
}

/// One block adds up all entries: each thread every 512th one, then the threads' sums in a fixed order.
template <class Real>
__global__ void __launch_bounds__(kTotalsThreads)
    tad_totals_kernel(TadLossArguments a, const double* losses, TadTotals out) {
  TadSums sums;
  for (int64_t i = threadIdx.x; i < a.entries; i += kTotalsThreads) sums.add(a, i, losses ? losses[i] : 0);
  sums = block_reduce<kTotalsThreads>(sums, [](const TadSums& x, const TadSums& y) { return merge(x, y); });
  if (threadIdx.x == 0) write_totals<Real>(a, sums, out);
}

/// Block r: row r of the gradient, zero where no entry names it; entries that name it together add, in entry order.
template <class Element>
__global__ void __launch_bounds__(kRowThreads<Element>, kRowBlocks<Element>) tad_gradient_kernel(
    TadLossArguments a, const TadRowSums<typename RealOf<Element>::type>* row_sums,
    const typename RealOf<Element>::type* grad_loss, EntriesByRow by_row, MutableRows gradient) {
  using Real = typename RealOf<Element>::type;
  const int64_t row = blockIdx.x;
  Element* target = row_pointer<Element>(gradient, row);
  const NamedBy named = entries_of_row(by_row, a.entries, row);
  if (named.first == named.last) fill_row(Real(0), target, a.vocabulary, /*add=*/false);

  const double outer = grad_loss ? double(*grad_loss) : 1.0;
  const double near_denominator = denominator(a.near_denominator, 0);
  const double distant_denominator = denominator(a.distant_denominator, 0);
  for (int64_t position = named.first; position < named.last; ++position) {
    const int64_t entry = entry_at(by_row, position);
    const bool add = position > named.first;
    const EntryKind kind = kind_of(a, entry);
    const TadRowSums<Real> sums = row_sums[entry];
    const bool valid = indices_are_valid(a, entry, kind);
    const Real scale =
        valid ? Real(outer * gradient_scale(a, entry, near_denominator, distant_denominator)) : Real(NAN);
    const Element* student = row_pointer<Element>(a.student, row);

    if (kind == EntryKind::kNear && valid) {  // softmax - onehot
      const int64_t label = a.labels[entry];
      const Real student_scale = scale * sums.student_inverse_sum;
      for_each_group(0, a.vocabulary, [&](int64_t column) {
        Group<Real> x = load_group<Real>(student, column, a.vocabulary);
        for (int i = 0; i < kGroup; ++i) {
          const Real y = (x.value[i] - sums.student_max) * Real(kLog2E);
          x.value[i] = exp_base2(y) * student_scale - (column + i == label ? scale : Real(0));
        }
        store_group(x, target, column, a.vocabulary, add);
      });
    } else if (kind == EntryKind::kDistant && valid && a.teacher.data) {  // (softmax_student - softmax_teacher) / T
      const AnyRow teacher(a.teacher, row_of(a.teacher_rows, entry));
      const Real b = Real(1 / a.temperature), log2_scale = Real(double(b) * kLog2E);
      const Real teacher_scale = scale * b * sums.teacher_inverse_sum;
      const Real ratio = sums.student_inverse_sum / sums.teacher_inverse_sum;
      for_each_group(0, a.vocabulary, [&](int64_t column) {
        Group<Real> x = load_group<Real>(student, column, a.vocabulary);
        const Group<Real> t = teacher.load<Real>(column, a.vocabulary);
        for (int i = 0; i < kGroup; ++i) {
          const Real q = exp_base2((x.value[i] - sums.student_max) * log2_scale);
          const Real p = exp_base2((t.value[i] - sums.teacher_max) * log2_scale);
          x.value[i] = (q * ratio - p) * teacher_scale;  // exactly 0 where student and teacher agree
        }
        store_group(x, target, column, a.vocabulary, add);
      });
    } else {
      fill_row(valid ? Real(0) : Real(NAN), target, a.vocabulary, add);
    }
  }
}

Status tad_loss(const TadLossArguments& a, double* losses, void* row_sums, Stream stream) {
  return with_element(a.student.dtype, [&](auto element) {
    using Element = decltype(element);
    using Real = typename RealOf<Element>::type;
    return launch(
        tad_loss_kernel<Element>, dim3(unsigned(a.entries)), kRowThreads<Element>, stream, a, losses,
        static_cast<TadRowSums<Real>*>(row_sums));
  });
}

Status tad_totals(const TadLossArguments& a, const double* losses, const TadTotals& out, Stream stream) {
  const auto kernel = a.student.dtype == DType::kFloat64 ? tad_totals_kernel<double> : tad_totals_kernel<float>;
  return launch(kernel, dim3(1), kTotalsThreads, stream, a, losses, out);
}

Status tad_gradient(
    const TadLossArguments& a, const void* row_sums, const void* grad_loss, const EntriesByRow& by_row,
    const MutableRows& gradient, Stream stream) {
  return with_element(a.student.dtype, [&](auto element) {
    using Element = decltype(element);
    using Real = typename RealOf<Element>::type;
    return launch(
        tad_gradient_kernel<Element>, dim3(unsigned(gradient.row_count)), kRowThreads<Element>, stream, a,
        static_cast<const TadRowSums<Real>*>(row_sums), static_cast<const Real*>(grad_loss), by_row, gradient);
  });
}

}  // namespace cuda
}  // namespace tad
