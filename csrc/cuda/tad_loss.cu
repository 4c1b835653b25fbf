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
template <class Element, class Loader>
struct Visit {
  using Real = typename RealOf<Element>::type;

  const TadLossArguments& a;
  double* losses;  // null: nobody wants to know
  const TadGradient& gradient;
  Cluster& cluster;
  ArrivalsOf<Loader>& arrivals;
  ColumnRange range;

  __device__ int columns() const { return int(a.vocabulary); }

  /// The block's part of row `row`; `pair`: 0 for the student's, 1 for the teacher's place in shared memory.
  template <bool kWhole>
  __device__ Row<Element, kWhole, Loader> part_of(const Rows& rows, int64_t row, int pair) const {
    uint4* kept = nullptr;
    if (Loader::kKeeps)
      kept = static_cast<uint4*>(dynamic_shared_memory()) +
             pair * groups_per_block(columns(), cluster.size()) * RawGroup<Element>::kWords;
    return {row_pointer<Element>(rows, row) + range.begin, columns() - range.begin, range.groups, kept};
  }

  /// By one thread of the cluster.
  __device__ void tell(int64_t entry, double loss) const {
    if (losses) losses[entry] = loss;
  }
  __device__ bool is_first_of_cluster() const { return cluster.rank() == 0 && threadIdx.x == 0; }

  /// d (the call's loss) / d (the entry's loss), which depends on counts that the kernel before this one may make.
  __device__ double own_scale_of(int64_t entry) const {
    wait_for_kernel_before();
    return gradient_scale(a, entry);
  }

  /// d (the call's loss times its own gradient) / d (the entry's loss).
  struct Scale {
    Real value = 0;
    bool is_zero = true;  // of the entry's own: then so is its gradient, whatever the logits
  };
  __device__ Scale scale_of(int64_t entry) const {
    const double own = own_scale_of(entry);
    const double outer = gradient.grad_loss ? double(*static_cast<const Real*>(gradient.grad_loss)) : 1.0;
    return {Real(outer * own), own == 0};
  }

  /// Left for the first warp by a thread of the last one, while the entry's rows are on their way.
  __device__ void leave_scale(int64_t entry) const {
    if (threadIdx.x == kRowThreads - 1) *shared_array<Scale, 1>() = scale_of(entry);
  }

  /// What every thread of a cluster must know of a row's sums to write its gradient.
  struct NearSums {
    double loss;
    Reference<Real> at;
    Real scale, factor;
    bool has_gradient;
  };
  struct DistantSums {
    double loss;
    Reference<Real> student_at, teacher_at;
    Real ratio, factor;
    bool has_gradient;
  };

  /// Writes a row's gradient, unless `target` is null, kGroups groups of columns at a time: `of_group(group)` is that
  /// of one.
  template <bool kWhole, int kGroups, class Sums, class OfGroup>
  __device__ __forceinline__ void write_gradient(
      const Sums& sums, Element* target, bool add, const OfGroup& of_group) const {
    if (!target) return;
    if (!sums.has_gradient) return fill_columns(Real(0), target, range, columns(), add);
    const TargetRow<Element, kWhole> out{target + range.begin, columns() - range.begin, add};
    for_each_group<kGroups>(range, [&](int group) { out.store(of_group(group), group); });
  }

  /// Cross-entropy, and unless `target` is null scale * (softmax - onehot) into it.
  template <bool kWhole>
  __device__ void near(int64_t entry, int64_t student_row, Element* target, bool add) const {
    const auto student = part_of<kWhole>(a.student, student_row, 0);
    const int label = int(a.labels[entry]);
    // The label's own block tells the loss: it alone knows that the gradient has not taken the logit's place yet.
    const bool tells = threadIdx.x == 0 && label >= range.begin && label - range.begin < range.groups * kGroup;
    Element label_element{};  // looked at when there is time
    if (tells) label_element = row_pointer<Element>(a.student, student_row)[label];
    const Exponent<Real> exponent(1);
    PowerSum<Real> part;
    const auto visit = [&](int first, auto is_full) {
      Group<Real> x[kBatch<Element>];
      const Real largest = student.template load<is_full.value>(first, x);
      accumulate(part, x, largest, exponent);
    };
    const auto meanwhile = [&] {
      if (target) leave_scale(entry);
    };
    visit_first<kBatch<Element>>(arrivals, range, meanwhile, visit, student);
    const OfLanes<Real> of_warp{exponent};
    const NearSums sums = cluster.template reduce<kRowThreads>(part, of_warp, [&](const PowerSum<Real>& whole) {
      const Scale scale = target ? *shared_array<Scale, 1>() : Scale{};
      const double loss = tells ? cross_entropy(whole.row_sum(exponent), from_storage<double>(label_element)) : 0;
      return NearSums{
          loss < 0 ? 0 : loss,  // by rounding, where the row is sure of its label
          whole.at, scale.value, Real(scale.value / whole.sum), !scale.is_zero};
    });
    write_gradient<kWhole, 1>(sums, target, add, [&](int group) {
      Group<Real> x[] = {student.template again<Real>(group)};
      exponent.of(x, sums.at);
      Group<Real>& g = x[0];
      for (Real& value : g.value) value = exp_base2(value) * sums.factor;
      const int label_in_group = label - range.begin - group * kGroup;
      if (label_in_group >= 0 && label_in_group < kGroup)
        for (int i = 0; i < kGroup; ++i) g.value[i] -= i == label_in_group ? sums.scale : Real(0);
      return g;
    });
    if (tells) tell(entry, sums.loss);
  }

