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
__host__ __device__ __forceinline__ bool is_aligned(const void* row) {
  return reinterpret_cast<uintptr_t>(row) % 16 == 0;
}

/// Eight columns as they are in memory, as the words that one thread moves at a time.
template <class Element>
struct RawGroup {
  static constexpr int kWords = kGroup * int(sizeof(Element)) / 16;
  uint4 word[kWords];
};

/// Where a group of a row lies that is written, by an address in bytes: one multiply-add, where pointers take three
/// operations. (A load from there would not be known to be from global memory.)
template <class Element>
__device__ __forceinline__ Element* group_at(Element* row, int group) {
  return reinterpret_cast<Element*>(reinterpret_cast<uintptr_t>(row) + int64_t(group) * int(kGroup * sizeof(Element)));
}

/// Eight columns that lie whole and aligned in memory.
template <class Element>
__device__ __forceinline__ RawGroup<Element> load_whole(const Element* group) {
  RawGroup<Element> raw;
  const uint4* source = reinterpret_cast<const uint4*>(group);
#pragma unroll
  for (int i = 0; i < raw.kWords; ++i) raw.word[i] = source[i];
  return raw;
}

template <class Element>
__device__ __forceinline__ void store_whole(const RawGroup<Element>& raw, Element* group) {
  uint4* target = reinterpret_cast<uint4*>(group);
#pragma unroll
  for (int i = 0; i < raw.kWords; ++i) store_streaming(target + i, raw.word[i]);
}

template <class Element>
__device__ __forceinline__ RawGroup<Element> raw_of(const Element (&elements)[kGroup]) {
  RawGroup<Element> raw;
  memcpy(raw.word, elements, sizeof(raw.word));
  return raw;
}

/// Eight times -inf.
template <class Element>
__device__ __forceinline__ RawGroup<Element> nothing() {
  Element elements[kGroup];
  for (int i = 0; i < kGroup; ++i) to_storage(-INFINITY, &elements[i]);
  return raw_of(elements);
}

/// Columns [column, column + 8) of a row; those from `columns` on are -inf.
template <class Element>
__device__ __forceinline__ RawGroup<Element> load_raw(const Element* row, int column, int columns) {
  if (is_aligned(row) && column + kGroup <= columns) return load_whole(row + column);
  Element elements[kGroup];
  for (int i = 0; i < kGroup; ++i) {
    to_storage(-INFINITY, &elements[i]);
    if (column + i < columns) elements[i] = row[column + i];
  }
  return raw_of(elements);
}

template <class Real, class Element>
__device__ __forceinline__ Group<Real> as_numbers(const RawGroup<Element>& raw) {
  Element elements[kGroup];
  memcpy(elements, raw.word, sizeof(elements));
  Group<Real> group;
  for (int i = 0; i < kGroup; ++i) group.value[i] = from_storage<Real>(elements[i]);
  return group;
}

/// Two bfloat16 of a word are its halves followed by zeros: one operation each.
template <class Real>
__device__ __forceinline__ Group<Real> as_numbers(const RawGroup<BFloat16>& raw) {
  const uint32_t words[] = {raw.word[0].x, raw.word[0].y, raw.word[0].z, raw.word[0].w};
  Group<Real> group;
  for (int i = 0; i < kGroup / 2; ++i) {
    group.value[2 * i] = Real(bits_to_float(words[i] << 16));
    group.value[2 * i + 1] = Real(bits_to_float(words[i] & 0xffff0000u));
  }
  return group;
}

template <class Real>
__device__ __forceinline__ Group<Real> as_numbers(const Group<Real>& numbers) {
  return numbers;
}
template <int kGroups, class Raw, class Real>
__device__ __forceinline__ void as_numbers(const Raw (&raw)[kGroups], Group<Real> (&x)[kGroups]) {
#pragma unroll
  for (int g = 0; g < kGroups; ++g) x[g] = as_numbers<Real>(raw[g]);
}

/// The largest of a group; NaN does not count.
template <class Real>
__device__ __forceinline__ Real largest_of(const Group<Real>& x) {
  Real largest = Real(-INFINITY);
  for (const Real value : x.value) largest = fmax(largest, value);
  return largest;
}

/// The same of some groups as they are in memory: numbers of 16 bits in pairs.
template <class Real, int kGroups, class Element>
__device__ __forceinline__ Real largest_of(const RawGroup<Element> (&raw)[kGroups]) {
  Real largest = Real(-INFINITY);
  if constexpr (sizeof(Element) == 2) {
    uint32_t pair = raw[0].word[0].x;
#pragma unroll
    for (const RawGroup<Element>& group : raw) {
      for (const uint32_t other : {group.word[0].x, group.word[0].y, group.word[0].z, group.word[0].w})
        pair = larger_pair<Element>(pair, other);
    }
    pair = larger_pair<Element>(pair, pair >> 16);  // the larger one of both is the lower half
    Element element;
    memcpy(&element, &pair, sizeof(element));
    largest = fmax(largest, from_storage<Real>(element));
  } else {
    for (const RawGroup<Element>& group : raw) largest = fmax(largest, largest_of(as_numbers<Real>(group)));
  }
  return largest;
}

template <class Element, class Real>
__device__ __forceinline__ RawGroup<Element> as_elements(const Group<Real>& group) {
  Element elements[kGroup];
  for (int i = 0; i < kGroup; ++i) to_storage(group.value[i], &elements[i]);
  return raw_of(elements);
}

template <class Real, class Element>
__device__ __forceinline__ Group<Real> load_group(const Element* row, int column, int columns) {
  return as_numbers<Real>(load_raw(row, column, columns));
}

/// Writes columns [column, column + 8) of a row as far as there are so many; with `add`, adds to what is there, rounded
/// to the row's dtype.
template <class Real, class Element>
__device__ __forceinline__ void store_group(const Group<Real>& group, Element* row, int column, int columns, bool add) {
  Group<Real> sum = group;
  if (add) {
    const Group<Real> before = load_group<Real>(row, column, columns);
    for (int i = 0; i < kGroup; ++i) sum.value[i] += before.value[i];
  }
  if (is_aligned(row) && column + kGroup <= columns) return store_whole(as_elements<Element>(sum), row + column);
  for (int i = 0; i < kGroup; ++i)
    if (column + i < columns) to_storage(sum.value[i], &row[column + i]);
}

/// A row whose dtype is known only when the kernel runs: the second operand, next to one whose dtype is compiled in.
struct AnyRow {
  const char* data;
  DType dtype;

  __device__ AnyRow(const void* data, DType dtype) : data(static_cast<const char*>(data)), dtype(dtype) {}
  __device__ AnyRow(const Rows& rows, int64_t row)
      : AnyRow(static_cast<const char*>(rows.data) + row * rows.row_stride * element_size(rows.dtype), rows.dtype) {}

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

/// The type that arithmetic on elements is done in.
template <class Element>
struct RealOf {
  using type = float;
};
template <>
struct RealOf<double> {
  using type = double;
};

/// launch(Element()) with the element type of a dtype; a row_pointer's type is compiled in.
template <class Launch>
__host__ __device__ __forceinline__ auto with_element(DType dtype, const Launch& launch) {
  switch (dtype) {
    case DType::kFloat32: return launch(float());
    case DType::kFloat64: return launch(double());
    case DType::kBFloat16: return launch(BFloat16());
    default: return launch(Float16());
  }
}

}  // namespace cuda
}  // namespace tad
