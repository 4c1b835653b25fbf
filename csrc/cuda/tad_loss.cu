// The partitioned CE/KL loss and its gradient, in one visit of the logits: a cluster of blocks reads a row (KL: a
// student and a teacher row), reduces its sums, and writes its gradient from what it kept.
#include "platform.cuh"

#include "../common/entries.h"
#include "gradient_rows.cuh"
#include "resident.cuh"
#include "row_sums.cuh"

namespace tad {
namespace cuda {

/// What a block knows while it works on the entries of a row.
template <class Element, bool kResident>
struct Visit {
  using Real = typename RealOf<Element>::type;
  static constexpr int kThreads = kRowThreads<Element>;

  const TadLossArguments& a;
  Cluster& cluster;
  int columns;
  ColumnRange range;

  __device__ Row<Element, kResident> row(const Rows& rows, int64_t row, int kept_groups) const {
    RawGroup<Element>* kept = nullptr;
    if (kResident) kept = static_cast<RawGroup<Element>*>(dynamic_shared_memory()) + kept_groups;
    return {row_pointer<Element>(rows, row), columns, range, kept};
  }

  /// Whether the calling thread speaks for the cluster.
  __device__ bool speaks() const { return cluster.rank() == 0 && threadIdx.x == 0; }

  /// Cross-entropy, and unless `target` is null scale * (softmax - onehot).
  __device__ double near(int64_t entry, int64_t student_row, Element* target, Real scale, bool add) const {
    const auto student = row(a.student, student_row, 0);
    const int label = int(a.labels[entry]);
    // Read before the gradient may take its place.
    const double label_logit = speaks() ? from_storage<double>(student.data[label]) : 0;
    const Exponent<Real> exponent(1);
    RowSum<double> part;
    for_each_batch<Element, kBatch<Element>>(range, [&](int first) {
      Group<Real> x[kBatch<Element>];
      student.load(first, x);
      accumulate<false>(part, x, exponent);
    });
    const RowSum<double> sums = cluster.template reduce<kThreads>(part, OfRowSums{exponent.b});
    if (target) {
      const Real reference = Real(reference_of(sums.max)), factor = Real(scale / sums.sum);
      for_each_group(range.begin, range.end, [&](int column) {
        Group<Real> x = student.template again<Real>(column);
        for (int i = 0; i < kGroup; ++i) {
          x.value[i] = exponent.exp(x.value[i] - reference) * factor;
          if (column + i == label) x.value[i] -= scale;
        }
        store_group(x, target, column, columns, add);
      });
    }
    return cross_entropy(sums, label_logit);
  }