  /// KL(teacher || student), and unless `target` is null scale * (softmax_student - softmax_teacher) / temperature.
  template <bool kWhole, class TeacherRow>
  __device__ void distant(
      int64_t entry, int64_t student_row, const TeacherRow& teacher, Element* target, bool add) const {
    const auto student = part_of<kWhole>(a.student, student_row, 0);
    const Exponent<Real> exponent(1 / a.temperature);
    PowerSums<Real> part;
    const auto visit = [&](int first, auto is_full) {
      Group<Real> s[kPairBatch<Element>], t[kPairBatch<Element>];
      const Real student_largest = student.template load<is_full.value>(first, s);
      const Real teacher_largest = teacher.template load<is_full.value>(first, t);
      accumulate(part, s, student_largest, t, teacher_largest, exponent);
    };
    const auto meanwhile = [&] {
      if (target) leave_scale(entry);
    };
    visit_first<kPairBatch<Element>>(arrivals, range, meanwhile, visit, student, teacher);
    const OfLanes<Real> of_warp{exponent};
    const DistantSums sums = cluster.template reduce<kRowThreads>(part, of_warp, [&](const PowerSums<Real>& whole) {
      const Scale scale = target ? *shared_array<Scale, 1>() : Scale{};
      return DistantSums{
          is_first_of_cluster() ? whole.divergence_sum(exponent).divergence() : 0,
          whole.student.at,
          whole.teacher.at,
          Real(whole.teacher.sum / whole.student.sum),  // exactly 1 where student and teacher agree
          Real(double(scale.value) * exponent.b / whole.teacher.sum),
          !scale.is_zero};
    });
    write_gradient<kWhole, 2>(sums, target, add, [&](int group) {
      Group<Real> s[] = {student.template again<Real>(group)}, t[] = {teacher.template again<Real>(group)};
      exponent.of(s, sums.student_at);
      exponent.of(t, sums.teacher_at);
      Group<Real>& g = s[0];
      for (int i = 0; i < kGroup; ++i)
        g.value[i] = (exp_base2(g.value[i]) * sums.ratio - exp_base2(t[0].value[i])) * sums.factor;
      return g;
    });
    if (is_first_of_cluster()) tell(entry, sums.loss);
  }

  /// An entry's loss; its gradient goes into `target` unless that is null.
  __device__ __forceinline__ void entry(int64_t entry, Element* target, bool add) const {
    const EntryKind kind = kind_of(a, entry);
    const bool valid = indices_are_valid(a, entry, kind);
    if (!valid || kind == EntryKind::kSilent || (kind == EntryKind::kDistant && !a.teacher.data)) {
      if (target) {
        const bool zero = valid || own_scale_of(entry) == 0;
        fill_columns(zero ? Real(0) : Real(NAN), target, range, columns(), add);
      }
      if (is_first_of_cluster()) tell(entry, valid ? 0 : NAN);
      return;
    }
    const int64_t student_row = row_of(a.student_rows, entry);
    const bool whole = !add && columns() % kGroup == 0 && is_aligned(row_pointer<Element>(a.student, student_row)) &&
                       is_aligned(target);
    if (kind == EntryKind::kNear)
      return with_constant(whole, [&](auto is_whole) { near<is_whole.value>(entry, student_row, target, add); });
    const int64_t teacher_row = row_of(a.teacher_rows, entry);
    if constexpr (!Loader::kKeeps) {
      if (a.teacher.dtype != a.student.dtype) {
        const OtherRow teacher{AnyRow(a.teacher, teacher_row), range.begin, columns(), range.groups};
        distant<false>(entry, student_row, teacher, target, add);
        return;
      }
    }
    const bool both_whole = whole && is_aligned(row_pointer<Element>(a.teacher, teacher_row));
    with_constant(both_whole, [&](auto is_whole) {
      const auto teacher = part_of<is_whole.value>(a.teacher, teacher_row, 1);
      distant<is_whole.value>(entry, student_row, teacher, target, add);
    });
  }
};

