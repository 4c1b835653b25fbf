// Rows of logits in groups of eight columns: what one thread reads or writes at a time, 16 bytes of bfloat16.
//
// Threads of a block take neighbouring groups, so a warp's accesses are contiguous. Where a row starts on a 16-byte
// boundary a whole group moves in 16-byte accesses; where it does not (a vocabulary that is no multiple of eight, a
// view), and in the last group, element by element.
#pragma once

#include "platform.cuh"

#include "../common/storage.h"

namespace tad {
namespace cuda {

constexpr int kGroup = 8;

/// Eight columns as numbers.
template <class Real>
struct Group {
  Real value[kGroup];
};

/// Whether a row's groups can move in 16-byte accesses.
__device__ __forceinline__ bool is_aligned(const void* row) {
  return reinterpret_cast<uintptr_t>(row) % 16 == 0;
}

/// Eight columns as they are in memory.
template <class Element>
struct RawGroup {
  Element value[kGroup];
};

/// Columns [column, column + 8) of a row; those from `columns` on are -inf.
template <class Element>
__device__ __forceinline__ RawGroup<Element> load_raw(const Element* row, int column, int columns) {
  RawGroup<Element> group;
  if (is_aligned(row) && column + kGroup <= columns) {
    constexpr int kWords = int(sizeof(group)) / 16;
    uint4 words[kWords];
    const uint4* source = reinterpret_cast<const uint4*>(row + column);
    for (int i = 0; i < kWords; ++i) words[i] = source[i];
    memcpy(&group, words, sizeof(group));
  } else {
    for (int i = 0; i < kGroup; ++i) {
      to_storage(-INFINITY, &group.value[i]);
      if (column + i < columns) group.value[i] = row[column + i];
    }
  }
  return group;
}

template <class Real, class Element>
__device__ __forceinline__ Group<Real> as_numbers(const RawGroup<Element>& raw) {
  Group<Real> group;
  for (int i = 0; i < kGroup; ++i) group.value[i] = from_storage<Real>(raw.value[i]);
  return group;
}

template <class Real, class Element>
__device__ __forceinline__ Group<Real> load_group(const Element* row, int column, int columns) {
  return as_numbers<Real>(load_raw(row, column, columns));
}

/// Writes columns [column, column + 8) of a row as far as there are so many; with `add`, adds to what is there, rounded
/// to the row's dtype.
template <class Real, class Element>
__device__ __forceinline__ void store_group(const Group<Real>& group, Element* row, int column, int columns, bool add) {
  Element elements[kGroup];
  Group<Real> sum = group;
  if (add) {
    const Group<Real> before = load_group<Real>(row, column, columns);
    for (int i = 0; i < kGroup; ++i) sum.value[i] += before.value[i];
  }
  for (int i = 0; i < kGroup; ++i) to_storage(sum.value[i], &elements[i]);
  if (is_aligned(row) && column + kGroup <= columns) {
    constexpr int kWords = kGroup * int(sizeof(Element)) / 16;
    uint4 words[kWords];
    memcpy(words, elements, sizeof(elements));
    uint4* target = reinterpret_cast<uint4*>(row + column);
    for (int i = 0; i < kWords; ++i) target[i] = words[i];
  } else {
    for (int i = 0; i < kGroup; ++i)
      if (column + i < columns) row[column + i] = elements[i];
  }
}

/// A row whose dtype is known only when the kernel runs: the second operand, next to one whose dtype is compiled in.
struct AnyRow {
  const char* data;
  DType dtype;

  __device__ AnyRow(const Rows& rows, int64_t row)
      : data(static_cast<const char*>(rows.data) + row * rows.row_stride * element_size(rows.dtype)),
        dtype(rows.dtype) {}

