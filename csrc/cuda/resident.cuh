// Rows that a cluster of blocks visits twice, once for their sums and once for what follows from them, and reads from
// global memory once: they stay in shared memory, each thread's columns in its block's. A loader brings them there: the
// copy engine, without passing through registers, or the threads. Where rows do not fit, the second visit reads them
// again, from the second-level cache as long as few enough are worked on at a time.
#pragma once

#include "reduce.cuh"
#include "row_io.cuh"

namespace tad {
namespace cuda {

/// Groups of columns that a thread has in flight at a time: 64 bytes, and of a pair of rows as much in all, but that
/// the registers of float32 suffice for twice that.
template <class Element>
constexpr int kBatch = 8 / int(sizeof(Element));
template <class Element>
constexpr int kPairBatch = sizeof(Element) == 8 ? 1 : 2;

/// How a block's part of a row comes to its threads.
struct NotKept {  // from global memory at each visit, of which there may be only one
  static constexpr bool kKeeps = false, kBulk = false;
};
struct ByThreads {  // who read it once and keep it in shared memory
  static constexpr bool kKeeps = true, kBulk = false;
};
struct ByBulkCopies {  // into shared memory, where all rows are whole (are_whole)
  static constexpr bool kKeeps = true, kBulk = true;
};

/// Whether the code that is compiled has such a loader.
template <class Loader>
__device__ constexpr bool knows() {
  return has_bulk_copies() || !Loader::kBulk;
}

/// Blocks per multiprocessor that registers must suffice for: three take turns where copies need none. Without this
/// number ptxas guesses one, and spills to meet it.
template <class Element, class Loader>
constexpr int kRowBlocks = sizeof(Element) == 8 ? 1
                           : Loader::kBulk      ? 3
                                                : 2;

/// f(true or false, as a constant) as `value` says.
template <class F>
__device__ __forceinline__ auto with_constant(bool value, const F& f) {
  return value ? f(std::true_type()) : f(std::false_type());
}

/// The columns of a row that somebody works on, in groups of eight: all whole, but for the row's end.
struct ColumnRange {
  int begin, groups;
};

__host__ __device__ __forceinline__ int groups_per_block(int columns, int cluster_blocks) {
  const int groups = (columns + kGroup - 1) / kGroup;
  return (groups + cluster_blocks - 1) / cluster_blocks;
}

__device__ __forceinline__ ColumnRange columns_of_block(int columns, const Cluster& cluster) {
  const int all = (columns + kGroup - 1) / kGroup, each = groups_per_block(columns, cluster.size());
  const int left = all - each * cluster.rank();
  return {each * cluster.rank() * kGroup, left < 0 ? 0 : left < each ? left : each};
}

/// Before a block asks for its part of the first `rows` rows.
template <class Element, class Loader>
__device__ __forceinline__ void begin_in_turn(int rows, int columns, const Cluster& cluster) {
  if constexpr (Loader::kBulk) {
    const int groups = rows * groups_per_block(columns, cluster.size());
    begin_in_turn(kRowBlocks<Element, Loader>, unsigned(groups) * unsigned(kGroup * sizeof(Element)));
  }
}

/// A warp's part of them, which no other warp reads or writes: nobody waits for others before it is known to be there,
/// or done with. Lane i has groups i, i + kWarp, ...
struct WarpColumns : ColumnRange {
  int half;     // groups of the first half, which comes and goes before the other one
  int kept_at;  // where they begin in what the block keeps, in groups
};

/// `batch`: the largest number of groups of a lane that a kernel looks at together. Pairs of groups are not torn but at
/// the block's end: the other warps have no batch of pairs that is not full. From the last warp on, since the first one
/// has most to do besides.
__device__ __forceinline__ WarpColumns columns_of_warp(int columns, const Cluster& cluster, int batch) {
  constexpr int kWarps = kRowThreads / kWarp, kUnit = 2 * kWarp;
  const ColumnRange block = columns_of_block(columns, cluster);
  const int each = (block.groups + kWarps * kUnit - 1) / (kWarps * kUnit) * kUnit;
  const int before = each * of_first_lane(kWarps - 1 - int(threadIdx.x) / kWarp);
  const int left = block.groups - before, groups = left < 0 ? 0 : left < each ? left : each;
  const int batches = (groups + batch * kWarp - 1) / (batch * kWarp), half = (batches + 1) / 2 * batch * kWarp;
  return {{block.begin + before * kGroup, groups}, half < groups ? half : groups, before};
}

__device__ __forceinline__ int lane() {
  return int(threadIdx.x % kWarp);
}

/// Calls visit(half, begin, end) for the groups of both halves; once for all of them where nothing comes by halves.
template <class Loader, class Visit>
__device__ __forceinline__ void for_each_half(const WarpColumns& range, const Visit& visit) {
  if constexpr (Loader::kBulk) {
#pragma unroll 1
    for (int half = 0, begin = 0; half < 2; ++half) {
      const int end = half == 0 ? range.half : range.groups;
      visit(half, begin, end);
      begin = end;
    }
  } else {
    visit(0, 0, range.groups);
  }
}

/// The parts of rows that are on their way into shared memory. A warp asks for its own, half by half, and then waits
/// for both before it asks again.
class Arrivals {
 public:
  __device__ Arrivals() {
    if (lane() == 0)
      for (int half = 0; half < 2; ++half) mbarrier_init(barriers_ + half);
    __syncwarp();
  }