/// Cluster r: row r of the gradient, zero where no entry names it; entries that name it together add, in entry order.
/// Without a gradient, cluster i: entry i. Each entry's loss is written unless `losses` is null; those that no row of
/// the gradient belongs to have none.
template <class Element, class Loader>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks<Element, Loader>)
    tad_loss_kernel(TadLossArguments a, double* losses, TadGradient gradient, EntriesByRow by_row) {
  if constexpr (!knows<Loader>()) return;
  let_next_kernel_begin();
  Cluster cluster;
  ArrivalsOf<Loader> arrivals;
  const Visit<Element, Loader> visit{a,       losses,   gradient,
                                     cluster, arrivals, columns_of_block(int(a.vocabulary), cluster)};
  const bool has_gradient = gradient.rows.data != nullptr;
  const int64_t items = has_gradient ? gradient.rows.row_count : a.entries;

  for (int64_t item = blockIdx.x / cluster.size(); item < items; item += gridDim.x / cluster.size()) {
    const NamedBy named = has_gradient ? entries_of_row(by_row, a.entries, item) : NamedBy{item, item + 1};
    Element* target = has_gradient ? row_pointer<Element>(gradient.rows, item) : nullptr;
    if (named.first == named.last) fill_columns(0.0f, target, visit.range, visit.columns(), /*add=*/false);
    for (int64_t position = named.first; position < named.last; ++position) {
      const int64_t entry = has_gradient ? entry_at(by_row, position) : item;
      visit.entry(entry, target, /*add=*/position > named.first);
    }
  }
  cluster.leave();
  wait_for_kernel_before();
}

/// call(kernel, shape) as the loss of so many rows is launched.
template <class Call>
Status with_kernel(const TadLossArguments& a, int64_t rows, bool has_gradient, const Call& call) {
  return with_element(a.student.dtype, [&](auto element) {
    using Element = decltype(element);
    const bool same_dtype = !a.teacher.data || a.teacher.dtype == a.student.dtype;
    const int64_t column_bytes = element_size(a.student.dtype) + (a.teacher.data ? element_size(a.teacher.dtype) : 0);
    RowPlan plan = plan_rows(current_device(), int(a.vocabulary), column_bytes);
    plan.resident = plan.resident && same_dtype;
    const LaunchShape shape = shape_of(plan, rows, /*visited_twice=*/has_gradient);
    if (!has_gradient) return call(tad_loss_kernel<Element, NotKept>, shape);
    return with_loader(plan, [&](auto loader) { return call(tad_loss_kernel<Element, decltype(loader)>, shape); });
  });
}

Status tad_loss(
    TadLossArguments a, double* losses, const TadGradient* gradient, const EntriesByRow& by_row,
    const TadTotals* totals, Stream stream) {
  const bool counts_first = totals && gradient, totals_last = totals && totals->loss;
  const int64_t rows = gradient ? gradient->rows.row_count : a.entries;
  if (counts_first) {
    const bool has_next = totals_last || rows > 0;
    const Status error = tad_totals(a, nullptr, totals->counts(), stream, {.lets_next_begin = has_next});
    if (error) return error;
    a.near_count = totals->near_count;
    a.distant_count = totals->distant_count;
  }
  const Status error = with_kernel(a, rows, gradient != nullptr, [&](auto kernel, LaunchShape shape) {
    shape.overlap = {.begins_early = counts_first, .lets_next_begin = totals_last};
    return launch(kernel, shape, stream, a, losses, gradient ? *gradient : TadGradient{}, by_row);
  });
  return error || !totals_last ? error : tad_totals(a, losses, *totals, stream, {.begins_early = true});
}

Status tad_loss_plan(const TadLossArguments& a, LaunchPlan* plan) {
  return with_kernel(a, /*rows=*/1, /*has_gradient=*/true, [&](auto kernel, const LaunchShape& shape) {
    plan->cluster_blocks = shape.cluster_blocks;
    plan->kept_bytes = shape.shared_bytes;
    if (const Status error = allow(kernel, shape)) return error;
    return Status(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &plan->blocks_per_multiprocessor, kernel, shape.threads, shape.shared_bytes));
  });
}

}  // namespace cuda
}  // namespace tad
