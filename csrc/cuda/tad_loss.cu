// The partitioned CE/KL loss and its gradient, in one visit of the logits: a cluster of blocks reads a row (KL: a
// student and a teacher row), reduces its sums, and writes its gradient from what it kept.
#include "platform.cuh"

#include "../common/entries.h"
#include "gradient_rows.cuh"
#include "resident.cuh"
#include "row_sums.cuh"

namespace tad {
namespace cuda {

/// What a cluster does next: one of the entries that name a row, or a row that none names. To know it takes reads of
/// memory that wait for one another, so it is found a task ahead.
struct Task : RowEntry {  // without a gradient each row is an entry
  enum What { kOver, kFill, kNear, kDistant };

  What what = kOver;
  EntryKind kind = EntryKind::kSilent;
  bool valid = true;      // what the entry names is there
  bool is_silent = true;  // its own scale is 0: then so is its gradient, whatever the logits
  int label = 0;
  int rows = 0;  // that are read
  int64_t entry = -1;
  const void *student = nullptr, *teacher = nullptr;  // its rows
  void* target = nullptr;                             // the gradient's row, if there is one
  double scale = 0;  // d (the call's loss times its own gradient) / d (the entry's loss)
};

/// What a block knows while it works.
template <class Element, class Loader>
struct Visit {
  using Real = typename RealOf<Element>::type;

  const TadLossArguments& a;
  double* losses;  // null: nobody wants to know
  const TadGradient& gradient;
  const EntriesByRow& by_row;
  const bool whole_rows;
  const Exponent<Real>& exponent_of_pairs;
  Cluster& cluster;
  const WarpColumns range;
  uint4* const kept;  // the warp's place
  ArrivalsOf<Loader>& arrivals;

  __device__ int columns() const { return int(a.vocabulary); }
  __device__ bool has_gradient() const { return gradient.rows.data != nullptr; }
  /// f(whether every group of the rows is whole, as a constant). But where copies bring them something may be added to
  /// the gradient.
  template <class F>
  __device__ __forceinline__ void with_whole(const Task& task, const F& f) const {
    if constexpr (Loader::kBulk)
      f(std::true_type());
    else
      with_constant(whole_rows && !task.add, f);
  }
  __device__ static Element* target_of(const Task& task) { return in_global(static_cast<Element*>(task.target)); }

  /// The warp's part of a row; in shared memory, 0: the student's place, 1: the teacher's, which follows it.
  template <bool kWhole>
  __device__ auto part(const void* row, int place) const {
    uint4* const place_of_row = kept + place * range.groups * RawGroup<Element>::kWords;
    return part_of<kWhole, Loader>(in_global(static_cast<const Element*>(row)), columns(), range, place_of_row);
  }

  // ---- what there is to do ----------------------------------------------------------------------------------------

  __device__ static bool is_last_warp() { return threadIdx.x >= kRowThreads - kWarp; }
  __device__ static bool is_last_thread() { return threadIdx.x == kRowThreads - 1; }

  /// By a warp: the first task of a row, and the one after another.
  __device__ Task first_task(int64_t row) const { return describe(first_of_row(by_row, a.entries, row)); }
  __device__ Task task_after(const Task& task) const {
    return describe(entry_after(by_row, a.entries, task, gridDim.x / cluster.size()));
  }

  __device__ Task describe(const RowEntry& of_row) const {
    Task task{of_row};
    if (task.row >= (has_gradient() ? gradient.rows.row_count : a.entries)) return task;
    task.what = Task::kFill;
    if (has_gradient()) task.target = row_pointer<Element>(gradient.rows, task.row);
    if (!task.is_named()) return task;
    task.entry = entry_at(by_row, task.position);
    task.kind = kind_of(a, task.entry);
    task.valid = indices_are_valid(a, task.entry, task.kind);
    if (!task.valid || task.kind == EntryKind::kSilent) return task;
    task.student = AnyRow(a.student, row_of(a.student_rows, task.entry)).data;
    if (task.kind == EntryKind::kNear) {
      task.what = Task::kNear;
      task.rows = 1;
      task.label = int(a.labels[task.entry]);
    } else if (a.teacher.data) {
      task.what = Task::kDistant;
      task.rows = 2;
      task.teacher = AnyRow(a.teacher, row_of(a.teacher_rows, task.entry)).data;
    }
    return task;
  }