  /// Asks for groups [begin, end), which are such a half, of `rows` rows: row_at(0), row_at(1), each by a lane. All
  /// lanes are done with what lies there.
  template <class RowAt>
  __device__ __forceinline__ void ask_for(int half, int begin, int end, int rows, const RowAt& row_at) const {
    __syncwarp();
    if (lane() >= rows) return;
    const auto row = row_at(lane());
    const size_t bytes = row.bytes_of(end - begin);
    if (lane() == 0) mbarrier_expect(barriers_ + half, rows * bytes);
    if (end > begin) row.ask_for(begin, bytes, barriers_ + half);
  }

  /// For both halves.
  template <class RowAt>
  __device__ __forceinline__ void ask_for(const WarpColumns& range, int rows, const RowAt& row_at) const {
    for_each_half<ByBulkCopies>(range, [&](int half, int begin, int end) { ask_for(half, begin, end, rows, row_at); });
  }

  __device__ __forceinline__ void wait_for(int half) {
    mbarrier_wait(barriers_ + half, parity_);
    parity_ ^= unsigned(half);
  }

 private:
  MBarrier* const barriers_ = in_register(shared_array<MBarrier, kRowThreads / kWarp * 2>() + threadIdx.x / kWarp * 2);
  unsigned parity_ = 0;
};

/// What a block needs of a loader but the rows: nothing, but where copies arrive.
struct NoArrivals {
  template <class... Anything>
  __device__ __forceinline__ void ask_for(const Anything&...) const {}
  __device__ void wait_for(int) const {}
};
template <class Loader>
using ArrivalsOf = std::conditional_t<Loader::kBulk, Arrivals, NoArrivals>;

/// Calls visit(group) for each of the calling thread's groups.
template <class Visit>
__device__ __forceinline__ void for_each_group(const ColumnRange& range, const Visit& visit) {
  for (int group = lane(); group < range.groups; group += kWarp) visit(group);
}

/// The warp's groups of [begin, end), in batches: visit(the lane's first, whether the batch is full, as a constant) of
/// the lane's kGroups groups first, first + kWarp, ..., as far as `end`. All lanes make the same calls.
template <int kGroups, class Visit>
__device__ __forceinline__ void for_each_batch(int begin, int end, const Visit& visit) {
  constexpr int kStep = kGroups * kWarp;
#pragma unroll 1  // or registers do not suffice
  for (; begin + kStep <= end; begin += kStep) visit(begin + lane(), std::true_type());
  if (begin < end) visit(begin + lane(), std::false_type());
}

/// Calls visit(one, its number) for the calling thread's groups of a batch, of which `first` is the first.
template <int kGroups, class Real, class Visit>
__device__ __forceinline__ void for_each_of(Group<Real> (&groups)[kGroups], int first, const Visit& visit) {
#pragma unroll
  for (int k = 0; k < kGroups; ++k) visit(groups[k], first + k * kWarp);
}

/// The first visit of rows that have been asked for: visit as in for_each_batch, where groups behind the range are
/// -inf.
template <class Loader, int kGroups, class Visit>
__device__ __forceinline__ void visit_first(
    ArrivalsOf<Loader>& arrivals, const WarpColumns& range, const Visit& visit) {
  for_each_half<Loader>(range, [&](int half, int begin, int end) {
    arrivals.wait_for(half);
    for_each_batch<kGroups>(begin, end, visit);
  });
}

/// The second visit: of_groups(first, g) makes groups first, first + kWarp, ... of a row, as many as g has, at most
/// kGroups, which are stored. done(half, begin, end) is called once a half is done with.
template <class Loader, int kGroups, class Real, class Target, class OfGroups, class Done>
__device__ __forceinline__ void write_groups(
    const WarpColumns& range, const Target& target, const OfGroups& of_groups, const Done& done) {
  const auto write = [&](int first, auto groups) {
    Group<Real> g[groups.value];
    of_groups(first, g);
    for_each_of(g, first, [&](const Group<Real>& one, int group) { target.store(one, group); });
  };
  for_each_half<Loader>(range, [&](int half, int begin, int end) {
    for_each_batch<kGroups>(begin, end, [&](int first, auto is_full) {
      if constexpr (is_full.value)
        write(first, std::integral_constant<int, kGroups>());
      else
        for (int group = first; group < end; group += kWarp) write(group, std::integral_constant<int, 1>());
    });
    done(half, begin, end);
  });
}

/// One warp's columns of a row of the compiled-in dtype. kWhole: every group is whole and aligned. A row that is read
/// twice is `kept` in shared memory, as it is.
template <class Element, bool kWhole, class Loader>
struct Row {
  static constexpr int kWords = RawGroup<Element>::kWords;
  static constexpr bool kArrives = Loader::kBulk;

