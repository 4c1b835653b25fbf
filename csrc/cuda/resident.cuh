// Rows that a cluster of blocks visits twice, once for their sums and once for what follows from them, and reads from
// global memory once: in between each thread keeps its columns in its block's shared memory. Where rows do not fit, or
// there are no clusters, the second visit reads them again, from the second-level cache as long as few enough are
// worked on at a time.
#pragma once

#include "reduce.cuh"
#include "row_io.cuh"

namespace tad {
namespace cuda {

/// Threads of a block that works on a row, and groups of columns that one of them has in flight at a time: 64 bytes,
/// and of each row of a pair half as many.
template <class Element>
constexpr int kRowThreads = sizeof(Element) == 4 || kMostRowThreads < 256 ? kMostRowThreads : 256;
template <class Element>
constexpr int kBatch = 8 / int(sizeof(Element));
template <class Element>
constexpr int kPairBatch = sizeof(Element) == 8 ? 1 : kBatch<Element> / 2;

/// Blocks per multiprocessor that registers must suffice for: with half types, as many as shared memory has room for.
/// Without this number ptxas guesses one, and spills to meet it.
template <class Element, bool kResident>
constexpr int kRowBlocks = sizeof(Element) > 2 ? 1 : kResident ? 3 : 2;

template <class Element>
constexpr int kRowStep = kRowThreads<Element> * kGroup;

/// Calls visit(first) for each batch of kGroups groups of the calling thread: theirs begin at first, first + kRowStep, ...
/// as far as the range goes. The same columns as of for_each_group.
template <class Element, int kGroups, class Visit>
__device__ __forceinline__ void for_each_batch(const ColumnRange& range, const Visit& visit) {
  for (int first = range.begin + int(threadIdx.x) * kGroup; first < range.end;
       first += kGroups * kRowStep<Element>)
    visit(first);
}

/// One block's columns of a row of the compiled-in dtype. `kept`: its place in shared memory.
template <class Element, bool kResident>
struct Row {
  const Element* data;
  int columns;
  ColumnRange range;
  RawGroup<Element>* kept;

  /// The first visit: a batch. Groups behind the range are -inf.
  template <class Real, int kGroups>
  __device__ __forceinline__ void load(int first, Group<Real> (&x)[kGroups]) const {
    RawGroup<Element> raw[kGroups];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int column = first + g * kRowStep<Element>;
      raw[g] = load_raw(data, column < range.end ? column : columns, columns);
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int column = first + g * kRowStep<Element>;
      if (kResident && column < range.end) kept[(column - range.begin) / kGroup] = raw[g];
      x[g] = as_numbers<Real>(raw[g]);
    }
  }

  /// The second visit, by the same thread: a group.
  template <class Real>
  __device__ __forceinline__ Group<Real> again(int column) const {
    if (kResident) return as_numbers<Real>(kept[(column - range.begin) / kGroup]);
    return load_group<Real>(data, column, columns);
  }
};

/// The same for a row whose dtype is known only when the kernel runs, and which is never kept.
template <class Element>
struct OtherRow {
  AnyRow row;
  int columns;
  ColumnRange range;

  template <class Real, int kGroups>
  __device__ __forceinline__ void load(int first, Group<Real> (&x)[kGroups]) const {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int column = first + g * kRowStep<Element>;
      x[g] = row.load<Real>(column < range.end ? column : columns, columns);
    }
  }
  template <class Real>
  __device__ __forceinline__ Group<Real> again(int column) const {
    return row.load<Real>(column, columns);
  }
};

/// Who works on a row, and where it stays meanwhile.
struct RowPlan {
  int cluster_blocks = 1;
  bool resident = false;
  size_t shared_bytes = 0;  // of a block
  int64_t rows_at_a_time;   // that stay in a cache until their second visit
};

/// `row_bytes`: of everything that is visited twice for one row, a multiple of `column_bytes` per column. Depends on the
/// sizes of one row only, so that its bits do not depend on how many there are.
inline RowPlan plan_rows(const Device& device, int columns, int64_t column_bytes) {
  constexpr int64_t kReserved = 4 << 10;  // static shared memory, and what the system takes of every block
  const int64_t available = device.shared_bytes_per_block - kReserved;
  const int64_t third = device.shared_bytes_per_block / 3 - kReserved;  // three blocks on a multiprocessor take turns
  RowPlan plan;
  const auto bytes = [&] { return columns_per_block(columns, plan.cluster_blocks) * column_bytes; };
  while (device.clusters && plan.cluster_blocks < kMaxClusterBlocks && bytes() > third) plan.cluster_blocks *= 2;
  plan.resident = bytes() <= available;
  if (plan.resident) plan.shared_bytes = size_t(bytes());
  const int64_t cached = int64_t(device.l2_bytes) / 4 * 3 / (columns * column_bytes);
  plan.rows_at_a_time = cached > 1 ? cached : 1;
  return plan;
}

/// The launch of a kernel that works on `rows` rows by clusters, each taking every so-manieth row. Rows that are visited
/// once, or kept, are all worked on at once.
inline LaunchShape shape_of(const RowPlan& plan, int64_t rows, int threads, bool visited_twice) {
  const bool limited = visited_twice && !plan.resident && plan.rows_at_a_time < rows;
  LaunchShape shape;
  shape.blocks = dim3(unsigned((limited ? plan.rows_at_a_time : rows) * plan.cluster_blocks));
  shape.threads = threads;
  shape.cluster_blocks = plan.cluster_blocks;
  shape.shared_bytes = visited_twice && plan.resident ? plan.shared_bytes : 0;
  return shape;
}

}  // namespace cuda
}  // namespace tad
