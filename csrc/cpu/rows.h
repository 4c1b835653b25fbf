// A row is worked through in slices, which threads may share, and these in blocks that fit the first-level cache. Code
// for a block is compiled for the row's dtype and sees whole vectors only: the last block is padded, in a buffer.
#pragma once

#include <cstdint>

#include "elements.h"
#include "kernels.h"

namespace tad {
namespace TAD_ISA {

template <class Element>
constexpr DType kDTypeOf = DType::kFloat32;
template <>
inline constexpr DType kDTypeOf<double> = DType::kFloat64;
template <>
inline constexpr DType kDTypeOf<BFloat16> = DType::kBFloat16;
template <>
inline constexpr DType kDTypeOf<Float16> = DType::kFloat16;

/// Length of a block rounded up to whole pairs of vectors.
template <class Real>
inline int64_t padded(int64_t count) {
  constexpr int64_t kPair = 2 * Simd<Real>::kLanes;
  return (count + kPair - 1) / kPair * kPair;
}

/// Reads one row block by block.
template <class Real>
class RowReader {
 public:
  RowReader(const Rows& rows, int64_t row)
      : data_(static_cast<const char*>(rows.data) + row * rows.row_stride * element_size(rows.dtype)),
        dtype_(rows.dtype) {}

  DType dtype() const { return dtype_; }

  /// `count` elements from `begin`, of the row's own type or converted to Real, followed by -inf up to whole pairs of
  /// vectors: in place where nothing is to be done. Valid until the next call.
  template <class Element>
  const Element* block(int64_t begin, int64_t count) {
    const char* from = data_ + begin * element_size(dtype_);
    const int64_t length = padded<Real>(count);
    if (dtype_ == kDTypeOf<Element> && count == length) return reinterpret_cast<const Element*>(from);
    Element* buffer = reinterpret_cast<Element*>(buffer_);
    if (dtype_ == kDTypeOf<Element>)
      std::memcpy(buffer, from, count * sizeof(Element));
    else
      convert(from, count);
    for (int64_t i = count; i < length; ++i) to_storage(negative_infinity<Real>(), buffer + i);
    return buffer;
  }

 private:
  void convert(const char* from, int64_t count) {
    switch (dtype_) {
      case DType::kFloat32: return convert_from(reinterpret_cast<const float*>(from), buffer_, count);
      case DType::kFloat64: return convert_from(reinterpret_cast<const double*>(from), buffer_, count);
      case DType::kBFloat16: return convert_from(reinterpret_cast<const BFloat16*>(from), buffer_, count);
      case DType::kFloat16: return convert_from(reinterpret_cast<const Float16*>(from), buffer_, count);
    }
  }

  const char* data_;
  DType dtype_;
  alignas(64) Real buffer_[kBlock];
};

/// visit(Element()) with the type of elements that can be read in place.
template <class Visit>
inline void with_element(DType dtype, float, const Visit& visit) {
  switch (dtype) {
    case DType::kBFloat16: return visit(BFloat16());
    case DType::kFloat16: return visit(Float16());
    default: return visit(float());
  }
}
template <class Visit>
inline void with_element(DType, double, const Visit& visit) {
  visit(double());
}

/// visit(elements, length) for one block of a row.
template <class Real, class Visit>
inline void visit_block(RowReader<Real>& row, int64_t begin, int64_t count, const Visit& visit) {
  with_element(row.dtype(), Real(), [&](auto element) {
    visit(row.template block<decltype(element)>(begin, count), padded<Real>(count));
  });
}

/// visit(elements, other elements, length) for one block of two rows, both of one type.
template <class Real, class Visit>
inline void visit_block(
    RowReader<Real>& row, RowReader<Real>& other, int64_t begin, int64_t count, const Visit& visit) {
  const int64_t length = padded<Real>(count);
  if (row.dtype() != other.dtype())
    return visit(row.template block<Real>(begin, count), other.template block<Real>(begin, count), length);
  with_element(row.dtype(), Real(), [&](auto element) {
    using Element = decltype(element);
    visit(row.template block<Element>(begin, count), other.template block<Element>(begin, count), length);
  });
}

/// Writes one row block by block; with `add`, adds to what the row holds.
template <class Real>
class RowWriter {
 public:
  RowWriter(const MutableRows& rows, int64_t row, int64_t vocabulary, bool add)
      : data_(static_cast<char*>(rows.data) + row * rows.row_stride * element_size(rows.dtype)),
        dtype_(rows.dtype),
        add_(add),
        stream_(rows.row_count * vocabulary * element_size(rows.dtype) >= kStreamedBytes) {}