  const Element* data;  // at the range's beginning
  int columns;          // from there to the row's end
  int groups;           // of the range
  uint4* kept;

  __device__ static size_t bytes_of(int groups) { return groups * kGroup * sizeof(Element); }
  __device__ void ask_for(int first, size_t bytes, MBarrier* barrier) const {
    bulk_copy(kept + first * kWords, data + first * kGroup, bytes, barrier);
  }

  /// What will be read from global memory comes nearer.
  __device__ void prefetch() const {
    if (kWhole && has_bulk_copies() && groups > 0 && lane() == 0) bulk_prefetch(data, bytes_of(groups));
  }

  __device__ __forceinline__ RawGroup<Element> raw(int group) const {
    if (kWhole) return load_whole(data + group * kGroup);
    return load_raw(data, group * kGroup, columns);
  }

  __device__ __forceinline__ RawGroup<Element> kept_raw(int group) const {
    RawGroup<Element> of_group;
#pragma unroll
    for (int i = 0; i < kWords; ++i) of_group.word[i] = kept[group * kWords + i];
    return of_group;
  }

  /// The first visit: a batch as it is in memory, whose largest logit is returned. In one that is not full the groups
  /// behind the range are -inf.
  template <class Real>
  using Raw = RawGroup<Element>;
  template <bool kFull, class Real, int kGroups>
  __device__ __forceinline__ Real load_batch(int first, RawGroup<Element> (&of_group)[kGroups]) const {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int group = first + g * kWarp;
      if (!kFull) of_group[g] = nothing<Element>();
      if (kFull || group < groups) of_group[g] = kArrives ? kept_raw(group) : raw(group);
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (Loader::kKeeps && !kArrives && (kFull || first + g * kWarp < groups)) {
#pragma unroll
        for (int i = 0; i < kWords; ++i) kept[(first + g * kWarp) * kWords + i] = of_group[g].word[i];
      }
    }
    return largest_of<Real>(of_group);
  }

  /// The second visit, by the same thread: a group.
  template <class Real>
  __device__ __forceinline__ Group<Real> again(int group) const {
    return as_numbers<Real>(Loader::kKeeps ? kept_raw(group) : raw(group));
  }
  /// One of the thread's columns, too, as long as its group is not overwritten.
  __device__ __forceinline__ Element element(int column) const {
    return Loader::kKeeps ? reinterpret_cast<const Element*>(kept)[column] : data[column];
  }
};

/// Where what a warp keeps begins, `kept_at` groups behind the block's.
template <class Element, class Loader>
__device__ __forceinline__ uint4* place_of_warp(int kept_at) {
  if (!Loader::kKeeps) return nullptr;
  return in_register(static_cast<uint4*>(dynamic_shared_memory()) + kept_at * RawGroup<Element>::kWords);
}

/// `kept`: where it stays, if it does. Rows that are brought by bulk copies are whole, whatever the caller knows.
template <bool kWhole, class Loader, class Element>
__device__ __forceinline__ Row<Element, kWhole || Loader::kBulk, Loader> part_of(
    const Element* row, int columns, const ColumnRange& range, uint4* kept = nullptr) {
  return {row + range.begin, columns - range.begin, range.groups, kept};
}

/// The same for a row whose dtype is known only when the kernel runs, and which is never kept.
struct OtherRow {
  static constexpr bool kArrives = false;

  AnyRow row;
  int begin, columns, groups;

  template <class Real>
  using Raw = Group<Real>;
  template <bool kFull, class Real, int kGroups>
  __device__ __forceinline__ Real load_batch(int first, Group<Real> (&x)[kGroups]) const {
    Real largest = Real(-INFINITY);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int group = first + g * kWarp;
      x[g] = row.load<Real>(group < groups ? begin + group * kGroup : columns, columns);
      largest = fmax(largest, largest_of(x[g]));
    }
    return largest;
  }
  template <class Real>
  __device__ __forceinline__ Group<Real> again(int group) const {
    return row.load<Real>(begin + group * kGroup, columns);
  }
};

