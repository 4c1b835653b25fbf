// A row is worked through in blocks that fit the first-level cache, seen as float (or double) whatever the row's dtype.
// So every kernel is written once, for one type, without tails: the last block is padded.
#pragma once

#include <cstdint>

#include "convert.h"
#include "simd.h"

namespace tad {
namespace TAD_ISA {

constexpr int64_t kBlock = 512;  // elements; a multiple of every vector width

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

  /// `count` elements from `begin`, followed by -inf up to whole vectors. Valid until the next call.
  const Real* block(int64_t begin, int64_t count) {
    const char* source = data_ + begin * element_size(dtype_);
    if (dtype_ == native_dtype<Real>() && count == padded<Real>(count)) return reinterpret_cast<const Real*>(source);
    switch (dtype_) {
      case DType::kFloat32: convert_from(reinterpret_cast<const float*>(source), buffer_, count); break;
      case DType::kFloat64: convert_from(reinterpret_cast<const double*>(source), buffer_, count); break;
      case DType::kBFloat16: convert_from(reinterpret_cast<const BFloat16*>(source), buffer_, count); break;
      case DType::kFloat16: convert_from(reinterpret_cast<const Float16*>(source), buffer_, count); break;
    }
    for (int64_t i = count; i < padded<Real>(count); ++i) buffer_[i] = Real(-INFINITY);
    return buffer_;
  }

  Real element(int64_t i) const {
    const char* source = data_ + i * element_size(dtype_);
    switch (dtype_) {
      case DType::kFloat32: return from_storage<Real>(*reinterpret_cast<const float*>(source));
      case DType::kFloat64: return from_storage<Real>(*reinterpret_cast<const double*>(source));
      case DType::kBFloat16: return from_storage<Real>(*reinterpret_cast<const BFloat16*>(source));
      default: return from_storage<Real>(*reinterpret_cast<const Float16*>(source));
    }
  }

 private:
  const char* data_;
  DType dtype_;
  alignas(64) Real buffer_[kBlock];
};

/// Writes one row block by block; with `add`, adds to what the row holds.
template <class Real>
class RowWriter {
 public:
  RowWriter(const MutableRows& rows, int64_t row, bool add)
      : data_(static_cast<char*>(rows.data) + row * rows.row_stride * element_size(rows.dtype)),
        dtype_(rows.dtype),
        add_(add) {}

  ~RowWriter() { stream_fence(); }

  /// Where to put the values of the next block, up to whole vectors; `finish` brings them to the row.
  Real* block() { return buffer_; }

  void finish(int64_t begin, int64_t count) {
    char* target = data_ + begin * element_size(dtype_);
    switch (dtype_) {
      case DType::kFloat32: put(reinterpret_cast<float*>(target), count); break;
      case DType::kFloat64: put(reinterpret_cast<double*>(target), count); break;
      case DType::kBFloat16: put(reinterpret_cast<BFloat16*>(target), count); break;
      case DType::kFloat16: put(reinterpret_cast<Float16*>(target), count); break;
    }
  }

 private:
  void put(Real* target, int64_t count) {
    if (!add_ && count == padded<Real>(count) && reinterpret_cast<uintptr_t>(target) % TAD_VECTOR_BYTES == 0)
      for (int64_t i = 0; i < count; i += Simd<Real>::kLanes) stream(target + i, load(buffer_ + i));
    else
      put<Real>(target, count);
  }

  template <class Storage>
  void put(Storage* target, int64_t count) {
    if (add_)
      for (int64_t i = 0; i < count; ++i) buffer_[i] += from_storage<Real>(target[i]);
    convert_to(static_cast<const Real*>(buffer_), target, count);
  }

  char* data_;
  DType dtype_;
  bool add_;
  alignas(64) Real buffer_[kBlock];
};

/// Calls visit(begin, count) for every block of a row of `vocabulary` elements.
template <class Visit>
inline void for_each_block(int64_t vocabulary, Visit visit) {
  for (int64_t begin = 0; begin < vocabulary; begin += kBlock)
    visit(begin, vocabulary - begin < kBlock ? vocabulary - begin : kBlock);
}

template <class Real>
inline Real block_max(const Real* block, int64_t length) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  Vector<Real> a = load(block), b = a;
  int64_t i = 0;
  for (; i + 2 * kLanes <= length; i += 2 * kLanes) {
    a = maximum(a, load(block + i));
    b = maximum(b, load(block + i + kLanes));
  }
  if (i < length) a = maximum(a, load(block + i));
  return horizontal_max<Real>(maximum(a, b));
}

}  // namespace TAD_ISA
}  // namespace tad