  /// An entry's scale depends on counts that the kernel before this one may make.
  __device__ void find_scale(Task& task) const {
    if (!has_gradient() || task.entry < 0 || (task.valid && task.what == Task::kFill)) return;
    wait_for_kernel_before();
    const double outer = gradient.grad_loss ? double(*static_cast<const Real*>(gradient.grad_loss)) : 1.0;
    const double own = gradient_scale(a, task.entry, task.kind);
    task.is_silent = own == 0;
    task.scale = outer * own;
  }

  /// Left by the last warp for its block.
  __device__ void look_ahead(const Task& task, Task* next) const {
    if (!is_last_warp()) return;
    Task found = task_after(task);
    find_scale(found);
    if (is_last_thread()) *next = found;
  }

  /// Asks for the rows of a task, or a half of them, if they arrive: what lies there has been used.
  template <class... Half>
  __device__ __forceinline__ void ask_for(const Task& task, const Half&... half) const {
    arrivals.ask_for(
        half..., task.rows, [&](int place) { return part<true>(place == 0 ? task.student : task.teacher, place); });
  }

  // ---- an entry's loss and gradient -------------------------------------------------------------------------------

  /// By one thread of the cluster.
  __device__ void tell(int64_t entry, double loss) const {
    if (losses) losses[entry] = loss;
  }
  __device__ bool is_first_of_cluster() const { return cluster.rank() == 0 && threadIdx.x == 0; }

  /// How an entry's gradient is written, which the first warp finds out for all. Where 16 bits are written the factor
  /// may be in the exponents, a multiplication less for each logit, unless they are relative to so much that float32
  /// would lose its digits.
  enum class Way { kZeros, kAdded, kMultiplied, kFolded };
  static constexpr bool kMayFold = sizeof(Element) == 2;

  __device__ static Way way_of(const Task& task, Real factor, Real offset) {
    const bool is_silent = task.is_silent, adds = task.add;
    const bool folds = kMayFold && factor > 0 && factor < Real(INFINITY) && fabs(offset) <= 1024;
    return is_silent ? Way::kZeros : adds ? Way::kAdded : folds ? Way::kFolded : Way::kMultiplied;
  }
  /// Of sums, which are no extreme numbers.
  __device__ static Real quotient(double x, double y) {
    if constexpr (kMayFold) return quotient_approximate(Real(x), Real(y));
    return Real(x / y);
  }
  /// What is added to exponents.
  __device__ static Real log_if_folded(Way way, Real factor) {
    if constexpr (kMayFold) return way == Way::kFolded ? log2_approximate(factor) : Real(0);
    return 0;
  }

  /// What every thread of a cluster must know of a row's sums to write its gradient.
  struct NearSums {
    PowerSum<Real> whole;
    Reference<Real> at;
    Real factor, log_factor;
    Way way;
  };
  struct DistantSums {
    PowerSums<Real> whole;
    References<Real> at;
    Real ratio, factor, log_ratio, log_factor;
    Way way;
  };

  /// Writes an entry's gradient, if there is one: of_groups(whether the factor is in the exponents, first, g) makes
  /// that of groups first, first + kWarp, ..., as many as g has, at most kGroups. The next task's rows come where this
  /// one's are done with.
  template <bool kWhole, int kGroups, class OfGroups>
  __device__ __forceinline__ void write_gradient(
      const Task& task, Way way, const Task* next, const OfGroups& of_groups) const {
    if (!has_gradient()) return;
    if (way == Way::kZeros) {
      fill(task, Real(0));
      return ask_for(*next, range);
    }
    const auto write_as = [&](auto whole, auto folded) {
      const auto out = target_part_of<whole.value>(target_of(task), columns(), range, task.add);
      write_groups<Loader, whole.value ? kGroups : 1, Real>(
          range, out, [&](int first, auto& g) { of_groups(folded, first, g); },
          [&](const auto&... half) { ask_for(*next, half...); });
    };
    constexpr std::bool_constant<kWhole> whole;
    if (kWhole && way == Way::kAdded) return write_as(std::false_type(), std::false_type());
    if constexpr (kMayFold) {
      if (way == Way::kFolded) return write_as(whole, std::true_type());
    }
    write_as(whole, std::false_type());
  }
  __device__ void fill(const Task& task, Real value) const {
    if (Element* target = target_of(task)) fill_columns(value, target, range, columns(), task.add);
  }

