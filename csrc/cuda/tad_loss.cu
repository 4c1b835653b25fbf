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
  int64_t entry = -1;
  const void *student = nullptr, *teacher = nullptr;  // its rows
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
  ArrivalsOf<Loader>& arrivals;

  __device__ int columns() const { return int(a.vocabulary); }
  __device__ bool has_gradient() const { return gradient.rows.data != nullptr; }
  __device__ bool is_whole(const Task& task) const { return whole_rows && !task.add; }
  __device__ Element* target_of(const Task& task) const {
    return has_gradient() ? row_pointer<Element>(gradient.rows, task.row) : nullptr;
  }

  /// The warp's part of a row; in shared memory, 0: the student's place, 1: the teacher's, which follows it.
  template <bool kWhole>
  __device__ auto part(const void* row, int place) const {
    const int kept_at = range.kept_at * (a.teacher.data ? 2 : 1) + place * range.groups;
    return part_of<kWhole, Loader>(static_cast<const Element*>(row), columns(), range, kept_at);
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
    if (!task.is_named()) return task;
    task.entry = entry_at(by_row, task.position);
    task.kind = kind_of(a, task.entry);
    task.valid = indices_are_valid(a, task.entry, task.kind);
    if (!task.valid || task.kind == EntryKind::kSilent) return task;
    task.student = AnyRow(a.student, row_of(a.student_rows, task.entry)).data;
    if (task.kind == EntryKind::kNear) {
      task.what = Task::kNear;
      task.label = int(a.labels[task.entry]);
    } else if (a.teacher.data) {
      task.what = Task::kDistant;
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
    if (!Loader::kBulk) return;
    const auto student = part<true>(task.student, 0);
    if (task.what == Task::kNear) arrivals.ask_for(half..., student);
    if (task.what == Task::kDistant) arrivals.ask_for(half..., student, part<true>(task.teacher, 1));
  }

  // ---- an entry's loss and gradient -------------------------------------------------------------------------------

  /// By one thread of the cluster.
  __device__ void tell(int64_t entry, double loss) const {
    if (losses) losses[entry] = loss;
  }
  __device__ bool is_first_of_cluster() const { return cluster.rank() == 0 && threadIdx.x == 0; }

  /// What every thread of a cluster must know of a row's sums to write its gradient.
  struct NearSums {
    double loss;
    Reference<Real> at;
    Real factor;
  };
  struct DistantSums {
    double loss;
    Reference<Real> student_at, teacher_at;
    Real ratio, factor;
  };

  /// Writes an entry's gradient, if there is one, kGroups groups of columns at a time: `of_group(group)` is that of
  /// one. The next task's rows come where this one's are done with.
  template <bool kWhole, int kGroups, class OfGroup>
  __device__ __forceinline__ void write_gradient(const Task& task, const Task* next, const OfGroup& of_group) const {
    Element* target = target_of(task);
    if (!target) return;
    if (task.is_silent) {
      fill(task, Real(0));
      return ask_for(*next, range);
    }
    const auto out = target_part_of<kWhole>(target, columns(), range, task.add);
    for_each_half<Loader>(range, [&](int half, int begin, int end) {
      for_each_group<kGroups>(begin, end, [&](int group) { out.store(of_group(group), group); });
      ask_for(*next, half, begin, end);
    });
  }
  __device__ void fill(const Task& task, Real value) const {
    if (Element* target = target_of(task)) fill_columns(value, target, range, columns(), task.add);
  }

  /// Cross-entropy, and scale * (softmax - onehot) into the gradient.
  template <bool kWhole>
  __device__ void near(const Task& task, Task* next) const {
    const auto student = part<kWhole>(task.student, 0);
    const int label = task.label;
    // The label's own block tells the loss: it alone knows that the gradient has not taken the logit's place yet.
    const ColumnRange block = columns_of_block(columns(), cluster);
    const bool tells = threadIdx.x == 0 && label >= block.begin && label - block.begin < block.groups * kGroup;
    Element label_element{};  // looked at when there is time
    if (tells) label_element = static_cast<const Element*>(task.student)[label];
    const Exponent<Real> exponent(1);
    PowerSum<Real> of_thread;
    visit_first<Loader, kBatch<Element>>(arrivals, range, [&](int first, auto is_full) {
      Group<Real> x[kBatch<Element>];
      const Real largest = student.template load<is_full.value>(first, x);
      accumulate(of_thread, x, largest, exponent);
    });
    const OfLanes<Real> of_warp{exponent};
    const NearSums sums = cluster.template reduce<kRowThreads>(
        of_thread, of_warp,
        [&](const PowerSum<Real>& whole) {
          const double loss = tells ? cross_entropy(whole.row_sum(exponent), from_storage<double>(label_element)) : 0;
          return NearSums{
              loss < 0 ? 0 : loss,  // by rounding, where the row is sure of its label
              whole.at, Real(Real(task.scale) / whole.sum)};
        },
        [&] { look_ahead(task, next); });
    if (tells) tell(task.entry, sums.loss);
    const Real scale = Real(task.scale);
    write_gradient<kWhole, 1>(task, next, [&](int group) {
      Group<Real> x[] = {student.template again<Real>(group)};
      exponent.of(x, sums.at);
      Group<Real>& g = x[0];
      for (Real& value : g.value) value = exp_base2(value) * sums.factor;
      const int label_in_group = label - range.begin - group * kGroup;
      if (label_in_group >= 0 && label_in_group < kGroup)
        for (int i = 0; i < kGroup; ++i) g.value[i] -= i == label_in_group ? scale : Real(0);
      return g;
    });
  }

  /// KL(teacher || student), and scale * (softmax_student - softmax_teacher) / temperature into the gradient.
  template <bool kWhole, class TeacherRow>
  __device__ void distant(const Task& task, Task* next, const TeacherRow& teacher) const {
    const auto student = part<kWhole>(task.student, 0);
    const Exponent<Real>& exponent = exponent_of_pairs;
    PowerSums<Real> of_thread;
    visit_first<Loader, kPairBatch<Element>>(arrivals, range, [&](int first, auto is_full) {
      Group<Real> s[kPairBatch<Element>], t[kPairBatch<Element>];
      const Real student_largest = student.template load<is_full.value>(first, s);
      const Real teacher_largest = teacher.template load<is_full.value>(first, t);
      accumulate(of_thread, s, student_largest, t, teacher_largest, exponent);
    });
    const OfLanes<Real> of_warp{exponent};
    const DistantSums sums = cluster.template reduce<kRowThreads>(
        of_thread, of_warp,
        [&](const PowerSums<Real>& whole) {
          return DistantSums{
              is_first_of_cluster() ? whole.divergence_sum(exponent).divergence() : 0, whole.student.at,
              whole.teacher.at,
              Real(whole.teacher.sum / whole.student.sum),  // exactly 1 where student and teacher agree
              Real(double(Real(task.scale)) * exponent.b / whole.teacher.sum)};
        },
        [&] { look_ahead(task, next); });
    if (is_first_of_cluster()) tell(task.entry, sums.loss);
    write_gradient<kWhole, 2>(task, next, [&](int group) {
      Group<Real> s[] = {student.template again<Real>(group)}, t[] = {teacher.template again<Real>(group)};
      exponent.of(s, sums.student_at);
      exponent.of(t, sums.teacher_at);
      Group<Real>& g = s[0];
      for (int i = 0; i < kGroup; ++i)
        g.value[i] = (exp_base2(g.value[i]) * sums.ratio - exp_base2(t[0].value[i])) * sums.factor;
      return g;
    });
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
    if (task.what == Task::kNear)
      return with_constant(is_whole(task), [&](auto whole) { near<whole.value>(task, next); });
    if constexpr (!Loader::kKeeps) {
      if (a.teacher.dtype != a.student.dtype) {
        const OtherRow teacher{AnyRow(task.teacher, a.teacher.dtype), range.begin, columns(), range.groups};
        return distant<false>(task, next, teacher);
      }
    }
    with_constant(
        is_whole(task), [&](auto whole) { distant<whole.value>(task, next, part<whole.value>(task.teacher, 1)); });
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
  ArrivalsOf<Loader> arrivals;
  using OfElement = Visit<Element, Loader>;
  const OfElement visit{a, losses, gradient, by_row, whole_rows, exponent_of_pairs, cluster, range, arrivals};
  Task* tasks = shared_array<Task, 2>();
  if (OfElement::is_last_warp()) {
    const Task first = visit.first_task(blockIdx.x / cluster.size());
    if (OfElement::is_last_thread()) tasks[0] = first;
  }
  __syncthreads();
  visit.ask_for(tasks[0], range);
  if (OfElement::is_last_thread()) visit.find_scale(tasks[0]);  // while its rows are on their way
  for (int at = 0; tasks[at].what != Task::kOver; at ^= 1) visit.work(tasks[at], &tasks[at ^ 1]);
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