  ~RowWriter() {
    if (stream_) stream_fence();
  }

  /// Writes the block of `count` elements at `begin`: values(i) is the vector of those from begin + i on. With
  /// `even_odd` the row is bfloat16, and values(i) are the halves of pairs, one behind the other.
  template <class Values>
  void write(int64_t begin, int64_t count, const Values& values, bool even_odd = false) {
    char* target = data_ + begin * element_size(dtype_);
    if constexpr (kEvenOdd<Real, BFloat16>)
      if (even_odd) return put_even_odd(reinterpret_cast<BFloat16*>(target), count, values);
    switch (dtype_) {
      case DType::kFloat32: return put(reinterpret_cast<float*>(target), count, values);
      case DType::kFloat64: return put(reinterpret_cast<double*>(target), count, values);
      case DType::kBFloat16: return put(reinterpret_cast<BFloat16*>(target), count, values);
      case DType::kFloat16: return put(reinterpret_cast<Float16*>(target), count, values);
    }
  }

  void write_zeros(int64_t begin, int64_t count) {
    write(begin, count, [&](int64_t) TAD_INLINED { return Vector<Real>{}; }, dtype_ == DType::kBFloat16);
  }

 private:
  static constexpr int64_t kStreamedBytes = 4 << 20;  // what is smaller may still be in a cache when it is read

  template <class Storage, class Values>
  void put(Storage* target, int64_t count, const Values& values) {
    constexpr int64_t kLanes = Simd<Real>::kLanes;
    if constexpr (kCanStream<Real, Storage>) {
      const bool aligned = reinterpret_cast<uintptr_t>(target) % TAD_VECTOR_BYTES == 0;
      if (stream_ && !add_ && aligned && count % (2 * kLanes) == 0) {
        for (int64_t i = 0; i < count; i += 2 * kLanes) stream_pair(target + i, values(i), values(i + kLanes));
        return;
      }
    }
    for (int64_t i = 0; i < count; i += kLanes) store(buffer_ + i, values(i));
    if (add_)
      for (int64_t i = 0; i < count; ++i) buffer_[i] += from_storage<Real>(target[i]);
    convert_to(buffer_, target, count);
  }

  template <class Values>
  void put_even_odd(BFloat16* target, int64_t count, const Values& values) {
    constexpr int64_t kLanes = Simd<Real>::kLanes;
    const bool whole = count % (2 * kLanes) == 0;
    const bool streams = stream_ && !add_ && whole && reinterpret_cast<uintptr_t>(target) % TAD_VECTOR_BYTES == 0;
    BFloat16* out = whole ? target : reinterpret_cast<BFloat16*>(buffer_);
    if (add_ && !whole) std::memcpy(out, target, count * sizeof(*out));
    for (int64_t i = 0; i < count; i += 2 * kLanes) {
      Vector<Real> even = values(i), odd = values(i + kLanes);
      if (add_) {
        even += load_half<0, Real>(out + i);
        odd += load_half<1, Real>(out + i);
      }
      const Words words = even_odd_bfloat16(even, odd);
      if (streams)
        stream(out + i, words);
      else
        std::memcpy(out + i, &words, sizeof(words));
    }
    if (!whole) std::memcpy(target, out, count * sizeof(*out));
  }

  char* data_;
  DType dtype_;
  bool add_, stream_;
  alignas(64) Real buffer_[kBlock];
};

/// Calls visit(begin, count) for every block of a slice of a row.
template <class Visit>
inline void for_each_block(int64_t vocabulary, int64_t slice, const Visit& visit) {
  const int64_t end = vocabulary < (slice + 1) * kSlice ? vocabulary : (slice + 1) * kSlice;
  for (int64_t begin = slice * kSlice; begin < end; begin += kBlock)
    visit(begin, end - begin < kBlock ? end - begin : kBlock);
}

/// Writes zeros to a slice of a row.
template <class Real>
void zero(const MutableRows& rows, int64_t vocabulary, int64_t row, int64_t slice) {
  RowWriter<Real> writer(rows, row, vocabulary, false);
  for_each_block(vocabulary, slice, [&](int64_t begin, int64_t count) { writer.write_zeros(begin, count); });
}

}  // namespace TAD_ISA
}  // namespace tad