  /// Where a task's label is among the columns of the warp, if it is the calling thread's; -1 if not.
  __device__ int label_column(const Task& task) const {
    const unsigned column = unsigned(task.label - range.begin), group = column / kGroup;
    return group < unsigned(range.groups) && int(group % kWarp) == lane() ? int(column) : -1;
  }

  /// Cross-entropy, and scale * (softmax - onehot) into the gradient.
  template <bool kWhole>
  __device__ void near(const Task& task, Task* next) const {
    const auto student = part<kWhole>(task.student, 0);
    const Exponent<Real> exponent(1);
    ThreadSum<Real> of_thread;
    visit_first<Loader, kBatch<Element>>(arrivals, range, [&](int first, auto is_full) {
      RawGroup<Element> raw[kBatch<Element>];
      follow(of_thread, student.template load_batch<is_full.value, Real>(first, raw), exponent);
      Group<Real> x[kBatch<Element>];
      as_numbers(raw, x);
      accumulate(of_thread, x, exponent);
    });
    // The thread that writes the label's column tells the loss: it has the logit from before the gradient takes its
    // place.
    const int column = label_column(task);
    const Element label_element = column >= 0 ? student.element(column) : Element();
    const OfLanes<Real> of_warp{exponent};
    const NearSums& sums = cluster.template reduce<kRowThreads>(
        of_thread.part, of_warp,
        [&](const PowerSum<Real>& whole) {
          const Reference<Real> at = exponent.reference_at(whole.max);
          const Real factor = quotient(Real(task.scale), whole.sum);
          const Way way = way_of(task, factor, at.offset);
          return NearSums{whole, at, factor, log_if_folded(way, factor), way};
        },
        [&] { look_ahead(task, next); });
    const Reference<Real> at = sums.at, of_gradient{at.origin, at.offset + sums.log_factor};
    const Real factor = sums.factor, scale = Real(task.scale);
    const auto of_groups = [&]<int kGroups>(auto folded, int first, Group<Real>(&g)[kGroups]) {
      for_each_of(g, first, [&](Group<Real>& one, int group) { one = student.template again<Real>(group); });
      exponent.of(g, of_gradient);
#pragma unroll
      for (Group<Real>& one : g)
        for (Real& value : one.value) value = folded.value ? exp_base2(value) : exp_base2(value) * factor;
      if (unsigned(column - first * kGroup) >= unsigned(kGroups * kWarp * kGroup)) return;
      // Where p is nearly 1 the last digits count.
      const Real of_label = exp_base2(exponent.of(from_storage<Real>(label_element), at)) * factor - scale;
      for_each_of(g, first, [&](Group<Real>& one, int group) {
        for (int i = 0; i < kGroup; ++i) one.value[i] = group * kGroup + i == column ? of_label : one.value[i];
      });
    };
    write_gradient<kWhole, kBatch<Element>>(task, sums.way, next, of_groups);
    if (column < 0) return;
    const double loss = cross_entropy(sums.whole.row_sum(exponent, at), from_storage<double>(label_element));
    tell(task.entry, loss < 0 ? 0 : loss);  // by rounding, where the row is sure of its label
  }