  /// KL(teacher || student), and unless `target` is null scale * (softmax_student - softmax_teacher) / temperature.
  template <class TeacherRow>
  __device__ double distant(
      int64_t student_row, const TeacherRow& teacher, Element* target, Real scale, bool add) const {
    const auto student = row(a.student, student_row, 0);
    const Exponent<Real> exponent(1 / a.temperature);
    DivergenceSum<double> part;
    for_each_batch<Element, kPairBatch<Element>>(range, [&](int first) {
      Group<Real> s[kPairBatch<Element>], t[kPairBatch<Element>];
      student.load(first, s);
      teacher.load(first, t);
      accumulate(part, s, t, exponent);
    });
    const DivergenceSum<double> sums = cluster.template reduce<kThreads>(part, OfDivergenceSums{exponent.b});
    if (target) {
      const Real student_reference = Real(reference_of(sums.student.max));
      const Real teacher_reference = Real(reference_of(sums.teacher.max));
      const Real ratio = Real(sums.teacher.sum / sums.student.sum);  // exactly 1 where student and teacher agree
      const Real factor = Real(double(scale) * exponent.b / sums.teacher.sum);
      for_each_group(range.begin, range.end, [&](int column) {
        Group<Real> x = student.template again<Real>(column);
        const Group<Real> t = teacher.template again<Real>(column);
        for (int i = 0; i < kGroup; ++i) {
          const Real q = exponent.exp(x.value[i] - student_reference);
          const Real p = exponent.exp(t.value[i] - teacher_reference);
          x.value[i] = (q * ratio - p) * factor;
        }
        store_group(x, target, column, columns, add);
      });
    }
    return sums.divergence();
  }
};

/// Cluster r: row r of the gradient, zero where no entry names it; entries that name it together add, in entry order.
/// Without a gradient, cluster i: entry i. Each entry's loss is written unless `losses` is null; those that no row of
/// the gradient belongs to have none.
template <class Element, bool kResident>
__global__ void __launch_bounds__(kRowThreads<Element>, kRowBlocks<Element, kResident>)
    tad_loss_kernel(TadLossArguments a, double* losses, TadGradient gradient, EntriesByRow by_row) {
  using Real = typename RealOf<Element>::type;
  Cluster cluster;
  const int columns = int(a.vocabulary);
  const Visit<Element, kResident> visit{a, cluster, columns, columns_of_block(columns, cluster.rank(), cluster.size())};
  const int kept_groups = columns_per_block(columns, cluster.size()) / kGroup;
  const bool has_gradient = gradient.rows.data != nullptr;
  const int64_t items = has_gradient ? gradient.rows.row_count : a.entries;

  for (int64_t item = blockIdx.x / cluster.size(); item < items; item += gridDim.x / cluster.size()) {
    const NamedBy named = has_gradient ? entries_of_row(by_row, a.entries, item) : NamedBy{item, item + 1};
    Element* target = has_gradient ? row_pointer<Element>(gradient.rows, item) : nullptr;
    if (named.first == named.last) fill_columns(Real(0), target, visit.range, columns, /*add=*/false);
    for (int64_t position = named.first; position < named.last; ++position) {
      const int64_t entry = has_gradient ? entry_at(by_row, position) : item;
      const bool add = position > named.first;
      const EntryKind kind = kind_of(a, entry);
      const bool valid = indices_are_valid(a, entry, kind);
      const int64_t student_row = row_of(a.student_rows, entry);
      Real scale = 0;
      if (has_gradient && valid) {
        const double outer = gradient.grad_loss ? double(*static_cast<const Real*>(gradient.grad_loss)) : 1.0;
        scale = Real(outer * gradient_scale(a, entry));
      }
      double loss = valid ? 0 : NAN;
      if (valid && kind == EntryKind::kNear) {
        loss = visit.near(entry, student_row, target, scale, add);
      } else if (valid && kind == EntryKind::kDistant && a.teacher.data) {
        const int64_t teacher_row = row_of(a.teacher_rows, entry);
        if (kResident || a.teacher.dtype == a.student.dtype)  // the former is known to the compiler
          loss = visit.distant(student_row, visit.row(a.teacher, teacher_row, kept_groups), target, scale, add);
        else
          loss = visit.distant(
              student_row, OtherRow<Element>{AnyRow(a.teacher, teacher_row), columns, visit.range}, target, scale, add);
      } else if (target) {
        fill_columns(valid ? Real(0) : Real(NAN), target, visit.range, columns, add);
      }
      if (losses && visit.speaks()) losses[entry] = loss;
    }
  }
  cluster.leave();
}

Status tad_loss(
    const TadLossArguments& a, double* losses, const TadGradient* gradient, const EntriesByRow& by_row, Stream stream) {
  return with_element(a.student.dtype, [&](auto element) {
    using Element = decltype(element);
    const bool same_dtype = !a.teacher.data || a.teacher.dtype == a.student.dtype;
    const int64_t column_bytes = element_size(a.student.dtype) + (a.teacher.data ? element_size(a.teacher.dtype) : 0);
    RowPlan plan = plan_rows(current_device(), int(a.vocabulary), column_bytes);
    plan.resident = plan.resident && same_dtype;
    const int64_t rows = gradient ? gradient->rows.row_count : a.entries;
    const LaunchShape shape = shape_of(plan, rows, kRowThreads<Element>, /*visited_twice=*/gradient != nullptr);
    const auto kernel = gradient && plan.resident ? tad_loss_kernel<Element, true> : tad_loss_kernel<Element, false>;
    return launch(kernel, shape, stream, a, losses, gradient ? *gradient : TadGradient{}, by_row);
  });
}

}  // namespace cuda
}  // namespace tad