  template <class Real>
  __device__ Group<Real> load(int column, int columns) const {
    switch (dtype) {
      case DType::kFloat32: return load_group<Real>(reinterpret_cast<const float*>(data), column, columns);
      case DType::kFloat64: return load_group<Real>(reinterpret_cast<const double*>(data), column, columns);
      case DType::kBFloat16: return load_group<Real>(reinterpret_cast<const BFloat16*>(data), column, columns);
      default: return load_group<Real>(reinterpret_cast<const Float16*>(data), column, columns);
    }
  }
};

struct MutableAnyRow {
  char* data;
  DType dtype;

  __device__ MutableAnyRow(const MutableRows& rows, int64_t row)
      : data(static_cast<char*>(rows.data) + row * rows.row_stride * element_size(rows.dtype)), dtype(rows.dtype) {}

  template <class Real>
  __device__ __forceinline__ void store(const Group<Real>& group, int column, int columns) const {
    switch (dtype) {
      case DType::kFloat32: return store_group(group, reinterpret_cast<float*>(data), column, columns, false);
      case DType::kFloat64: return store_group(group, reinterpret_cast<double*>(data), column, columns, false);
      case DType::kBFloat16: return store_group(group, reinterpret_cast<BFloat16*>(data), column, columns, false);
      default: return store_group(group, reinterpret_cast<Float16*>(data), column, columns, false);
    }
  }
};

/// The row that an entry names in a list (null: its own number); -1 where there is no such row.
__device__ __forceinline__ int64_t existing_row(const Rows& logits, const int64_t* rows, int64_t entry) {
  const int64_t row = rows ? rows[entry] : entry;
  return row >= 0 && row < logits.row_count ? row : -1;
}

/// Row `row` as elements of the compiled-in dtype.
template <class Element>
__device__ __forceinline__ const Element* row_pointer(const Rows& rows, int64_t row) {
  return static_cast<const Element*>(rows.data) + row * rows.row_stride;
}
template <class Element>
__device__ __forceinline__ Element* row_pointer(const MutableRows& rows, int64_t row) {
  return static_cast<Element*>(rows.data) + row * rows.row_stride;
}

/// Calls visit(column) with the first column of each group that belongs to the calling thread.
template <class Visit>
__device__ __forceinline__ void for_each_group(int begin, int end, const Visit& visit) {
  for (int column = begin + int(threadIdx.x) * kGroup; column < end; column += int(blockDim.x) * kGroup) visit(column);
}

/// The columns of a row that one block of a cluster works on: whole groups, but for the row's end.
struct ColumnRange {
  int begin, end;
};

__host__ __device__ __forceinline__ int columns_per_block(int columns, int cluster_blocks) {
  const int groups = (columns + kGroup - 1) / kGroup;
  return (groups + cluster_blocks - 1) / cluster_blocks * kGroup;
}

__device__ __forceinline__ ColumnRange columns_of_block(int columns, int rank, int cluster_blocks) {
  const int each = columns_per_block(columns, cluster_blocks);
  const int begin = each * rank < columns ? each * rank : columns;
  return {begin, begin + each < columns ? begin + each : columns};
}

/// Writes one number to a range of a row's columns; with `add`, adds it.
template <class Real, class Element>
__device__ __forceinline__ void fill_columns(Real value, Element* row, ColumnRange range, int columns, bool add) {
  Group<Real> group;
  for (int i = 0; i < kGroup; ++i) group.value[i] = value;
  for_each_group(range.begin, range.end, [&](int column) { store_group(group, row, column, columns, add); });
}

/// The type that arithmetic on elements is done in.
template <class Element>
struct RealOf {
  using type = float;
};
template <>
struct RealOf<double> {
  using type = double;
};

/// launch(Element()) with the element type of a dtype.
template <class Launch>
Status with_element(DType dtype, const Launch& launch) {
  switch (dtype) {
    case DType::kFloat32: return launch(float());
    case DType::kFloat64: return launch(double());
    case DType::kBFloat16: return launch(BFloat16());
    default: return launch(Float16());
  }
}

}  // namespace cuda
}  // namespace tad