  /// KL(teacher || student), and scale * (softmax_student - softmax_teacher) / temperature into the gradient.
  template <bool kWhole, class TeacherRow>
  __device__ void distant(const Task& task, Task* next, const TeacherRow& teacher) const {
    const auto student = part<kWhole>(task.student, 0);
    const Exponent<Real>& exponent = exponent_of_pairs;
    ThreadSums<Real> of_thread;
    visit_first<Loader, kPairBatch<Element>>(arrivals, range, [&](int first, auto is_full) {
      RawGroup<Element> student_raw[kPairBatch<Element>];
      typename TeacherRow::template Raw<Real> teacher_raw[kPairBatch<Element>];
      const Real student_largest = student.template load_batch<is_full.value, Real>(first, student_raw);
      const Real teacher_largest = teacher.template load_batch<is_full.value, Real>(first, teacher_raw);
      follow(of_thread, student_largest, teacher_largest, exponent);
      Group<Real> s[kPairBatch<Element>], t[kPairBatch<Element>];
      as_numbers(student_raw, s);
      as_numbers(teacher_raw, t);
      accumulate(of_thread, s, t, exponent);
    });
    const OfLanes<Real> of_warp{exponent};
    const DistantSums& sums = cluster.template reduce<kRowThreads>(
        of_thread.part, of_warp,
        [&](const PowerSums<Real>& whole) {
          const References<Real> at = exponent.references_at(whole.student.max, whole.teacher.max);
          const bool agree = Real(whole.student.sum) == Real(whole.teacher.sum);
          const Real ratio = agree ? Real(1) : quotient(whole.teacher.sum, whole.student.sum);
          const Real factor = quotient(Real(task.scale * exponent.b), whole.teacher.sum);
          const Way way = way_of(task, factor, fmax(fabs(at.student.offset), fabs(at.teacher.offset)));
          const Real log_ratio = agree ? Real(0) : log_if_folded(way, ratio);
          return DistantSums{whole, at, ratio, factor, log_ratio, log_if_folded(way, factor), way};
        },
        [&] { look_ahead(task, next); });
    const References<Real> at = sums.at;
    const References<Real> of_gradient{
        {at.student.origin, at.student.offset + (sums.log_factor + sums.log_ratio)},
        {at.teacher.origin, at.teacher.offset + sums.log_factor}};
    const Real ratio = sums.ratio, factor = sums.factor;
    const auto of_groups = [&]<int kGroups>(auto folded, int first, Group<Real>(&g)[kGroups]) {
      Group<Real> t[kGroups];
      for_each_of(g, first, [&](Group<Real>& one, int group) { one = student.template again<Real>(group); });
      for_each_of(t, first, [&](Group<Real>& one, int group) { one = teacher.template again<Real>(group); });
      exponent.of(g, t, of_gradient);
#pragma unroll
      for (int k = 0; k < kGroups; ++k) {
        for (int i = 0; i < kGroup; ++i) {
          const Real of_student = exp_base2(g[k].value[i]), of_teacher = exp_base2(t[k].value[i]);
          g[k].value[i] = folded.value ? of_student - of_teacher : (of_student * ratio - of_teacher) * factor;
        }
      }
    };
    write_gradient<kWhole, kPairBatch<Element>>(task, sums.way, next, of_groups);
    if (is_first_of_cluster()) tell(task.entry, sums.whole.divergence_sum(exponent, at).divergence());
  }

