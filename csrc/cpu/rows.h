// A row is worked through in slices, which threads may share, and these in blocks that fit the first-level cache. Code
// for a block is compiled for the row's dtype and sees whole vectors only: the last block is padded, in a buffer.
#pragma once

#include <cstdint>

#include "elements.h"
#include "kernels.h"

namespace tad {
namespace TAD_ISA {

template <class Real>
constexpr DType native_dtype() {
  return sizeof(Real) == 8 ? DType::kFloat64 : DType::kFloat32;
}

/// Length of a block rounded up to whole vectors.
template <class Real>
inline int64_t padded(int64_t count) {
  return (count + Simd<Real>::kLanes - 1) / Simd<Real>::kLanes * Simd<Real>::kLanes;
}

/// Reads one row block by block.
template <class Real>
class RowReader {
 public:
  RowReader(const Rows& rows, int64_t row)
      : data_(static_cast<const char*>(rows.data) + row * rows.row_stride * element_size(rows.dtype)),
        dtype_(rows.dtype) {}

  DType dtype() const { return dtype_; }

  /// Whether a block of so many elements can be read where it is: in whole vectors, converted in registers.
  bool in_place(int64_t count) const {
    return count == padded<Real>(count) && (sizeof(Real) == 4) == (dtype_ != DType::kFloat64);
  }

  const char* source(int64_t begin) const { return data_ + begin * element_size(dtype_); }

  /// `count` elements from `begin`, followed by -inf up to whole vectors. Valid until the next call.
  const Real* buffered(int64_t begin, int64_t count) {
    const int64_t length = padded<Real>(count);
    const char* from = source(begin);
    switch (dtype_) {
      case DType::kFloat32: convert_from(reinterpret_cast<const float*>(from), buffer_, count, length); break;
      case DType::kFloat64: convert_from(reinterpret_cast<const double*>(from), buffer_, count, length); break;
      case DType::kBFloat16: convert_from(reinterpret_cast<const BFloat16*>(from), buffer_, count, length); break;
      case DType::kFloat16: convert_from(reinterpret_cast<const Float16*>(from), buffer_, count, length); break;
    }
    return buffer_;
  }

 private:
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
  if (!row.in_place(count)) return visit(row.buffered(begin, count), padded<Real>(count));
  with_element(row.dtype(), Real(), [&](auto element) {
    visit(reinterpret_cast<const decltype(element)*>(row.source(begin)), count);
  });
}

/// visit(elements, other elements, length) for one block of two rows, both of one type.
template <class Real, class Visit>
inline void visit_block(
    RowReader<Real>& row, RowReader<Real>& other, int64_t begin, int64_t count, const Visit& visit) {
  if (row.dtype() != other.dtype() || !row.in_place(count))
    return visit(row.buffered(begin, count), other.buffered(begin, count), padded<Real>(count));
  with_element(row.dtype(), Real(), [&](auto element) {
    using Element = decltype(element);
    visit(
        reinterpret_cast<const Element*>(row.source(begin)), reinterpret_cast<const Element*>(other.source(begin)),
        count);
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

  /// Writes the block of `count` elements at `begin`: values(i) is the vector of those from begin + i on.
  template <class Values>
  void write(int64_t begin, int64_t count, const Values& values) {
    char* target = data_ + begin * element_size(dtype_);
    switch (dtype_) {
      case DType::kFloat32: return put(reinterpret_cast<float*>(target), count, values);
      case DType::kFloat64: return put(reinterpret_cast<double*>(target), count, values);
      case DType::kBFloat16: return put(reinterpret_cast<BFloat16*>(target), count, values);
      case DType::kFloat16: return put(reinterpret_cast<Float16*>(target), count, values);
    }
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
  for_each_block(vocabulary, slice, [&](int64_t begin, int64_t count) {
    writer.write(begin, count, [&](int64_t) TAD_INLINED { return Vector<Real>{}; });
  });
}

}  // namespace TAD_ISA
}  // namespace tad