/// A batch of a row as numbers.
template <bool kFull, class SomeRow, class Real, int kGroups>
__device__ __forceinline__ void load(const SomeRow& row, int first, Group<Real> (&x)[kGroups]) {
  typename SomeRow::template Raw<Real> raw[kGroups];
  row.template load_batch<kFull, Real>(first, raw);
  as_numbers(raw, x);
}

/// One warp's columns of a row that is written. kWhole: every group is whole and aligned, and nothing is added.
template <class Element, bool kWhole>
struct TargetRow {
  Element* data;  // at the range's beginning
  int columns;    // from there to the row's end
  bool add;

  template <class Real>
  __device__ __forceinline__ void store(const Group<Real>& x, int group) const {
    if (kWhole) return store_whole(as_elements<Element>(x), group_at(data, group));
    store_group(x, data, group * kGroup, columns, add);
  }
};

template <bool kWhole, class Element>
__device__ __forceinline__ TargetRow<Element, kWhole> target_part_of(
    Element* row, int columns, const ColumnRange& range, bool add) {
  return {row + range.begin, columns - range.begin, add};
}

/// Writes one number to a range of a row's columns; with `add`, adds it.
template <class Real, class Element>
__device__ __forceinline__ void fill_columns(
    Real value, Element* row, const ColumnRange& range, int columns, bool add) {
  Group<Real> group;
  for (int i = 0; i < kGroup; ++i) group.value[i] = value;
  for_each_group(range, [&](int g) { store_group(group, row, range.begin + g * kGroup, columns, add); });
}

/// Who works on a row, and where it stays meanwhile.
struct RowPlan {
  int cluster_blocks = 1;
  bool resident = false;
  bool bulk_copies = false;    // which bring what stays
  bool asks_ahead = false;     // for the next row while one is written, if the kernel knows how to
  size_t shared_bytes = 0;     // of a block
  int64_t rows_at_a_time = 1;  // that stay in a cache until their second visit, but one for each multiprocessor
};

/// Whether all rows begin on 16-byte boundaries and are of whole groups.
template <class SomeRows>
bool are_whole(const SomeRows& rows, int64_t columns) {
  const bool together = rows.row_count < 2 || rows.row_stride * element_size(rows.dtype) % 16 == 0;
  return columns % kGroup == 0 && (rows.row_count == 0 || is_aligned(rows.data)) && together;
}

/// `column_bytes`: of all that is visited twice; `whole_rows`: whether all of that is whole; `can_be_kept`: whether all
/// of it has one dtype. Depends on the sizes of one row only, so that its bits do not depend on how many there are.
inline RowPlan plan_rows(
    const Device& device, int columns, int64_t column_bytes, bool whole_rows = true, bool can_be_kept = true) {
  const int64_t available = device.shared_bytes_per_block - kReservedSharedBytes;
  const int64_t third = device.shared_bytes_per_block / 3 - kReservedSharedBytes;  // three blocks take turns
  RowPlan plan;
  const auto bytes = [&] { return groups_per_block(columns, plan.cluster_blocks) * kGroup * column_bytes; };
  while (plan.cluster_blocks < device.cluster_blocks && bytes() > third) plan.cluster_blocks *= 2;
  plan.resident = can_be_kept && bytes() <= available;
  if (plan.resident) plan.shared_bytes = size_t(bytes());
  plan.bulk_copies = whole_rows && plan.resident && device.like_hopper && loader() != kThreadLoader;
  plan.asks_ahead = plan.bulk_copies && loader() != kBulkLoader;
  const int64_t cached = int64_t(device.l2_bytes) / 4 * 3 / (columns * column_bytes);
  plan.rows_at_a_time = cached > device.multiprocessors ? cached : device.multiprocessors;
  return plan;
}

/// The launch of a kernel in which cluster i works on rows i, i + clusters, ... Rows that are visited once, or kept,
/// are all worked on at once.
inline LaunchShape shape_of(const RowPlan& plan, int64_t rows, bool visited_twice) {
  const bool limited = visited_twice && !plan.resident && plan.rows_at_a_time < rows;
  LaunchShape shape;
  shape.blocks = dim3(unsigned((limited ? plan.rows_at_a_time : rows) * plan.cluster_blocks));
  shape.threads = kRowThreads;
  shape.cluster_blocks = plan.cluster_blocks;
  shape.shared_bytes = visited_twice && plan.resident ? plan.shared_bytes : 0;
  return shape;
}

/// call(loader) with the one that rows are brought by that are visited twice.
template <class Call>
Status with_loader(const RowPlan& plan, const Call& call) {
  if (!plan.resident) return call(NotKept());
  return plan.bulk_copies ? call(ByBulkCopies()) : call(ByThreads());
}

}  // namespace cuda
}  // namespace tad