  /// A task, whose rows have been asked for; `next` is what comes after it, once a barrier says so.
  __device__ __forceinline__ void work(const Task& task, Task* next) const {
    if (task.what == Task::kFill) {
      __syncthreads();  // some may still read of the task before this one, where the next one will be
      look_ahead(task, next);
      if (task.entry >= 0 && is_first_of_cluster()) tell(task.entry, task.valid ? 0 : NAN);
      fill(task, task.valid || task.is_silent ? Real(0) : Real(NAN));
      __syncthreads();
      return ask_for(*next, range);
    }
    if (task.what == Task::kNear) return with_whole(task, [&](auto whole) { near<whole.value>(task, next); });
    if constexpr (!Loader::kKeeps) {
      if (a.teacher.dtype != a.student.dtype) {
        const OtherRow teacher{AnyRow(in_global(task.teacher), a.teacher.dtype), range.begin, columns(), range.groups};
        return distant<false>(task, next, teacher);
      }
    }
    with_whole(task, [&](auto whole) { distant<whole.value>(task, next, part<whole.value>(task.teacher, 1)); });
  }
};

/// Cluster i: rows i, i + clusters, ... of the gradient, zero where no entry names them; entries that name one together
/// add, in entry order. `whole_rows`: all of them are. Without a gradient: entries i, i + clusters, ... Each entry's
/// loss is written unless `losses` is null; those that no row of the gradient belongs to have none.
template <class Element, class Loader>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks<Element, Loader>) tad_loss_kernel(
    TadLossArguments a, double* losses, TadGradient gradient, EntriesByRow by_row, bool whole_rows,
    Exponent<typename RealOf<Element>::type> exponent_of_pairs) {
  if constexpr (!knows<Loader>()) return;
  let_next_kernel_begin();
  Cluster cluster;
  const WarpColumns range = columns_of_warp(int(a.vocabulary), cluster, kBatch<Element>);
  uint4* const kept = place_of_warp<Element, Loader>(range.kept_at * (a.teacher.data ? 2 : 1));
  ArrivalsOf<Loader> arrivals;
  using OfElement = Visit<Element, Loader>;
  const OfElement visit{a, losses, gradient, by_row, whole_rows, exponent_of_pairs, cluster, range, kept, arrivals};
  Task* tasks = shared_array<Task, 2>();
  if (OfElement::is_last_warp()) {
    const Task first = visit.first_task(blockIdx.x / cluster.size());
    if (OfElement::is_last_thread()) tasks[0] = first;
  }
  __syncthreads();
  begin_in_turn<Element, Loader>(tasks->rows, int(a.vocabulary), cluster);
  visit.ask_for(tasks[0], range);
  if (OfElement::is_last_thread()) visit.find_scale(tasks[0]);  // while its rows are on their way
  for (Task *task = tasks, *next = tasks + 1; task->what != Task::kOver; std::swap(task, next)) visit.work(*task, next);
  cluster.leave();
  wait_for_kernel_before();
}

/// call(kernel, shape, whole_rows, exponent_of_pairs) as the loss is launched, with or without a gradient.
template <class Call>
Status with_kernel(const TadLossArguments& a, const MutableRows* gradient, const Call& call) {
  return with_element(a.student.dtype, [&](auto element) {
    using Element = decltype(element);
    const Exponent<typename RealOf<Element>::type> exponent(1 / a.temperature);
    const bool has_teacher = a.teacher.data != nullptr, same_dtype = !has_teacher || a.teacher.dtype == a.student.dtype;
    const int64_t column_bytes = element_size(a.student.dtype) + (has_teacher ? element_size(a.teacher.dtype) : 0);
    const bool whole = are_whole(a.student, a.vocabulary) && (!has_teacher || are_whole(a.teacher, a.vocabulary)) &&
                       (!gradient || are_whole(*gradient, a.vocabulary));
    const RowPlan plan = plan_rows(current_device(), int(a.vocabulary), column_bytes, whole, same_dtype);
    LaunchShape shape = shape_of(plan, gradient ? gradient->row_count : a.entries, /*visited_twice=*/gradient);
    if (!gradient) return call(tad_loss_kernel<Element, NotKept>, shape, whole, exponent);
    shape.stays = plan.asks_ahead;
    return with_loader(
        plan, [&](auto loader) { return call(tad_loss_kernel<Element, decltype(loader)>, shape, whole, exponent); });
  });
}

Status tad_loss(
    TadLossArguments a, double* losses, const TadGradient* gradient, const EntriesByRow& by_row,
    const TadTotals* totals, Stream stream) {
  const bool counts_first = totals && gradient, totals_last = totals && totals->loss;
  if (counts_first) {
    const bool has_next = totals_last || gradient->rows.row_count > 0;
    const Status error = tad_totals(a, nullptr, totals->counts(), stream, {.lets_next_begin = has_next});
    if (error) return error;
    a.near_count = totals->near_count;
    a.distant_count = totals->distant_count;
  }
  const auto* rows = gradient ? &gradient->rows : nullptr;
  const Status error = with_kernel(a, rows, [&](auto kernel, LaunchShape shape, bool whole, const auto& exponent) {
    shape.overlap = {.begins_early = counts_first, .lets_next_begin = totals_last};
    const TadGradient of_rows = gradient ? *gradient : TadGradient{};
    return launch(kernel, shape, stream, a, losses, of_rows, gradient ? by_row : EntriesByRow{}, whole, exponent);
  });
  return error || !totals_last ? error : tad_totals(a, losses, *totals, stream, {.begins_early = true});
}

Status tad_loss_plan(const TadLossArguments& a, LaunchPlan* plan) {
  const MutableRows gradient{nullptr, 0, a.student.dtype, 1};
  return with_kernel(a, &gradient, [&](auto kernel, const LaunchShape& shape, bool, const auto&) {
    plan->cluster_blocks = shape.cluster_blocks;
    plan->kept_bytes = shape.shared_bytes;
    if (const Status error = allow(kernel, shape)) return error;
    return Status(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &plan->blocks_per_multiprocessor, kernel, shape.threads, shape.shared_bytes));
  });
}

}  // namespace cuda
}  // namespace tad
